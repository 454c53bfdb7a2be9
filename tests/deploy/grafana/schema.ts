// What deploy/grafana/dashboard.json has to be, by the types that Grafana publishes.

import type { Dashboard, DashboardLink, DataQuery, FieldConfig, GraphFieldConfig, Panel, RowPanel } from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as SeriesOptions } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// In JSON an enumeration is its values.
type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? number
    : T extends boolean
      ? boolean
      : T extends (infer Item)[]
        ? Json<Item>[]
        : T extends object
          ? { [Key in keyof T]: Json<T[Key]> }
          : T;

// Of a panel's link Grafana itself writes no more than these, whatever its type asks.
type PanelLink = Pick<DashboardLink, "title" | "url" | "targetBlank">;

// What its Prometheus data source understands.
type Query = Json<DataQuery> & { expr: string; legendFormat: string };

type PanelOf<Kind extends string, Options, Custom> = Json<Omit<Panel, "type" | "options" | "fieldConfig" | "links" | "targets">> & {
  type: Kind;
  options: Json<Partial<Options>>;
  fieldConfig: { defaults: Json<Omit<FieldConfig, "custom">> & { custom?: Json<Custom> }; overrides: [] };
  links?: PanelLink[];
  targets: Query[];
};

export type Ours = Json<Omit<Dashboard, "panels">> & {
  panels: (Json<RowPanel> | PanelOf<"stat", StatOptions, never> | PanelOf<"timeseries", SeriesOptions, GraphFieldConfig>)[];
};
