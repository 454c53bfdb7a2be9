"""A real Prometheus scrapes the real service: every query of the dashboard is answered, every rule works."""

import base64
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from app.directory.directory import digest
from tests.operate.test_alerts import RULES
from tests.support.servers import ROOT, Gunicorn, MailServer, Valkey, free_port, gunicorn
from tests.support.tenants import key_of, services_file
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
LOAD_S = 60.0
SCRAPE_S = 1
KEY = "cedula_prometheus-key-of-the-test"
SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()
VARIABLES = {"$__rate_interval": "30s", "$job": "cedula", "$instance": ".*", "$service": ".*"}
"""What Grafana puts in."""


class Prometheus:
    """Debian's Prometheus with our example of a configuration, made faster."""

    def __init__(self, folder: Path, target: str) -> None:
        self.port = free_port()
        self._log = (folder / "prometheus.log").open("w")
        configuration = yaml.safe_load(RULES.with_name("prometheus.yml").read_text())
        configuration["global"] = {"evaluation_interval": "1s"}
        configuration["rule_files"] = [str(RULES)]
        (job,) = configuration["scrape_configs"]
        (folder / "key").write_text(KEY)
        job |= {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S}s"}
        job["authorization"]["credentials_file"] = str(folder / "key")
        job["static_configs"] = [{"targets": [target]}]
        path = folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(configuration))
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={path}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def get(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"http://127.0.0.1:{self.port}/api/v1/{path}", parameters, timeout=20)
        body = answer.json()
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[float]:
        return [float(found["value"][1]) for found in self.get("query", query=expression)["result"]]

    def scraped(self) -> bool:
        try:
            return self.query('up{job="cedula"}') == [1.0]
        except requests.RequestException:  # not there yet, or still starting
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._log.close()


class Taking(BaseHTTPRequestHandler):
    """Takes every event."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def receiver() -> Iterator[str]:
    """The URL of a receiver of events."""
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Taking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/events"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus after a minute of load on a service with two workers."""
    folder = tmp_path_factory.mktemp("prometheus")
    valkey, mail_server = Valkey(folder, save="", maxmemory="400mb"), MailServer()
    environment = {
        "REDIS_URL": valkey.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "API_KEYS": f"test:{digest(KEY)}",
        "WEB_CONCURRENCY": "2",
    }
    with receiver() as url:
        shop = {"events_url": url, "events_secrets": [SECRET]}
        environment["SERVICES_FILE"] = str(services_file(folder, shop=shop))
        yield from watched(folder, environment, mail_server)
    mail_server.stop()
    valkey.stop()


def watched(folder: Path, environment: dict[str, str], mail_server: MailServer) -> Iterator[Prometheus]:
    with gunicorn(folder, environment) as service:
        server = Prometheus(folder, f"127.0.0.1:{service.port}")
        try:
            wait_until(server.scraped, 30, "the first scrape")
            work(service, mail_server)
            yield server
        finally:
            server.stop()


def work(service: Gunicorn, mail_server: MailServer) -> None:
    """A minute in the life of the service, with a few of everybody's mistakes."""
    headers = {"Authorization": f"Bearer {key_of('shop')}"}
    end = time.monotonic() + LOAD_S

    def customer(name: str) -> None:
        for turn in range(100_000):
            if time.monotonic() > end:
                return
            address = f"{name}.{turn}@example.com"
            answer = service.register(address, headers=headers)
            assert answer.status_code in (201, 202), answer.text
            service.http.get(service.url + answer.headers["Location"], headers=headers, timeout=20)
            mail = mail_server.box.wait_for(address)[-1]
            for number in ("1", "999999999999", mail.number, mail.number):
                body = {"email": address, "number": number}
                service.post("/api/users/verify", body, headers=headers)
            service.http.get(f"{service.url}/nowhere", timeout=20)
            time.sleep(0.05)

    customers = [threading.Thread(target=customer, args=(name,)) for name in ("ada", "bob", "eve")]
    for thread in customers:
        thread.start()
    for thread in customers:
        thread.join()


def queries() -> list[str]:
    """What the panels of the dashboard ask."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus) -> None:
    """After a minute of load: a number for each, and not NaN."""
    unanswered = []
    for query in queries():
        asked = query
        for name, value in VARIABLES.items():
            asked = asked.replace(name, value)
        assert "$" not in asked, asked
        found = prometheus.query(asked)
        if not found or any(value != value for value in found):
            unanswered.append((asked, found))
    assert not unanswered


def test_every_rule_is_evaluated_and_none_fires_on_a_healthy_service(prometheus: Prometheus) -> None:
    """Prometheus has evaluated each without an error."""
    (group,) = prometheus.get("rules")["groups"]
    rules = {rule["name"]: rule for rule in group["rules"]}
    assert len(rules) == RULES.read_text().count("- alert:")
    assert {name: rule["lastError"] for name, rule in rules.items() if rule["health"] != "ok"} == {}
    assert [name for name, rule in rules.items() if rule["state"] == "firing"] == []


def test_every_metric_that_is_asked_for_exists(prometheus: Prometheus) -> None:
    """A misspelt name in a rule would never fire; Prometheus itself does not mind."""
    asked = " ".join([*queries(), RULES.read_text()])
    names = set(re.findall(r"\bcedula_\w+", asked))
    known = set(prometheus.get("label/__name__/values"))
    assert names - known == set()


def test_two_workers_count_together(prometheus: Prometheus) -> None:
    """Whichever answers a scrape, the counters never fall, and both are there."""
    assert prometheus.query("max(resets(cedula_requests_total[5m]))") == [0.0]
    assert len(prometheus.query("cedula_mail_breaker_open")) == 2
    owed = 'cedula_registration_candidates_count - ignoring(outcome) cedula_deliveries_total{outcome="sent"}'
    wait_until(lambda: prometheus.query(owed) == [0.0], 30, "every registration's mail is sent and counted")
