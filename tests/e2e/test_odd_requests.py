"""Odd requests: each gets its own 4xx, none a 5xx; and the odd but right ones are served."""

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.e2e.odd import (
    ACCEPTED,
    BROKEN_HTTP,
    DECLARED,
    INVALID,
    JSON,
    MALFORMED,
    MAX_BODY,
    REQUEST_IDS,
    ROUTES,
    TOKEN,
    TOKENS,
    TOO_LARGE,
    UNSUPPORTED,
    registration,
)
from tests.support.problems import assert_problem
from tests.support.records import Records
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn


@pytest.fixture(scope="module")
def service(
    valkey_server: Valkey, shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gunicorn]:
    """One service for all odd requests: what one of them breaks, the next ones notice."""
    with valkey_server.client() as client:
        client.flushall()
    environment = shared_environment | {"ADDRESS_LIMIT": "", "MAILBOX_LIMIT": ""}
    with gunicorn(tmp_path_factory.mktemp("odd"), environment) as server:
        yield server


def send(
    service: Gunicorn,
    body: Any,
    headers: dict[str, Any] | None = None,
    method: str = "POST",
    path: str = "/api/users",
) -> requests.Response:
    """Sends the bytes as they are (an iterator of bytes: chunked, without a Content-Length)."""
    return requests.request(
        method,
        service.url + path,
        data=body,
        headers=JSON if headers is None else headers,
        allow_redirects=False,
        timeout=30,
    )


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_json_is_malformed(service: Gunicorn, body: bytes) -> None:
    """RFC 8259 in UTF-8, each name once, and nothing else."""
    assert_problem(send(service, body), 400, "malformed-json")


@pytest.mark.parametrize(("body", "field"), INVALID.values(), ids=INVALID)
def test_what_a_request_may_not_hold_is_named_by_its_field(
    service: Gunicorn, body: bytes, field: str
) -> None:
    """And its value is not repeated."""
    answer = send(service, body)
    problem = assert_problem(answer, 422, "invalid-request")
    assert field in problem["errors"]
    assert TOKEN not in answer.text
    assert "example.com" not in answer.text


@pytest.mark.parametrize("headers", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_is_not_declared_as_json_in_utf8_is_unsupported(
    service: Gunicorn, headers: dict[str, Any]
) -> None:
    """Whatever the body looks like: nothing is guessed."""
    assert_problem(send(service, registration(), headers), 415, "unsupported-media-type")


def test_a_compressed_body_is_not_unpacked(service: Gunicorn) -> None:
    """64 KiB may hold 64 MiB of zeros."""
    bomb = gzip.compress(b" " * 64_000_000)
    assert_problem(send(service, bomb, {**JSON, "Content-Encoding": "gzip"}), 415, "unsupported-media-type")


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
@pytest.mark.parametrize("body", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_body_over_64_kib_is_too_large(service: Gunicorn, body: bytes, chunked: bool) -> None:
    """Whether it says how long it is or not; and the client gets to see the answer."""
    pieces = (body[start : start + 8192] for start in range(0, len(body), 8192))
    assert_problem(send(service, pieces if chunked else body), 413, "body-too-large")


@pytest.mark.parametrize(("method", "path", "status", "allowed"), ROUTES.values(), ids=ROUTES)
def test_wrong_methods_and_paths_are_problems_too(
    service: Gunicorn, method: str, path: str, status: int, allowed: str
) -> None:
    """405 names what is allowed (RFC 9110 §15.5.6)."""
    answer = send(service, registration(), method=method, path=path)
    assert_problem(answer, status, "method-not-allowed" if status == 405 else "not-found")
    assert allowed in answer.headers.get("Allow", "")


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO"])
def test_no_client_says_where_the_service_is_mounted(service: Gunicorn, name: str) -> None:
    """A header that gunicorn would take from a proxy: the path stays the one that was asked for."""
    answer = send(service, None, {name: "/x"}, "GET", "/healthz")
    assert answer.status_code == 200
    assert_problem(send(service, None, {name: "/x"}, "GET", "/x/healthz"), 404, "not-found")


def test_head_gets_the_headers_of_the_problem(service: Gunicorn) -> None:
    """Without a body (RFC 9110 §9.3.2)."""
    answer = send(service, None, {}, method="HEAD")
    assert answer.status_code == 405
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.content == b""


@pytest.mark.parametrize("request_bytes", BROKEN_HTTP.values(), ids=BROKEN_HTTP)
def test_broken_http_is_refused_or_dropped(service: Gunicorn, request_bytes: bytes) -> None:
    """The fault is the client's: a 4xx (or 501 for a transfer coding), told as a problem, and the end."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status // 100 == 4 or status == 501
    assert b"Content-Type: application/problem+json" in head
    assert b"X-Request-ID: " in head
    assert b"Connection: close" in head
    problem = json.loads(body)
    assert problem["type"] in ("/problems/bad-request", "/problems/malformed-json")
    assert problem["detail"]
    assert send(service, None, {}, method="GET", path="/healthz").status_code == 200


@pytest.mark.parametrize(("given", "kept"), REQUEST_IDS.values(), ids=REQUEST_IDS)
def test_a_request_id_is_kept_where_it_is_harmless(service: Gunicorn, given: Any, kept: bool) -> None:
    """It stands in logs and answers; else one is made."""
    answer = send(service, registration(email="no address"), {**JSON, "X-Request-ID": given})
    assert_problem(answer, 422, "invalid-request")
    assert (answer.headers["X-Request-ID"] == given) is kept


@pytest.mark.parametrize(("address", "recipient"), ACCEPTED.values(), ids=ACCEPTED)
def test_an_odd_address_is_served_and_its_mail_goes_to_exactly_that_address(
    service: Gunicorn, mailbox: MailServer, address: str, recipient: str
) -> None:
    """In ASCII: the local part as it was given, the domain as IDNA 2008 has it."""
    answer = send(service, registration(email=address))
    assert answer.status_code == 201, answer.text
    (mail,) = mailbox.box.to(recipient)
    assert mail.message["To"].addresses[0].addr_spec == recipient
    assert len(mail.number) == 10
    assert_nothing_leaks(answer, mail.number)


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_token_is_kept_as_it_is(
    service: Gunicorn, valkey_server: Valkey, token: str, request: pytest.FixtureRequest
) -> None:
    """It is the caller's; nothing is normalised, trimmed or read."""
    address = f"token{list(TOKENS.values()).index(token)}@example.com"
    answer = send(service, registration(email=address, token=token))
    assert answer.status_code == 201, answer.text
    with valkey_server.client() as client:
        stored = Records(client).of(address)
    assert stored is not None
    assert stored.token == token


def test_a_mail_comes_in_the_language_that_was_asked_for(service: Gunicorn, mailbox: MailServer) -> None:
    """And in the service's own where none was."""
    for locale, expected in (("es", "es"), ("en", "en"), (None, "en")):
        address = f"locale.{locale}@example.com"
        assert send(service, registration(email=address, locale=locale)).status_code == 201
        (mail,) = mailbox.box.to(address)
        assert mail.message["Content-Language"] == expected


@pytest.mark.parametrize("headers", DECLARED.values(), ids=DECLARED)
def test_json_in_utf8_may_be_declared_in_many_ways(service: Gunicorn, headers: dict[str, str]) -> None:
    """RFC 9110 §8.3: types are case-insensitive, parameters may be there and be quoted."""
    body = registration(email=f"declared{list(DECLARED.values()).index(headers)}@example.com")
    assert send(service, body, headers).status_code == 201


def test_a_body_may_come_in_chunks(service: Gunicorn) -> None:
    """Of one byte each, without a Content-Length."""
    body = registration(email="chunks@example.com")
    assert send(service, (body[i : i + 1] for i in range(len(body)))).status_code == 201


def test_a_body_may_hold_64_kib(service: Gunicorn) -> None:
    """The bound itself is allowed."""
    body = registration(email="bound@example.com")
    assert send(service, body + b" " * (MAX_BODY - len(body))).status_code == 201


def assert_nothing_leaks(answer: requests.Response, number: str) -> None:
    """Neither number nor token is anywhere in the answer."""
    everything = f"{answer.url} {answer.headers} {answer.text}"
    assert number not in everything.replace(" ", "")
    assert TOKEN not in everything


def test_no_log_line_holds_what_was_sent(service: Gunicorn, mailbox: MailServer) -> None:
    """All these requests once more, then a look at everything that the service has written."""
    for body in MALFORMED.values():
        send(service, body)
    for body, _ in INVALID.values():
        send(service, body)
    for headers in UNSUPPORTED.values():
        send(service, registration(), headers)
    for method, path, _, _ in ROUTES.values():
        send(service, registration(), method=method, path=f"{path}?token={TOKEN}&email=ada@example.com")
    for address, _ in ACCEPTED.values():
        send(service, registration(email=address))
    log = service.log
    assert TOKEN not in log
    assert [mail.recipient for mail in mailbox.box.mails if mail.recipient in log] == []
    assert [mail.number for mail in mailbox.box.mails if mail.number in log] == []
    assert "@example" not in log
    assert "BREW" not in log
    assert "passwd" not in log
    assert "Traceback" not in log


def test_every_request_has_one_log_line_with_its_id_route_status_and_duration(service: Gunicorn) -> None:
    """As JSON, with the template of the route and not its path."""
    answer = send(service, None, {}, method="GET", path="/api/users/" + "a" * 26)
    lines = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == answer.headers["X-Request-ID"]]
    assert line["event"] == "request"
    assert line["method"] == "GET"
    assert line["status"] == answer.status_code == 404
    assert line["duration_ms"] >= 0
    assert "<" in line["route"]
    assert "a" * 26 not in json.dumps(line)
