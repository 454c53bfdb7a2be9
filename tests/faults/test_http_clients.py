"""Slow and hostile HTTP clients: each wait has an end, memory a bound, and others are served meanwhile."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import redis
import requests

from tests.support.faults.http import Crowd, RawClient, head, json_head, memory_bytes
from tests.support.servers import Gunicorn, Valkey, gunicorn
from tests.support.waiting import wait_until

HASTY = ("--worker-class", "tests.support.faults.hasty.Worker")
PATIENT = ("--worker-class", "tests.support.faults.hasty.Patient")
SMALL = ("--workers", "1", "--worker-connections", "200", "--keep-alive", "1")
CROWD = 300
BODY = b'{"email": "raw@example.com", "token": "t"}'
KEY = "k" * 40
CLOSE = {"Connection": "close"}
"""So that no request goes over a connection that idled up to its own deadline."""


@pytest.fixture(scope="module")
def small_service(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path_factory.mktemp("small"), shared_environment, *HASTY, *SMALL) as server:
        yield server


@pytest.fixture
def small(small_service: Gunicorn, store: redis.Redis) -> Gunicorn:
    """One worker with 200 connections and short deadlines. What one crowd leaves the next one meets."""
    return small_service


CROWDS: dict[str, tuple[bytes, bytes]] = {
    "silent from the start": (b"", b""),
    "silent after 70 bytes": (head("/api/users", "X: " + "x" * 40)[:70], b""),
    "half a body": (json_head("/api/users", 500) + BODY, b""),
    "half a body that is refused": (json_head("/nowhere", 500) + BODY, b""),
    "a byte of the head at a time": (b"POST /api/users HTTP/1.1\r\n", b"x"),
    "a byte of the body at a time": (json_head("/api/users", 500), b" "),
    "chunks without end": (
        head("/api/users", "Content-Type: application/json", "Transfer-Encoding: chunked"),
        b"1\r\n \r\n",
    ),
    "readers that never read": (head("/openapi.json", method="GET") * 20, b""),
}


@pytest.mark.parametrize(("first", "drip"), CROWDS.values(), ids=CROWDS)
def test_a_crowd_of_slow_clients_is_ended_and_others_are_served(
    small: Gunicorn, first: bytes, drip: bytes
) -> None:
    """More of them than the worker has connections, and each ends by its deadline."""
    with Crowd(small.port, CROWD, first, drip) as crowd:
        wait_until(crowd.all_there, 100, "the crowd has connected")
        for number in range(5):
            assert small.register(f"healthy{number}@example.com", headers=CLOSE).status_code == 201
        wait_until(lambda: crowd.alive == 0, 100, "the crowd is gone")
    assert small.register("after@example.com", headers=CLOSE).status_code == 201


def test_waiting_bodies_take_bounded_memory(tmp_path: Path, environment: dict[str, str]) -> None:
    """1,000 bodies that lack their last byte cost gevent's own worker 143 MB. Here 2 MB may wait: 15 to 40 MB
    with the connections themselves, 60 on a machine so busy that what is closed is slow to end."""
    with gunicorn(tmp_path, environment, *HASTY, "--workers", "1") as service:
        (pid,) = service.workers()
        service.register("first@example.com")
        before = memory_bytes(pid)
        with Crowd(service.port, 1000, json_head("/api/users", 65_000) + b" " * 64_999) as crowd:
            wait_until(lambda: crowd.all_there() and crowd.alive < 100, 100, "most are closed")
            assert memory_bytes(pid) - before < 80_000_000
            assert service.register("healthy@example.com").status_code == 201


def test_requests_in_hand_leave_others_their_room(
    tmp_path: Path, valkey: Valkey, environment: dict[str, str]
) -> None:
    """2 MB may wait for clients: 45 whole requests of 60 KB that wait for Redis are nothing that waits for a
    client, so a client that is half-way through its own is not ended for them."""
    whole = json_head("/api/users", 60_000) + BODY.ljust(60_000)
    with contextlib.ExitStack() as stack:
        settings = environment | {
            "REDIS_URL": valkey.url,
            "REDIS_TIMEOUT": "60",
            "ADDRESS_LIMIT": "",
            "MAILBOX_LIMIT": "",
        }
        service = stack.enter_context(gunicorn(tmp_path, settings, *PATIENT, "--workers", "1"))
        half = stack.enter_context(RawClient(service.port))
        with valkey.frozen():
            half.send(json_head("/api/users", len(BODY)) + BODY[:-1])
            in_hand = [stack.enter_context(RawClient(service.port)) for _ in range(45)]
            for client in in_hand:
                client.send(whole)
                assert requests.get(f"{service.url}/healthz", timeout=20).ok  # so it has been read
            half.send(BODY[-1:])
            assert requests.get(f"{service.url}/healthz", timeout=20).ok
        assert half.answer()[0] in (201, 202)
        assert {client.answer()[0] for client in in_hand} <= {201, 202}


REFUSED: dict[str, tuple[int, bytes]] = {
    "401": (401, json_head("/api/users", 16 * 1024 * 1024)),
    "404": (404, json_head("/nowhere", 16 * 1024 * 1024, f"Authorization: Bearer {KEY}")),
    "413": (413, json_head("/api/users", 16 * 1024 * 1024, f"Authorization: Bearer {KEY}")),
    "415": (415, head("/api/users", "Content-Length: 16777216", f"Authorization: Bearer {KEY}")),
}


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Iterator[Gunicorn]:
    """As `small`, and closed to callers without a key."""
    settings = shared_environment | {"API_KEYS": f"shop:{sha256(KEY.encode()).hexdigest()}"}
    with gunicorn(tmp_path_factory.mktemp("guarded"), settings, *HASTY, *SMALL) as server:
        yield server


def test_a_refused_body_is_not_waited_for(guarded: Gunicorn) -> None:
    """Its caller reads the answer, whether it sends all of 16 MiB first or a part and then nothing."""
    for status, request in REFUSED.values():
        with RawClient(guarded.port) as whole:
            whole.send(request)
            for _ in range(256):
                whole.send(b" " * 65_536)
            assert whole.answer()[0] == status
            assert whole.ended()
        with RawClient(guarded.port) as part:
            part.send(request + b" " * 5000)
            found, headers, _ = part.answer()
            assert (found, headers["connection"]) == (status, "close")
            assert part.ended()


def test_a_short_refused_body_keeps_the_connection(guarded: Gunicorn) -> None:
    """A caller that forgot its key need not connect again."""
    with RawClient(guarded.port) as client:
        for _ in range(3):
            client.send(json_head("/api/users", len(BODY)) + BODY)
            assert client.answer()[0] == 401


def test_who_waits_for_100_continue_gets_it_or_the_answer(guarded: Gunicorn) -> None:
    """A refused body is not asked for; the connection ends, because it may still come."""
    with RawClient(guarded.port) as client:
        client.send(
            json_head("/api/users", len(BODY), f"Authorization: Bearer {KEY}", "Expect: 100-continue")
        )
        assert client.answer()[0] == 100
        client.send(BODY)
        assert client.answer()[0] == 201
        client.send(json_head("/api/users", len(BODY), "Expect: 100-continue"))
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (401, "close")
        assert client.ended()


def test_who_does_not_wait_for_100_continue_keeps_its_connection(guarded: Gunicorn) -> None:
    """The body, or some of it, comes with the head: there is nothing to ask for (RFC 9110 §10.1.1), and it is
    known where the next request begins. Also when it is refused."""
    expecting = json_head("/api/users", len(BODY), f"Authorization: Bearer {KEY}", "Expect: 100-continue")
    with RawClient(guarded.port) as client:
        client.send(expecting + BODY)
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (201, "keep-alive")
        client.send(expecting + BODY[:10])
        client.send(BODY[10:])
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (201, "keep-alive")
        client.send(json_head("/nowhere", len(BODY), "Expect: 100-continue") + BODY)
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (404, "keep-alive")
        client.send(head("/healthz", method="GET"))
        assert client.answer()[0] == 200


def test_a_parting_lasts_its_moment_also_after_pipelined_requests(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Nothing was read for the last of them, so nothing but the parting has begun: a client that does not go
    is left after it."""
    last = head("/healthz", "Connection: close", method="GET")
    with (
        gunicorn(tmp_path, environment, *PATIENT, "--workers", "1") as service,
        RawClient(service.port) as client,
    ):
        client.send(head("/healthz", method="GET") + last)
        assert [client.answer()[0] for _ in range(2)] == [200, 200]
        wait_until(lambda: refuses(client), 30, "the server has left")


def refuses(client: RawClient) -> bool:
    """Whether the server takes no more bytes."""
    try:
        client.send(b" ")
    except OSError:
        return True
    return False


def test_half_a_head_is_told_that_its_time_is_over(small: Gunicorn) -> None:
    """408 (RFC 9110 §15.5.9), and nothing for a client that never spoke."""
    with RawClient(small.port) as half, RawClient(small.port) as silent:
        half.send(b"GET /healthz HTTP/1.1\r\nHost:")
        status, headers, body = half.answer()
        assert (status, headers["content-type"]) == (408, "application/problem+json")
        assert b"/problems/bad-request" in body
        assert half.ended()
        assert silent.answer()[0] == 0


def test_one_address_has_so_many_connections(tmp_path: Path, environment: dict[str, str]) -> None:
    """CLIENT_CONNECTIONS: one more gets 429; other addresses do not notice, and an end makes room."""
    request, bound = head("/healthz", method="GET"), {"CLIENT_CONNECTIONS": "3"}

    def status_from(source: str) -> int:
        with RawClient(service.port, source) as client:
            client.send(request)
            return client.answer()[0]

    with gunicorn(tmp_path, environment | bound, *HASTY, "--workers", "1") as service:
        clients = [RawClient(service.port, "127.0.0.3") for _ in range(3)]
        for client in clients:
            client.send(request)
            assert client.answer()[0] == 200
        with RawClient(service.port, "127.0.0.3") as fourth:
            fourth.send(request)
            status, _, body = fourth.answer()
            assert status == 429
            assert b"/problems/too-many-requests" in body
            assert fourth.ended()
        assert status_from("127.0.0.4") == 200
        for client in clients:
            client.close()
        wait_until(lambda: status_from("127.0.0.3") == 200, 30, "an end makes room")


def test_a_proxy_on_a_unix_socket_has_no_bound(tmp_path: Path, environment: dict[str, str]) -> None:
    """CLIENT_CONNECTIONS counts addresses, and it has none. Also after a reload (SIGHUP)."""
    path, bound = tmp_path / "http.sock", {"CLIENT_CONNECTIONS": "1"}

    def ask_thrice() -> None:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
            for client in clients:
                client.settimeout(20)
                client.connect(str(path))
                client.sendall(head("/healthz", method="GET"))
                assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")

    with gunicorn(
        tmp_path, environment | bound, *HASTY, "--workers", "1", "--bind", f"unix:{path}"
    ) as service:
        ask_thrice()
        before = service.workers()
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: (now := service.workers()) and not set(now) & set(before), 40, "a new worker")
        ask_thrice()


def test_behind_a_proxy_an_address_has_no_bound(tmp_path: Path, environment: dict[str, str]) -> None:
    """All its connections come from the proxy."""
    own = environment | {"CLIENT_CONNECTIONS": "1", "TRUSTED_PROXIES": "1"}
    with gunicorn(tmp_path, own) as service, ExitStack() as stack:
        clients = [stack.enter_context(RawClient(service.port)) for _ in range(5)]
        for client in clients:
            client.send(head("/healthz", method="GET"))
            assert client.answer()[0] == 200


def test_the_http_of_every_day_is_right(small: Gunicorn) -> None:
    """Pipelined requests, HEAD, HTTP/1.0 with and without keep-alive, 204."""
    get = head("/healthz", method="GET")
    with RawClient(small.port) as client:
        client.send(get * 20 + head("/healthz", method="HEAD") + get)
        for _ in range(20):
            assert client.answer()[0] == 200
        status, headers, _ = client.answer(body=False)
        assert status == 200
        assert int(headers["content-length"]) > 0
        assert client.answer()[0] == 200
        registered = small.register("gone@example.com")
        client.send(head(registered.headers["Location"], method="DELETE") + get)
        status, headers, _ = client.answer()
        assert status == 204
        assert "content-length" not in headers
        assert "transfer-encoding" not in headers
        assert client.answer()[0] == 200
    with RawClient(small.port) as client:
        client.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.answer()[1]["connection"] == "keep-alive"
        client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert client.answer()[1]["connection"] == "close"
        assert client.ended()


def test_what_is_no_http_is_answered_and_not_logged(small: Gunicorn) -> None:
    """It may hold an address, or a key."""
    with RawClient(small.port) as client:
        client.send(b"ada@example.com Bearer secret-key-of-mine\r\n\r\n")
        status, headers, body = client.answer()
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert b"ada@" not in body
        assert client.ended()
    assert "Invalid request" in small.log
    assert "ada@" not in small.log
    assert "secret-key" not in small.log


FLOODS: dict[str, tuple[int, bytes]] = {
    "4,300 that fall silent": (4300, head("/api/users", "X: " + "x" * 40)[:70]),
    "4,200 half bodies": (4200, json_head("/api/users", 65_000) + b" " * 64_000),
    "7,000 that never read": (7000, head("/openapi.json", method="GET") * 200),
}


def registers(service: Gunicorn, address: str) -> bool:
    """Whether this attempt got through. Where the queue of new connections is full, the kernel drops the
    first packet and repeats it ever more slowly: a client that connects anew is quicker. One that is asked to
    come back, because the machine is so busy that Redis does not answer in time, does."""
    try:
        answer = service.post("/api/users", {"email": address, "token": "t"}, timeout=(5, 30))
    except requests.Timeout:
        return False
    assert answer.status_code in (201, 202, 503)
    return answer.status_code != 503


@pytest.mark.timeout(500)  # beside other tests a crowd takes its time
@pytest.mark.slow
@pytest.mark.parametrize(("count", "first"), FLOODS.values(), ids=FLOODS)
def test_a_flood_leaves_the_service_up(
    tmp_path: Path, environment: dict[str, str], count: int, first: bytes
) -> None:
    """As it is shipped, with one worker: others are served, and the flood is over after its deadlines."""
    with gunicorn(tmp_path, environment, "--workers", "1") as service:
        (pid,) = service.workers()
        with Crowd(service.port, count, first) as crowd:
            came = partial(crowd.came, 2500)
            wait_until(came, 200, "more than the worker has connections")
            for number in range(10):
                address = f"healthy{number}@example.com"
                wait_until(partial(registers, service, address), 90, f"{address} is served")
            assert memory_bytes(pid) < 250_000_000
            wait_until(lambda: crowd.alive == 0, 90, "the flood is over")
