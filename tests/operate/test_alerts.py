"""The alert rules fire on what they name, and on nothing else; each has its section in the runbook."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.doctor import outbox, server
from app.cli.numbers import FULL
from tests.operate.alerts import (
    FAILING,
    FIRES_ON,
    LONGEST,
    MINUTES,
    TEST,
    WAITING,
    Series,
    candidates,
    deliveries,
    events,
    registrations,
    steady,
    story,
)
from tests.support.servers import ROOT

RULES = ROOT / "deploy/prometheus/alerts.yml"


def rules() -> dict[str, dict[str, Any]]:
    """The alert rules by name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


@pytest.mark.system
def test_prometheus_accepts_the_files() -> None:
    """promtool reads the rules, and the example of a configuration with them."""
    subprocess.run(["promtool", "check", "rules", RULES], check=True, capture_output=True)
    subprocess.run(
        ["promtool", "check", "config", "--syntax-only", RULES.with_name("prometheus.yml")],
        check=True,
        capture_output=True,
    )


@pytest.mark.system
@pytest.mark.parametrize("alert", [None, *FIRES_ON], ids=["healthy", *FIRES_ON])
def test_an_alert_fires_on_its_condition_and_alone(tmp_path: Path, alert: str | None) -> None:
    """promtool plays a healthy service in which one thing is wrong; of all rules, one fires."""
    assert told(tmp_path, story(alert, FIRES_ON[alert] if alert else {})) == ""


@pytest.mark.system
def test_a_full_number_space_is_noticed_by_the_numbers_tried(tmp_path: Path) -> None:
    """Whatever the estimate says: from 80 % on, five are tried on average."""
    assert told(tmp_path, story("CedulaNumberSpaceFilling", candidates(6))) == ""


@pytest.mark.system
def test_a_receiver_that_fails_for_half_an_hour_is_noticed(tmp_path: Path) -> None:
    """Not one that fails now and then, nor where only an instance that has just started says so."""
    now_and_then = {FAILING: "1+0x28 0 " * 6}
    just_started = {FAILING.replace("a:8000", "b:8000"): f"_x{MINUTES - 10} 1+0x{LONGEST}"}
    assert told(tmp_path, story("CedulaEventsLate", {FAILING: steady(1)})) == ""
    assert told(tmp_path, story(None, now_and_then)) == ""
    assert told(tmp_path, story(None, just_started)) == ""


@pytest.mark.system
def test_a_receiver_that_fails_makes_nothing_late_where_nothing_waits(tmp_path: Path) -> None:
    """All its events were given up, which was told. Whether it is mended shows with the next one."""
    assert told(tmp_path, story("CedulaEventsDropped", events("given_up", 0.2))) == ""
    assert told(tmp_path, story(None, {FAILING: steady(1), WAITING: steady(0)})) == ""


QUIET: Series = {
    name: steady(0) for outcome in ("sent", "refused", "put_off") for name in deliveries(outcome, 0)
}
"""An hour in which nobody registers."""


@pytest.mark.system
def test_a_quiet_hour_with_a_few_who_are_greylisted_or_mistyped_fires_nothing_critical(
    tmp_path: Path,
) -> None:
    """Two that are tried eight times in five minutes; two addresses a minute that do not exist."""
    greylisted = QUIET | deliveries("put_off", 3.2)
    mistyped = QUIET | deliveries("refused", 1.9)
    assert told(tmp_path, story("CedulaDeliveriesFailing", greylisted)) == ""
    assert told(tmp_path, story("CedulaManyAddressesRefused", mistyped)) == ""


@pytest.mark.system
def test_addresses_that_are_refused_are_noticed_whatever_else_is_put_off(tmp_path: Path) -> None:
    """Of those that the mail server has said yes or no to, one in ten and more than half."""
    put_off = deliveries("put_off", 5000)
    many = deliveries("refused", 100) | put_off
    most = deliveries("refused", 1000) | put_off
    assert told(tmp_path, story("CedulaManyAddressesRefused", many, also=("CedulaDeliveriesFailing",))) == ""
    assert told(tmp_path, story("CedulaMostAddressesRefused", most, also=("CedulaDeliveriesFailing",))) == ""


RARE: Series = (
    registrations("sent", 0.2) | registrations("verified", 0.16, later=0) | registrations("bounced", 0)
)
TRIED_OUT: Series = {TEST: steady(1)} | registrations("verified", 480, later=120)
A_FEW_BACK: Series = registrations("sent", 0.5) | registrations("bounced", 0.1)
LESS: Series = registrations("verified", 480, later=300)


@pytest.mark.system
@pytest.mark.parametrize(
    "changes", [{}, RARE, TRIED_OUT, A_FEW_BACK, LESS], ids=["healthy", "rare", "test", "bounces", "less"]
)
def test_a_day_without_trouble_fires_nothing(tmp_path: Path, changes: Series) -> None:
    """Nor small numbers, whatever their share, nor a test service, nor a ratio that falls a little."""
    assert told(tmp_path, story(None, changes, LONGEST)) == ""


@pytest.mark.system
@pytest.mark.parametrize(
    "source", ["", "https://git.example.com/acme/cedula/blob/main/"], ids=["path", "url"]
)
def test_an_alert_links_to_the_runbook_where_the_operator_has_it(tmp_path: Path, source: str) -> None:
    """By an external label of Prometheus; without it the annotation names the file."""
    played = story("CedulaNotScraped", FIRES_ON["CedulaNotScraped"])
    expected = {
        "exp_labels": {"job": "cedula", "severity": "critical"},
        "exp_annotations": {
            "summary": "Prometheus knows no instance of Cedula",
            "runbook_url": f"{source}docs/runbook.md#cedulanotscraped",
        },
    }
    played["alert_rule_test"] = [
        {"alertname": "CedulaNotScraped", "eval_time": f"{MINUTES}m", "exp_alerts": [expected]}
    ]
    if source:
        played["external_labels"] = {"runbook_source": source}
    assert told(tmp_path, played) == ""


def test_panels_of_the_dashboard_link_to_the_runbook() -> None:
    """Every alert has a panel that shows what it is about, and leads to its section."""
    panels = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())["panels"]
    links = [link for panel in panels for link in panel.get("links", [])]
    for link in links:
        assert link["url"] == f"${{source:raw}}docs/runbook.md#{link['title'].lower()}"
    assert {link["title"] for link in links} == set(rules())


THRESHOLDS = {
    "CedulaOutboxOld": outbox.OLD_S,
    "CedulaStorageFilling": server.FULL,
    "CedulaNumberSpaceFilling": FULL,
}


@pytest.mark.parametrize(("alert", "threshold"), THRESHOLDS.items())
def test_doctor_and_panels_warn_where_the_alert_fires(alert: str, threshold: float) -> None:
    """As does `numbers fill`. Where a panel has steps, the last one is red."""
    (found,) = re.findall(r"^max.* > ([\d.]+)$", rules()[alert]["expr"], re.MULTILINE)
    assert float(found) == threshold
    for panel in json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())["panels"]:
        steps = panel.get("fieldConfig", {}).get("defaults", {}).get("thresholds", {}).get("steps", [])
        if steps and alert in [link["title"] for link in panel.get("links", [])]:
            assert steps[-1]["value"] == threshold


def told(folder: Path, played: dict[str, object]) -> str:
    """What promtool has to object."""
    path = folder / "story.json"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [played]}))
    found = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    return "" if found.returncode == 0 else found.stdout + found.stderr


def test_every_alert_is_tested() -> None:
    """And no story is of a rule that is gone."""
    assert set(rules()) == set(FIRES_ON)


def test_every_alert_has_its_section_in_the_runbook() -> None:
    """What it means, what to do; the annotation leads there, and no section is of a rule that is gone."""
    text = (ROOT / "docs/runbook.md").read_text()
    sections = re.findall(r"^## (Cedula\w+)$", text, re.MULTILINE)
    assert sections == list(rules())
    for alert, rule in rules().items():
        path = f"docs/runbook.md#{alert.lower()}"
        assert rule["annotations"]["runbook_url"] == "{{ $externalLabels.runbook_source }}" + path
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("critical", "warning")
