"""The dashboard is what Grafana says that one is: TypeScript checks it against Grafana's own types."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import npm
from tests.support.servers import ROOT

pytestmark = pytest.mark.system

SCHEMA = ROOT / "tests/deploy/grafana"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"


def objections(folder: Path, dashboard: str) -> str:
    """What TypeScript has to object to a dashboard."""
    project = shutil.copytree(SCHEMA, folder / "schema")
    (project / "node_modules").symlink_to(npm.node_modules(SCHEMA))
    source = f'import type {{ Ours }} from "./schema";\nexport const dashboard: Ours = {dashboard};\n'
    (project / "dashboard.ts").write_text(source)
    found = subprocess.run(
        ["npm", "run", "--silent", "check"], cwd=project, capture_output=True, text=True, timeout=100
    )
    assert (found.returncode == 0) == (found.stdout == ""), found.stderr
    return found.stdout


def test_the_dashboard_has_no_property_and_no_value_that_grafana_does_not_know(tmp_path: Path) -> None:
    """Nor lacks one that it needs: rows, panels with what their kind can show, variables, links."""
    assert objections(tmp_path, DASHBOARD.read_text()) == ""


def test_a_mistake_in_it_is_found(tmp_path: Path) -> None:
    """A misspelt option, a value that there is not, a property in the wrong place, one that is missing."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels: list[Any] = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"]
    panels[0]["options"]["legend"]["displayMod"] = "list"
    panels[1]["options"]["tooltip"]["mode"] = "every"
    panels[2]["fillOpacity"] = 5
    del panels[3]["targets"][0]["refId"]
    lines = json.dumps(dashboard, indent=1)
    found = objections(tmp_path, lines)
    assert [name in found for name in ("displayMod", '"every"', "fillOpacity", "refId")] == [True] * 4, found
