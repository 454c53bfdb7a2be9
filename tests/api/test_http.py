"""What every request and every answer has in common."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.api.conftest import Api
from tests.support.waiting import wait_until

SOMEBODY = "/api/users/" + "a" * 26
JSON = {"Content-Type": "application/json"}
POST = b"POST /api/users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
EVERYTHING = [
    ("GET", "/healthz", 200),
    ("GET", "/readyz", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/docs", 200),
    ("GET", "/docs/swagger-ui.css", 200),
    ("GET", "/problems/not-found", 200),
    ("GET", "/", 302),
    ("GET", SOMEBODY, 404),
    ("GET", "/nowhere", 404),
    ("GET", "/problems/nothing", 404),
    ("PUT", "/api/users", 405),
    ("OPTIONS", "/api/users", 200),
    ("HEAD", "/healthz", 200),
    ("POST", "/api/users", 415),
]


@pytest.mark.parametrize(("method", "path", "status"), EVERYTHING)
def test_every_answer_names_its_request_and_is_hardened(
    api: Api, method: str, path: str, status: int
) -> None:
    """Request id, no caching of what is personal, nothing that a browser could be led to do, no version."""
    answer = api.call(method, path)
    assert answer.status_code == status
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["X-Request-ID"])
    assert answer.headers["Cache-Control"] == ("no-cache" if path.startswith("/docs/") else "no-store")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert not re.search(r"\d", answer.headers.get("Server", ""))
    assert "X-Powered-By" not in answer.headers
    if status >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert set(answer.json()) == {"type", "title", "status", "detail"}
        assert answer.json()["status"] == status


@pytest.mark.parametrize("given", ["a", "A-1_b.c", "x" * 64])
def test_the_request_id_of_the_caller_is_taken(api: Api, given: str) -> None:
    """So that both logs speak of the same request."""
    for path in ("/healthz", "/nowhere", SOMEBODY):
        assert api.call("GET", path, headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a;b", "\u00e9", "<script>"])
def test_what_is_no_request_id_is_replaced(api: Api, given: str) -> None:
    """Nothing that a caller can choose freely comes into the log."""
    found = api.call("GET", "/healthz", headers={"X-Request-ID": given.encode("latin-1")}).headers
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", found["X-Request-ID"])
    assert found["X-Request-ID"] != given


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/users", {"POST", "OPTIONS"}),
        ("/api/users/verify", {"POST", "OPTIONS"}),
        (SOMEBODY, {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("/openapi.json", {"GET", "HEAD", "OPTIONS"}),
        ("/problems/not-found", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_resource_says_which_methods_it_knows(api: Api, path: str, allowed: set[str]) -> None:
    """OPTIONS and 405 agree, whatever the method."""
    options = api.call("OPTIONS", path)
    assert (options.status_code, options.content) == (200, b"")
    assert set(options.headers["Allow"].split(", ")) == allowed
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FROBNICATE"} - allowed:
        answer = api.call(method, path)
        assert answer.status_code == 405, method
        assert set(answer.headers["Allow"].split(", ")) == allowed
        assert answer.json()["type"] == "/problems/method-not-allowed"


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/docs", "/nowhere", SOMEBODY])
def test_head_is_get_without_a_body(api: Api, path: str) -> None:
    """Same status and headers, `Content-Length` included."""
    head, got = api.call("HEAD", path), api.call("GET", path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    changing = {"X-Request-ID", "Date"}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in got.headers.items() if k not in changing
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'email': 1}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"email": "a@example.com", "email": "b@example.com", "token": "t"}',
        b'{"email": "a@example.com", "token": "t", "token": "t"}',
        b'{"email": "a@example.com", "token": NaN}',
        b'{"email": "a@example.com", "token": {"a": 1, "a": 2}}',
        b'{"email": "a@example.com", "token": "t"} {}',
        b"[" * 60_000,
        b'{"email": "a\tb@example.com", "token": "t"}',
    ],
)
@pytest.mark.parametrize("path", ["/api/users", "/api/users/verify"])
def test_what_is_no_json_is_malformed(api: Api, path: str, body: bytes) -> None:
    """400, also for a name that stands twice: two readers could see two requests in it."""
    answer = api.call("POST", path, data=body, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed-json")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"1", b"true", b"{}"])
def test_json_that_is_no_registration_is_invalid(api: Api, body: bytes) -> None:
    """422 and never 500, whatever the value."""
    answer = api.call("POST", "/api/users", data=body, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")
    errors = answer.json()["errors"]
    assert errors
    assert all(isinstance(message, str) for messages in errors.values() for message in messages)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": None}, "email"),
        ({"email": 5}, "email"),
        ({"email": ["a@example.com"]}, "email"),
        ({"email": ""}, "email"),
        ({"email": "no address"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"email": "a@example.com\n"}, "email"),
        ({"email": "a@example.com, b@example.com"}, "email"),
        ({"email": "a\0@example.com"}, "email"),
        ({"email": "\ud800@example.com"}, "email"),
        ({"email": "a" * 64 + "@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 58 + ".com"}, "email"),
        ({"token": None}, "token"),
        ({"token": 5}, "token"),
        ({"token": ""}, "token"),
        ({"token": "t" * 4097}, "token"),
        ({"token": "a\0b"}, "token"),
        ({"token": "\udfff"}, "token"),
        ({"locale": "no tag"}, "locale"),
        ({"locale": "de-"}, "locale"),
        ({"locale": "en-" + "-".join(["abcdefgh"] * 4)}, "locale"),
        ({"locale": ""}, "locale"),
        ({"locale": None}, "locale"),
        ({"number": "1"}, "number"),
        ({"\ud800": "1"}, "\ud800"),
    ],
)
def test_a_field_that_does_not_fit_is_named(api: Api, email: str, change: dict[str, Any], field: str) -> None:
    """422 with the field and a message for people; nothing of what was sent comes back."""
    body = {"email": email, "token": "t", **change}
    answer = api.call("POST", "/api/users", data=json.dumps(body), headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")
    assert list(answer.json()["errors"]) == [field]


@pytest.mark.parametrize("locale", ["en", "EN", "es-MX", "fr", "zh-Hant-TW"])
def test_every_language_tag_is_taken(api: Api, email: str, locale: str) -> None:
    """Also one in which there is no mail: then the person gets it in another language."""
    assert api.register(email, locale=locale).status_code == 201
    assert api.number_of(email)


def test_a_token_may_be_any_text_of_4096_characters(api: Api, email: str) -> None:
    """Also where that is 48 KiB of JSON, and it comes back as it was."""
    token = "\U0001f600\n\u00e9\x7f" * 1024
    assert api.register(email, token).status_code == 201
    assert api.verify(email, api.number_of(email)).json()["token"] == token


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/vnd.api+json",
        "application/problem+json",
    ],
)
def test_a_body_of_another_type_is_not_read(api: Api, email: str, content_type: str | None) -> None:
    """415, even where the bytes would be the right ones."""
    headers = {"Content-Type": content_type} if content_type else {}
    body = json.dumps({"email": email, "token": "t"}).encode()
    answer = api.call("POST", "/api/users", data=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")


def test_json_may_say_its_charset_and_no_coding(api: Api, email: str) -> None:
    """UTF-8 is what it is; a compressed body is nothing we read."""
    body = json.dumps({"email": email, "token": "t"}).encode()
    headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
    assert api.call("POST", "/api/users", data=body, headers=headers).status_code == 201
    assert (
        api.call("POST", "/api/users", data=body, headers=JSON | {"Content-Encoding": "gzip"}).status_code
        == 415
    )


@pytest.mark.parametrize("size", [64 * 1024 + 1, 1_000_000, 10_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_64_kib_is_refused_and_the_client_hears_it(
    api: Api, email: str, size: int, chunked: bool
) -> None:
    """413 with and without a length given before, on a connection that stays usable."""
    body = json.dumps({"email": email, "token": "t"}).encode().ljust(size)

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 65_536):
            yield body[start : start + 65_536]

    answer = api.call("POST", "/api/users", data=pieces() if chunked else body, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")
    assert api.call("GET", "/healthz").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_64_kib_is_read(api: Api, email: str, chunked: bool) -> None:
    """The limit belongs to what is allowed."""
    body = json.dumps({"email": email, "token": "t"}).encode().ljust(64 * 1024)
    data = iter([body[:1000], body[1000:]]) if chunked else body
    assert api.call("POST", "/api/users", data=data, headers=JSON).status_code == 201


def test_a_client_that_closes_after_its_refused_body_hears_the_answer(api: Api) -> None:
    """Closing on unread bytes would reset the connection before the answer is read."""
    for path in ("/api/users", "/nowhere", "/healthz"):
        answer = requests.post(
            api.url + path, data=b"x" * 3_000_000, headers={"Connection": "close"}, timeout=10
        )
        assert answer.status_code in (404, 405, 415)
        assert answer.headers["X-Request-ID"]


def speak(url: str, text: bytes) -> bytes:
    """What the server says to these bytes, until it closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65_536):
            found += piece
        return found


@pytest.mark.parametrize(
    "text",
    [
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Content-Length: 100\r\n\r\n{",
        b"GET / HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_broken_http_never_shows_how_the_service_is_built(api: Api, text: bytes) -> None:
    """A problem like every other, with a request id: no trace, no version, nothing of what was sent."""
    head, _, body = speak(api.url, text).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 4\d\d ", head)
    assert b"Content-Type: application/problem+json" in head
    assert re.search(rb"X-Request-ID: [0-9a-f]{32}", head)
    assert json.loads(body)["status"] == int(head.split(b" ")[1])
    for word in (b"Traceback", b".py", b"Python", b"gunicorn/", b"9.9", b"nonsense", b"zz", b"xxx"):
        assert word not in head + body


def test_a_body_that_is_longer_than_it_says_is_not_logged(api: Api, email: str) -> None:
    """What is left of it comes where the next request should begin; gunicorn would log it word for word."""
    body = json.dumps({"padding": "x" * 20, "email": email, "token": "s3cret-token"}).encode()
    answer = speak(api.url, POST + b"Content-Length: 30\r\n\r\n" + body + b"\r\n\r\n")
    assert b"400" in answer
    assert b"s3cret-token" not in answer
    wait_until(lambda: "Invalid request" in api.server.log)
    for personal in ("s3cret-token", email, "127.0.0.1: "):
        assert personal not in api.server.log


@pytest.mark.parametrize(
    "path", ["/api//users", "/api/users/", "/%00", "/%ff", "/docs/../wsgi.py", "/docs/%2e%2e%2fwsgi.py"]
)
def test_a_path_is_what_it_is(api: Api, path: str) -> None:
    """No redirect to something that looks alike, no file of the disk."""
    raw = speak(api.url, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert raw.split(b" ")[1] == b"404"
    assert b"application/problem+json" in raw


TARGETS = (
    "http://evil.example http://evil.example/ http://evil.example?a=1 http://evil.example//docs x://docs "
    "//evil.example ///evil.example/ /%2f%2fevil.example /?//evil.example / /docs/ *"
)


@pytest.mark.parametrize("target", TARGETS.split())
def test_no_answer_sends_a_client_to_another_host(api: Api, target: str) -> None:
    """Neither to one in the request's target nor to the one that it names as Host."""
    method = "OPTIONS" if target == "*" else "GET"
    request = f"{method} {target} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    head, _, body = speak(api.url, request.encode()).partition(b"\r\n\r\n")
    assert re.findall(rb"(?i)\r\nlocation: (.*)", head) in ([], [b"/docs\r"])
    assert b"evil" not in head + body


@pytest.mark.parametrize("header", ["If-Modified-Since", "If-Range"])
def test_a_date_that_nobody_can_reckon_with_is_no_accident(api: Api, header: str) -> None:
    """Its time zone has too many digits; the file comes as if there were no date."""
    date = "Sat, 29 Oct 1994 19:43:31 +" + "9" * 15
    answer = api.call("GET", "/docs/docs.css", headers={header: date, "Range": "bytes=0-1"})
    assert answer.status_code == 200
    assert answer.text


def test_the_client_may_ask_not_to_wait(api: Api, email: str) -> None:
    """RFC 7240: alone or among others, in any case; the answer says that it was heard."""
    for prefer in ("respond-async", "Respond-Async, wait=10", "return=minimal, respond-async;x=y"):
        answer = api.register(email, headers={"Prefer": prefer})
        assert (answer.status_code, answer.json()["delivery"]) == (202, "pending")
        assert answer.headers["Preference-Applied"] == "respond-async"
        api.mail.box.wait_for(email)
    answer = api.register(f"un{email}", headers={"Prefer": "wait=10"})
    assert answer.status_code == 201
    assert "Preference-Applied" not in answer.headers


def test_number_and_token_are_in_no_answer_and_no_log(api: Api, email: str) -> None:
    """Neither when it works nor when it does not."""
    answer = api.register(email, "s3cret-token")
    number = api.number_of(email)
    answers = [answer, api.call("GET", answer.headers["Location"])]
    answers += [
        api.call("POST", "/api/users/verify", json={"email": email, "number": number, "x": "s3cret-token"})
    ]
    answers += [
        api.call("POST", "/api/users", json={"email": email, "token": "s3cret-token", "locale": number})
    ]
    for found in answers:
        for secret in ("s3cret-token", number):
            assert secret not in found.text + str(found.headers)
    for secret in ("s3cret-token", number, email):
        assert secret not in api.server.log
