"""Traces: what reaches a collector, what never does, and that a collector that is away costs nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import requests

from app.telemetry.collector import traces_from_environment
from app.telemetry.traces import OFF
from app.version import VERSION
from tests.api.conftest import API_KEYS, SHOP, bearer, wrong
from tests.support.collector import Collector, Span
from tests.support.receivers import TAKEN, Reply, receiving
from tests.support.servers import ROOT, Gunicorn, MailServer, Valkey, gunicorn, stopping
from tests.support.smtp import Conversation, Gate, ScriptedSmtp, say
from tests.support.tenants import key_of, services_file
from tests.support.waiting import wait_until

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
ADA = "ada@example.com"
SENT_IS_TOLD = {"cedula.event": "registration.sent"}
SERVER, ERROR = 2, 2
"""As OTLP numbers the kind of a span, and its status."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with stopping(Collector()) as found:
        yield found


@pytest.fixture
def traced(tmp_path: Path, environment: dict[str, str], collector: Collector) -> Iterator[Gunicorn]:
    """The service, which tells the collector."""
    with gunicorn(tmp_path, environment | collector.settings) as server:
        yield server


def scripted(valkey: Valkey, mail_server: ScriptedSmtp) -> dict[str, str]:
    return {"REDIS_URL": valkey.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(mail_server.port)}


def wait_for_line(server: Gunicorn, event: str) -> None:
    """Until the log has a line of this event."""
    wait_until(lambda: f'"{event}"' in server.log_path.read_text(), 30, event)


def family(spans: list[Span]) -> dict[str, str]:
    """Each span's name and its parent's; the caller's for what belongs to no span that came."""
    names = {span.id: span.name for span in spans}
    return {span.name: names.get(span.parent, span.parent) for span in spans}


@pytest.mark.parametrize("way", ["worker", "preload", "gthread"])
def test_a_registration_is_a_part_of_its_caller_s_trace_down_to_redis_and_mail(
    tmp_path: Path, environment: dict[str, str], collector: Collector, mail_server: MailServer, way: str
) -> None:
    """The mail too, which goes out in another thread. Whoever has read the code, the worker sends spans."""
    options = {
        "worker": (),
        "preload": ("--preload",),
        "gthread": ("--worker-class", "gthread", "--threads", "4"),
    }
    with gunicorn(tmp_path, environment | collector.settings, *options[way]) as server:
        assert server.register(ADA, headers=TRACEPARENT).status_code == 201
        root = collector.named("POST /api/users")
        collector.named("mail")
        spans = collector.trace(TRACE)
        assert family(spans) == {
            "POST /api/users": CALLER,
            "registration": "POST /api/users",
            "redis Register": "registration",
            "mail": "registration",
            "redis SettleMail": "mail",
        }
        assert (root.kind, root.facts) == (
            SERVER,
            {
                "http.request.method": "POST",
                "http.route": "/api/users",
                "http.response.status_code": 201,
            },
        )
        assert next(span for span in spans if span.name == "mail").facts == {"cedula.delivery": "sent"}
        number = mail_server.box.wait_for(ADA)[-1].number
        server.post("/api/users/verify", {"email": ADA, "number": number}).raise_for_status()
        own = collector.named("POST /api/users/verify")
        assert own.trace != TRACE
        assert family(collector.trace(own.trace)) == {
            "POST /api/users/verify": "",
            "verification": "POST /api/users/verify",
            "redis VerifyNumber": "verification",
        }
        collector.named("sweep")
        assert TRACE in server.log  # the request's line leads to its trace
    assert collector.resources[0]["service.name"] == "cedula"
    assert collector.resources[0]["service.version"] == VERSION


def test_a_mail_that_is_put_off_belongs_to_the_trace_at_each_attempt(
    tmp_path: Path, valkey_server: Valkey, store: redis.Redis, collector: Collector
) -> None:
    """The request was answered long before."""
    with stopping(ScriptedSmtp()) as mail_server:
        mail_server.script["rcpt"] = say("451 4.3.0 Busy")
        with gunicorn(tmp_path, scripted(valkey_server, mail_server) | collector.settings) as server:
            assert server.register(ADA, headers=TRACEPARENT).status_code == 202
            mail_server.script.clear()
            collector.wait_for(lambda span: span.facts.get("cedula.delivery") == "sent", "the mail")
    mails = [span for span in collector.trace(TRACE) if span.name == "mail"]
    assert [span.facts for span in mails] == [
        {"cedula.delivery": "pending", "cedula.mail_error": "recipient 451 4.3.0"},
        {"cedula.delivery": "sent"},
    ]
    assert len({span.parent for span in mails}) == 1


def test_a_mail_that_follows_another_belongs_to_its_own_registration(
    tmp_path: Path, valkey_server: Valkey, store: redis.Redis, collector: Collector
) -> None:
    """The address was registered again while its mail was under way, and one sender sends both."""
    with stopping(ScriptedSmtp()) as mail_server:
        mail_server.script["content"] = gate = Gate(holds=1)
        with gunicorn(tmp_path, scripted(valkey_server, mail_server) | collector.settings) as server:
            asynchronous = {"Prefer": "respond-async"}
            assert server.register(ADA, headers=asynchronous).status_code == 202
            gate.wait()
            assert server.register(ADA, headers=TRACEPARENT | asynchronous).status_code == 202
            gate.open()
            wait_until(lambda: len(mail_server.to(ADA)) == 2, 20, "two mails")
            collector.wait_for(lambda span: (span.name, span.trace) == ("mail", TRACE), "the second mail")
    assert family(collector.trace(TRACE))["mail"] == "registration"
    assert [span.trace == TRACE for span in collector.spans if span.name == "mail"] == [False, True]


def test_each_attempt_to_deliver_an_event_is_a_trace_and_tells_what_kept_it(
    tmp_path: Path, environment: dict[str, str], collector: Collector
) -> None:
    """It belongs to no request: what happened may have been found in Redis by another process."""
    with receiving() as receiver:
        file = services_file(tmp_path, shop=receiver.table("shop"))
        receiver.says("shop", Reply(500), then=TAKEN)
        with gunicorn(tmp_path, environment | collector.settings | {"SERVICES_FILE": str(file)}) as server:
            assert server.register(ADA, headers=bearer(key_of("shop")) | TRACEPARENT).status_code == 201
            collector.wait_for(lambda span: span.facts == SENT_IS_TOLD, "the event")
    attempts = [span for span in collector.spans if span.name == "event"]
    assert [span.facts for span in attempts] == [
        {**SENT_IS_TOLD, "cedula.event_error": "status 500"},
        SENT_IS_TOLD,
    ]
    assert not any(span.parent or span.trace == TRACE for span in attempts)
    assert "redis SettleEvent" in family(collector.trace(attempts[0].trace))


def test_a_collector_learns_nothing_of_a_person_a_secret_or_what_a_client_sent(
    tmp_path: Path, valkey: Valkey, collector: Collector
) -> None:
    """Whatever happens: every byte that it got is looked through."""
    marker, refused = "marker-7q", "marker-7q.refused@example.com"

    async def refuse(conversation: Conversation, usual: str) -> str:
        return f"550 5.1.1 {marker} unknown" if conversation.recipient == refused else usual

    headers = bearer(SHOP) | {
        "X-Request-ID": f"{marker}-request",
        "Idempotency-Key": f"{marker}-key",
        "User-Agent": f"{marker}-agent",
        "tracestate": f"{marker}=1",
        "baggage": f"user={marker}",
    }
    address, secrets = f"{marker}@example.com", [marker, SHOP, "example.com", "127.0.0.1"]
    with stopping(ScriptedSmtp()) as mail_server:
        mail_server.script["rcpt"] = refuse
        settings = scripted(valkey, mail_server) | collector.settings
        keys = {"API_KEYS": API_KEYS, "SECRET_KEY": f"{marker}{'k' * 40}"}
        with gunicorn(tmp_path, settings | keys) as server:

            def call(method: str, path: str, **body: str) -> requests.Response:
                return server.http.request(
                    method,
                    f"{server.url}{path}",
                    json=body or None,
                    headers=headers | TRACEPARENT,
                    timeout=30,
                )

            user_id = call("POST", "/api/users", email=address, token=f"{marker}-token").json()["id"]
            number = mail_server.mails[-1].number
            call("GET", f"/api/users/{user_id}")
            call("POST", f"/api/users/{user_id}/resend")
            call("GET", f"/{marker}?{marker}=1")
            call(marker.upper(), "/api/users")
            call("POST", "/api/users", email=marker, token=marker)
            assert call("POST", "/api/users", email=refused, token=marker).status_code == 422
            assert call("POST", "/api/users/verify", email=address, number=number[:-1]).status_code == 422
            assert call("POST", "/api/users/verify", email=address, number=number).status_code == 200
            assert call("POST", "/api/users/verify", email=address, number=wrong(number)).status_code == 403
            call("DELETE", f"/api/users/{user_id}")
            valkey.kill()
            assert call("GET", f"/api/users/{user_id}").status_code == 503
            failed = collector.wait_for(lambda span: span.facts.get("error.type") == "storage-unavailable")
            collector.wait_for(lambda span: span.facts.get("http.response.status_code") == 503)
            assert server.stop() == 0
    got = b"".join(collector.raw)
    assert [secret for secret in [*secrets, user_id, number] if secret.encode() in got] == []
    assert failed.status == ERROR
    assert {(span.message, span.events, span.links) for span in collector.spans} == {("", 0, 0)}
    found = {span.facts["error.type"] for span in collector.spans if "error.type" in span.facts}
    assert found == {"verification-failed", "mistyped-number", "undeliverable-address", "storage-unavailable"}
    routes = {span.facts["http.route"] for span in collector.spans if "http.route" in span.facts}
    assert routes >= {"/api/users/<user_id:user_id>", "none"}


def test_probes_and_scrapes_make_no_traces(traced: Gunicorn, collector: Collector) -> None:
    """They come every few seconds, for ever."""
    for path in ("/healthz", "/readyz", "/metrics"):
        traced.http.get(f"{traced.url}{path}", timeout=10).raise_for_status()
    traced.register(ADA)
    collector.named("POST /api/users")
    assert not any("GET" in span.name for span in collector.spans)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["refuses", "is silent", "is busy"])
def test_a_collector_that_is_away_costs_no_request_no_log_and_no_shutdown(
    tmp_path: Path, environment: dict[str, str], fault: str
) -> None:
    """More spans than may wait are dropped, one line says so, and the service ends in time."""
    with stopping(
        Collector(503 if fault == "is busy" else 200, 600 if fault == "is silent" else 0)
    ) as collector:
        away = collector.settings | {
            "OTEL_BSP_MAX_QUEUE_SIZE": "20",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "8",
            "ADDRESS_LIMIT": "",
        }
        if fault == "refuses":
            away["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
        with gunicorn(tmp_path, environment | away) as server:
            took = [server.register(f"ada{i}@example.com").elapsed.total_seconds() for i in range(100)]
            assert sum(took) / len(took) < 0.5
            wait_for_line(server, "traces_lost")
            stopped_at = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - stopped_at < 12
            log = server.log
    assert log.count("traces_lost") == 1
    assert "Traceback" not in log
    assert "opentelemetry" not in log.lower()


def test_a_collector_that_comes_back_is_told_of_again(traced: Gunicorn, collector: Collector) -> None:
    """The log says once from when on it took none, and once from when on it took them again."""
    collector.answer = 400  # no reason to try the same again
    for refused in range(1, 4):
        traced.register(ADA)
        wait_until(lambda: len(collector.raw) >= refused, 15, "a batch")  # noqa: B023
    collector.answer = 200
    traced.register(ADA)
    wait_for_line(traced, "traces_taken")
    assert [traced.log.count(event) for event in ("traces_lost", "traces_taken")] == [1, 1]


def test_without_a_collector_nothing_that_collects_is_imported(environment: dict[str, str]) -> None:
    """A service that traces nothing pays nothing. (redis-py looks for OpenTelemetry's metrics by itself.)"""
    program = "import sys, wsgi; print([name for name in sys.modules if 'otlp' in name])"
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout.splitlines()[-1] == "[]", found.stderr


def test_an_endpoint_without_the_packages_is_a_warning_and_the_service_serves(
    tmp_path: Path, environment: dict[str, str], collector: Collector
) -> None:
    """The variables are shared by the programs of a machine, and not all need to know them."""
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not installed')\n")
    missing = {"PYTHONPATH": str(tmp_path)}
    with gunicorn(tmp_path, environment | collector.settings | missing) as server:
        assert server.register(ADA).status_code == 201
        assert "requirements-otel.txt" in server.log
        assert "traces_off" in server.log


@pytest.mark.parametrize(
    ("endpoint", "protocol", "fault"),
    [("localhost:4318", "", "must begin with http"), ("http://localhost:4317", "grpc", "http/protobuf")],
    ids=["no scheme", "gRPC"],
)
def test_a_collector_that_cannot_be_reached_so_is_told_of(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, protocol: str, fault: str
) -> None:
    """It stops no start: the variables may be meant for another program. No value is shown."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    found = traces_from_environment()
    assert not found.on
    assert fault in found.fault
    assert "431" not in found.fault


def test_a_value_that_the_library_refuses_turns_traces_off(
    tmp_path: Path, environment: dict[str, str], collector: Collector
) -> None:
    """Where a span would be begun, nothing is raised into the request."""
    wrong_value = {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}
    with gunicorn(tmp_path, environment | collector.settings | wrong_value) as server:
        assert server.register(ADA).status_code == 201
        wait_for_line(server, "traces_off")
        assert server.log.count("traces_off") == 1


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["unset", "empty", "disabled", "no exporter"],
)
def test_traces_are_off_where_the_variables_say_so(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """By OpenTelemetry's own words."""
    if variables and "OTEL_EXPORTER_OTLP_ENDPOINT" not in variables:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert traces_from_environment() is OFF
