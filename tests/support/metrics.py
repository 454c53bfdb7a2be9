"""Reads /metrics as Prometheus does."""

import json
import re
import time
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers import Gunicorn
from tests.support.waiting import wait_until

Samples = dict[str, float]

STAGE = re.compile(
    r'cedula_service_registrations_total\{service="(?P<service>[^"]+)",stage="(?P<stage>\w+)"\}'
)


def read(text: str) -> Samples:
    """Samples by name and labels: `cedula_deliveries_total{outcome="sent"}`."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def scraped(service: Gunicorn, key: str = "") -> Samples:
    """One scrape, on a connection of its own, so that any worker may answer. `key`: an API key."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = requests.get(f"{service.url}/metrics", headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return read(answer.text)


def latest(service: Gunicorn, key: str = "") -> Samples:
    """One scrape when every worker has told what it had counted until now."""
    now = time.time()
    folders = folders_of(service)
    wait_until(
        lambda: all(path.stat().st_mtime > now for folder in folders for path in folder.glob("*.json")), 10
    )
    return scraped(service, key)


def answers(route: str, method: str, status: int, caller: str = "") -> str:
    return f'cedula_requests_total{{caller="{caller}",method="{method}",route="{route}",status="{status}"}}'


BREAKER = "cedula_mail_breaker_open"
"""Told by each living worker."""


def breakers(found: Samples) -> float:
    return max(value for name, value in found.items() if name.startswith(BREAKER))


def several(service: Gunicorn, times: int = 8) -> list[Samples]:
    return [scraped(service) for _ in range(times)]


def ready(service: Gunicorn) -> dict[str, str]:
    answer = requests.get(f"{service.url}/readyz", timeout=10)
    assert answer.status_code == 200
    found: dict[str, str] = answer.json()
    return found


def folders_of(service: Gunicorn) -> list[Path]:
    """The metrics' folders that the master holds a lock on."""
    links = Path(f"/proc/{service.process.pid}/fd").iterdir()
    paths = {link.readlink() for link in links if link.is_dir()}
    return [path for path in paths if path.name.startswith("cedula-metrics-")]


def at_work(folder: Path) -> set[int]:
    """The pids of the workers that have told what they counted."""
    return {json.loads(path.read_bytes())["pid"] for path in folder.glob("*.json")}


def stages(found: Samples, service: str) -> dict[str, float]:
    """How far registrations of a service have come, as counted; those that are 0 are left out."""
    counted = {
        (match["service"], match["stage"]): value
        for name, value in found.items()
        if (match := STAGE.fullmatch(name))
    }
    return {stage: value for (whose, stage), value in counted.items() if whose == service and value}
