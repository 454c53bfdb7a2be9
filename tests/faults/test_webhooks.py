"""Receivers of events that are well, slow, odd or hostile: every attempt ends, says what came of it in fixed
words, and leaves nothing behind."""

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from app.domain.service import Endpoint
from app.sockets.names import Address, Names
from app.webhook.connections import MAX_IDLE_S, MAX_OF_ONE
from app.webhook.webhooks import Gone, NotTaken, Webhooks
from tests.support.authority import Authority
from tests.support.certificates import Certificate
from tests.support.events import NEXT_SECRET, SECRET, event
from tests.support.faults.addresses import SILENT, leading_to, silence
from tests.support.faults.receiver import Act, OddReceiver, closes, drips, floods, hangs, says, takes
from tests.support.faults.smtp import Talk
from tests.support.servers import free_port
from tests.support.waiting import wait_until

TIMEOUT_S = 0.5

PAUSE_S = TIMEOUT_S / 5
"""Between two bytes that drip."""

HANGS_S = 10.0
"""A wait that is longer than this has no deadline."""

MEMORY = 2_000_000
"""Bytes that one attempt may need at its worst."""

PROGRAM = "tests.support.faults.post_under_gevent"

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def patient() -> Iterator[Webhooks]:
    """For receivers that answer: a busy machine is no slow receiver."""
    found = Webhooks(30.0)
    yield found
    found.close()


@pytest.fixture
def hasty() -> Iterator[Webhooks]:
    """For receivers that do not."""
    found = Webhooks(TIMEOUT_S)
    yield found
    found.close()


def outcome(webhooks: Webhooks, endpoint: Endpoint, number: int = 0) -> str:
    """`taken`, `gone`, or the code of the fault."""
    try:
        webhooks.post(endpoint, event(number))
    except Gone:
        return "gone"
    except NotTaken as fault:
        return fault.code
    return "taken"


def test_an_event_arrives_whole_signed_and_once(patient: Webhooks) -> None:
    """A POST to path and query of the URL; the receiver's library accepts it with each of two secrets."""
    with OddReceiver() as receiver:
        patient.post(receiver.endpoint("localhost", "/hooks?for=x", SECRET, NEXT_SECRET), event(3))
        (posted,) = receiver.posted
    assert posted.line == "POST /hooks?for=x HTTP/1.1"
    assert posted.headers["host"] == f"localhost:{receiver.port}"
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["user-agent"] == "Cedula"
    assert posted.headers["webhook-id"] == "event-3"
    for secret in (SECRET, NEXT_SECRET):
        assert Webhook(secret).verify(posted.body, posted.headers) == json.loads(posted.body)


def test_a_url_without_a_path_is_the_root(patient: Webhooks) -> None:
    """With and without a query."""
    with OddReceiver() as receiver:
        for path in ("", "?x"):
            patient.post(receiver.endpoint(path=path), event())
        assert [posted.line for posted in receiver.posted] == ["POST / HTTP/1.1", "POST /?x HTTP/1.1"]


STATUSES = {
    200: "taken",
    202: "taken",
    204: "taken",
    299: "taken",
    410: "gone",
    301: "redirect 301",
    302: "redirect 302",
    307: "redirect 307",
    308: "redirect 308",
    304: "redirect 304",
    400: "status 400",
    404: "status 404",
    429: "status 429",
    500: "status 500",
    503: "status 503",
    999: "status 999",
    101: "status 101",
}


@pytest.mark.parametrize("status", STATUSES)
def test_only_2xx_is_taken_and_nothing_is_followed(patient: Webhooks, status: int) -> None:
    """A redirect could lead anywhere. What the receiver says in words is nowhere in the outcome."""
    with OddReceiver() as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}/"
        head = f"HTTP/1.1 {status} ada@example.com\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        with OddReceiver(says(head.encode())) as receiver:
            assert outcome(patient, receiver.endpoint()) == STATUSES[status]
            assert len(receiver.posted) == 1
        assert elsewhere.connections == 0


def resets(talk: Talk) -> None:
    talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    closes()(talk)


NONSENSE: dict[str, Act] = {
    "nothing": closes(),
    "a reset": resets,
    "no HTTP": says(b"220 mail.example.com ESMTP\r\n"),
    "HTTP/0.9": closes(b"ok\n"),
    "no status": says(b"HTTP/1.1 OK\r\n\r\n"),
    "a low status": says(b"HTTP/1.1 99 Low\r\n\r\n"),
    "a high status": says(b"HTTP/1.1 1000 High\r\n\r\n"),
    "another version": says(b"HTTP/3 200 OK\r\n\r\n"),
    "NUL": says(b"\0" * 70_000),
    "half a status line": closes(b"HTTP/1.1 200 O"),
    "half a head": closes(HEAD + b"Content-Length: 0\r\n"),
    "half a header": closes(HEAD + b"Content-Le"),
    "a long header": says(HEAD + b"X: " + b"x" * 70_000),
    "many headers": says(HEAD + b"X: x\r\n" * 200 + b"\r\n"),
    "headers without end": floods(b"X: x\r\n"),
    "a head without end": floods(b"X: x\r\n", HEAD),
    "a header without end": floods(b"x", HEAD + b"X: "),
    "100 without end": floods(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_what_is_no_answer_is_not_taken_and_fills_no_memory(patient: Webhooks, what: str) -> None:
    """At once, and the connection ends."""
    with OddReceiver(NONSENSE[what]) as receiver:
        tracemalloc.start()
        try:
            began = time.monotonic()
            assert outcome(patient, receiver.endpoint()) == "broken"
            assert time.monotonic() - began < HANGS_S
            assert tracemalloc.get_traced_memory()[1] < MEMORY
        finally:
            tracemalloc.stop()
        assert len(receiver.posted) == 1, "a new connection is not tried twice"
        wait_until(lambda: receiver.open_connections == 0)


SLOW: dict[str, Act] = {
    "silence": hangs,
    "a status line": drips(HEAD, PAUSE_S),
    "a head": drips(b"X: x\r\n", PAUSE_S, HEAD),
    "100": drips(b"HTTP/1.1 100 Continue\r\n\r\n", PAUSE_S),
}


@pytest.mark.parametrize("what", SLOW)
def test_an_answer_that_drips_ends_at_the_deadline(hasty: Webhooks, what: str) -> None:
    """Bytes that keep coming do not start it anew."""
    with OddReceiver(SLOW[what]) as receiver:
        began = time.monotonic()
        assert outcome(hasty, receiver.endpoint()) == "timeout"
        assert TIMEOUT_S * 0.9 < time.monotonic() - began < HANGS_S
        receiver.closing = True
        wait_until(lambda: receiver.open_connections == 0)


CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

BODIES: dict[str, Act] = {
    "without end": floods(b"x", HEAD + b"\r\n"),
    "of a gigabyte": floods(b"x", HEAD + b"Content-Length: 1000000000\r\n\r\n"),
    "dripping": drips(b"x", PAUSE_S, HEAD + b"Content-Length: 100\r\n\r\n"),
    "cut": closes(HEAD + b"Content-Length: 100\r\n\r\nx"),
    "of wrong chunks": says(CHUNKS + b"zz\r\n"),
    "of one large chunk": floods(b"x", CHUNKS + b"ffffffffffff\r\n"),
    "with trailers without end": floods(b"X: x\r\n", CHUNKS + b"0\r\n"),
}


@pytest.mark.parametrize("what", BODIES)
def test_what_was_taken_is_taken_whatever_its_body(patient: Webhooks, what: str) -> None:
    """2xx is a word. The body is read to a bound and for a second, and the next event goes over another
    connection."""
    with OddReceiver(BODIES[what]) as receiver:
        tracemalloc.start()
        try:
            began = time.monotonic()
            assert [outcome(patient, receiver.endpoint(), turn) for turn in range(2)] == ["taken", "taken"]
            assert time.monotonic() - began < HANGS_S
            assert tracemalloc.get_traced_memory()[1] < MEMORY
        finally:
            tracemalloc.stop()
        assert [posted.connection for posted in receiver.posted] == [1, 2]


# Connections that are kept


REUSABLE = [
    b"HTTP/1.1 204 No Content\r\n\r\n",
    HEAD + b"Content-Length: 2\r\n\r\nok",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
]


@pytest.mark.parametrize("answer", REUSABLE, ids=range(len(REUSABLE)))
def test_a_connection_serves_for_one_event_after_the_other(patient: Webhooks, answer: bytes) -> None:
    """As long as each answer has an end."""
    with OddReceiver(says(answer)) as receiver:
        for turn in range(3):
            outcome(patient, receiver.endpoint(), turn)
        assert [posted.connection for posted in receiver.posted] == [1, 1, 1]
        assert [posted.headers["webhook-id"] for posted in receiver.posted] == [
            "event-0",
            "event-1",
            "event-2",
        ]


NOT_REUSABLE = {
    "Connection: close": says(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"),
    "HTTP/1.0": closes(b"HTTP/1.0 200 OK\r\n\r\nok"),
    "one answer too many": says(2 * (HEAD + b"Content-Length: 0\r\n\r\n")),
    "a word too many": says(HEAD + b"Content-Length: 2\r\n\r\nok!"),
    "closed behind it": closes(HEAD + b"Content-Length: 2\r\n\r\nok"),
}


@pytest.mark.parametrize("what", NOT_REUSABLE)
def test_a_connection_that_is_out_of_step_serves_for_no_other(patient: Webhooks, what: str) -> None:
    """Its next answer could be that to another event."""
    with OddReceiver(NOT_REUSABLE[what]) as receiver:
        for turn in range(2):
            assert outcome(patient, receiver.endpoint(), turn) == "taken"
            wait_until(lambda: what != "closed behind it" or receiver.open_connections == 0)
        assert [posted.connection for posted in receiver.posted] == [1, 2]


def test_an_event_that_meets_a_closing_connection_goes_over_a_new_one(patient: Webhooks) -> None:
    """Whether the receiver has seen it nobody knows; its id says that it is the same."""

    def closes_on_the_second(talk: Talk) -> None:
        if len(receiver.posted) == 2:
            closes()(talk)
        takes(talk)

    with OddReceiver(closes_on_the_second) as receiver:
        assert [outcome(patient, receiver.endpoint(), turn) for turn in range(2)] == ["taken", "taken"]
        assert [(posted.connection, posted.headers["webhook-id"]) for posted in receiver.posted] == [
            (1, "event-0"),
            (1, "event-1"),
            (2, "event-1"),
        ]


def test_a_kept_connection_that_is_silent_takes_no_second_try(hasty: Webhooks) -> None:
    """The deadline is for both."""
    with OddReceiver() as receiver:
        assert outcome(hasty, receiver.endpoint()) == "taken"
        receiver.act = hangs
        began = time.monotonic()
        assert outcome(hasty, receiver.endpoint()) == "timeout"
        assert time.monotonic() - began < HANGS_S
        assert receiver.connections == 1


def test_connections_end_when_they_have_rested_or_are_closed(patient: Webhooks) -> None:
    """Those that rest are few, and of one receiver fewer."""
    both_are_here = threading.Barrier(MAX_OF_ONE + 2)

    def together(talk: Talk) -> None:
        both_are_here.wait(20)
        takes(talk)

    with OddReceiver(together) as receiver, OddReceiver() as other:
        in_threads(MAX_OF_ONE + 2, lambda turn: outcome(patient, receiver.endpoint(), turn))
        outcome(patient, other.endpoint())
        wait_until(lambda: (receiver.open_connections, other.open_connections) == (MAX_OF_ONE, 1))

        def rested() -> bool:
            patient.close_idle()
            return receiver.open_connections + other.open_connections == 0

        began = time.monotonic()
        wait_until(rested)
        assert time.monotonic() - began > MAX_IDLE_S / 2
        outcome(patient, other.endpoint())
        assert other.open_connections == 1
        patient.close()
        wait_until(lambda: other.open_connections == 0)
        assert outcome(patient, other.endpoint()) == "taken"
        wait_until(lambda: other.open_connections == 0)


def in_threads(many: int, act: Callable[[int], str]) -> list[str]:
    """What each came to."""
    found = [""] * many

    def run(turn: int) -> None:
        found[turn] = act(turn)

    threads = [threading.Thread(target=run, args=(turn,)) for turn in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_many_threads_post_at_once(patient: Webhooks) -> None:
    """Each event arrives once and whole; no answer is taken for another's."""
    with OddReceiver() as receiver, OddReceiver(says(HEAD.replace(b"200", b"500") + b"\r\n")) as failing:

        def five(turn: int) -> str:
            codes = {outcome(patient, receiver.endpoint(), 5 * turn + each) for each in range(5)}
            return f"{codes} {outcome(patient, failing.endpoint())}"

        assert set(in_threads(20, five)) == {"{'taken'} status 500"}
        ids = [posted.headers["webhook-id"] for posted in receiver.posted]
        assert sorted(ids) == sorted(f"event-{turn}" for turn in range(100))
        assert receiver.connections < 100


# Names and addresses


@pytest.mark.parametrize(
    ("addresses", "code"),
    [
        (["10.0.0.1"], "private address"),
        (["127.0.0.1", "169.254.169.254"], "private address"),
        (["::ffff:192.168.0.1"], "private address"),
        ([], "broken"),
    ],
    ids=str,
)
def test_a_name_that_leads_inside_is_not_connected_to(addresses: list[str], code: str) -> None:
    """Also where only one of its addresses does."""
    webhooks = Webhooks(TIMEOUT_S, names=Names(leading_to(*addresses)))
    with OddReceiver() as receiver:
        endpoint = Endpoint(f"https://receiver.example:{receiver.port}/", (SECRET,))
        assert outcome(webhooks, endpoint) == code
        assert receiver.connections == 0


def test_without_tls_nothing_leaves_this_machine() -> None:
    """Also where the name of this machine leads elsewhere."""
    webhooks = Webhooks(TIMEOUT_S, names=Names(leading_to("8.8.8.8")))
    assert outcome(webhooks, Endpoint("http://localhost/", (SECRET,), private=True)) == "not encrypted"


def test_a_name_is_looked_up_once_for_a_connection() -> None:
    """What it leads to a moment later is not asked (DNS rebinding)."""
    asked = []

    def rebound(host: str, port: int) -> Sequence[Address]:
        asked.append(host)
        return leading_to("127.0.0.1" if len(asked) == 1 else "10.0.0.1")(host, port)

    webhooks = Webhooks(30.0, names=Names(rebound))
    with OddReceiver() as receiver:
        endpoint = receiver.endpoint("receiver.example")
        assert [outcome(webhooks, endpoint, turn) for turn in range(2)] == ["taken", "taken"]
        assert receiver.posted[0].headers["host"] == f"receiver.example:{receiver.port}"
        assert asked == ["receiver.example"]
        webhooks.close()
        assert outcome(webhooks, endpoint) == "not encrypted"


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    """IPv6 that is announced and does not work, for example."""
    webhooks = Webhooks(30.0, names=Names(leading_to("::1", "127.0.0.1")))
    with OddReceiver() as receiver:
        assert outcome(webhooks, receiver.endpoint("receiver.example")) == "taken"
    webhooks.close()


def test_an_address_that_is_silent_has_its_share_of_the_time() -> None:
    """The attempt ends at the next address, and not at its deadline."""
    webhooks = Webhooks(4.0, names=Names(leading_to(SILENT, "127.0.0.1")))
    with OddReceiver() as receiver, silence(receiver.port):
        assert outcome(webhooks, receiver.endpoint("receiver.example")) == "taken"
    webhooks.close()


def test_a_name_that_hangs_holds_up_nobody_else() -> None:
    """However often it is asked for."""
    released = threading.Event()
    begun: list[str] = []

    def resolve(host: str, port: int) -> Sequence[Address]:
        if host.startswith("hangs"):
            begun.append(host)
            released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "later")
        return leading_to("127.0.0.1")(host, port)

    names = Names(resolve)
    hasty, patient = Webhooks(TIMEOUT_S, names=names), Webhooks(30.0, names=names)
    with OddReceiver() as receiver:

        def hang(_: int) -> str:
            return outcome(hasty, receiver.endpoint("hangs.example"))

        began = time.monotonic()
        assert set(in_threads(12, hang)) == {"timeout"}
        assert time.monotonic() - began < HANGS_S
        assert len(begun) == 1
        assert outcome(patient, receiver.endpoint("receiver.example")) == "taken"
        released.set()
        wait_until(lambda: not [each for each in threading.enumerate() if each.name == "look-up"])
        assert outcome(patient, receiver.endpoint("hangs.example")) == "unknown host"
        patient.close()


def test_the_name_of_nobody_is_unknown(patient: Webhooks) -> None:
    """And a port where nobody listens refuses."""
    assert outcome(patient, Endpoint("https://receiver.invalid/", (SECRET,))) == "unknown host"
    assert outcome(patient, Endpoint("https://receiver..example/", (SECRET,))) == "unknown host"
    assert outcome(patient, Endpoint(f"http://127.0.0.1:{free_port()}/", (SECRET,))) == "refused"


def test_no_proxy_of_the_environment_is_used(patient: Webhooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would see the events, and reach what we may not."""
    with OddReceiver() as receiver, OddReceiver() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert outcome(patient, receiver.endpoint()) == "taken"
        assert proxy.connections == 0


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority, timeout_s: float = 30.0) -> Webhooks:
    return Webhooks(timeout_s, tls=ssl.create_default_context(cafile=str(authority.ca_file)))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_events_travel_under_tls(authority: Authority, host: str) -> None:
    """One handshake serves for several."""
    webhooks = trusting(authority)
    with OddReceiver(tls=authority.server(host)) as receiver:
        assert [outcome(webhooks, receiver.endpoint(host), turn) for turn in range(3)] == ["taken"] * 3
        assert [posted.connection for posted in receiver.posted] == [1, 1, 1]
        receiver.act = closes(HEAD + b"Content-Length: 0\r\n\r\n")
        assert outcome(webhooks, receiver.endpoint(host)) == "taken"
        wait_until(lambda: receiver.open_connections == 0)
        receiver.act = takes
        assert outcome(webhooks, receiver.endpoint(host)) == "taken"
    webhooks.close()


def test_a_certificate_must_be_good(authority: Authority, tmp_path: Path) -> None:
    """Trusted, in time, for the name; nothing is posted where it is not."""
    (tmp_path / "other").mkdir()
    servers = {
        "certificate expired": authority.server("localhost", expired=True),
        "certificate for another name": authority.server("receiver.example"),
        "certificate refused": Certificate(tmp_path / "other").server_context(),
    }
    for code, context in servers.items():
        with OddReceiver(tls=context) as receiver:
            assert outcome(trusting(authority), receiver.endpoint("localhost")) == code
            assert receiver.posted == []


TLS_RECORD = b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb" + b"\x03" * 16_000
"""A TLS record with a ServerHello that is as long as a record may be."""

HANDSHAKES: dict[str, tuple[Act, str]] = {
    "another protocol": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "TLS failed"),
    "an end": (closes(), "broken"),
    "silence": (hangs, "timeout"),
    "dripping": (drips(TLS_RECORD, PAUSE_S), "timeout"),
}


@pytest.mark.parametrize("what", HANDSHAKES)
def test_a_handshake_that_does_not_come_about_ends(authority: Authority, what: str) -> None:
    """In place of it there is something else, or nothing."""
    act, code = HANDSHAKES[what]
    with OddReceiver(at_once=act, tls=authority.server("localhost")) as receiver:
        began = time.monotonic()
        assert outcome(trusting(authority, TIMEOUT_S * 4), receiver.endpoint("localhost")) == code
        assert time.monotonic() - began < HANGS_S
        receiver.closing = True
        wait_until(lambda: receiver.open_connections == 0)


def test_a_probe_connects_and_posts_nothing(authority: Authority) -> None:
    """It finds what an event would find."""
    with OddReceiver(tls=authority.server("localhost")) as receiver:
        trusting(authority).probe(receiver.endpoint("localhost"))
        wait_until(lambda: (receiver.connections, receiver.open_connections) == (1, 0))
        with pytest.raises(NotTaken, match="certificate refused"):
            Webhooks().probe(receiver.endpoint("localhost"))
        assert receiver.posted == []


# Under gevent


UNDER_GEVENT: dict[str, tuple[Act, str]] = {
    "well": (takes, "taken"),
    "silence": (hangs, "timeout"),
    "dripping": (drips(HEAD, PAUSE_S), "timeout"),
    "a head without end": (floods(HEAD), "broken"),
    "a body without end": (BODIES["without end"], "taken"),
}


@pytest.mark.parametrize("tls", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "TLS"])
@pytest.mark.parametrize("what", UNDER_GEVENT)
def test_deadlines_hold_under_gevent_too(authority: Authority, what: str, tls: bool) -> None:
    """gevent's sockets give each of many small reads the whole time-out."""
    act, code = UNDER_GEVENT[what]
    with OddReceiver(act, tls=authority.server("localhost") if tls else None) as receiver:
        arguments = ["2", receiver.endpoint("localhost").url, *([str(authority.ca_file)] if tls else [])]
        run = subprocess.run(
            [sys.executable, "-m", PROGRAM, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        *attempts, threads = run.stdout.splitlines()
        for attempt in attempts:
            seconds, _, told = attempt.partition(" ")
            assert told == code
            assert float(seconds) < HANGS_S
        assert threads == "1"
        assert len(receiver.posted) == 2
        if what == "well":
            assert receiver.connections == 1
