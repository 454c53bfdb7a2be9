"""Mail servers that drip or never end: each wait ends, and no memory fills."""

import subprocess
import sys
import time
import traceback
import tracemalloc

import pytest

from app.mail.messages import Mail
from app.mail.smtp import Blame, MailFault
from app.sockets.names import Names
from tests.faults.sessions import HANGS_S, LOGIN, MEMORY, TIMEOUT_S, after, mail, send, session
from tests.support.faults.addresses import SILENT, leading_to, silence
from tests.support.faults.smtp import EHLO, OK, OddSmtp, Script, Talk, ordinary
from tests.support.waiting import wait_until

PROGRAM = "tests.support.faults.send_under_gevent"

TLS_RECORD = b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb" + b"\x03" * 16_000
"""A TLS record with a ServerHello that is as long as a record may be."""


STAGES = ("connect", "ehlo", "mail", "rcpt", "data")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("octets", [b"x", b"250-x\r\n"], ids=["a line", "lines"])
def test_a_reply_without_end_neither_fills_memory_nor_lasts(stage: str, octets: bytes) -> None:
    """A greeting of a gigabyte, an EHLO with endless extensions: the connection ends after some kilobytes."""
    octets = octets.replace(b"250", {"connect": b"220", "data": b"354"}.get(stage, b"250"))
    with OddSmtp(after(stage, lambda talk: talk.flood(octets))) as server, session(server.port) as one:
        tracemalloc.start()
        try:
            began = time.monotonic()
            assert send(one) != "sent"
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert time.monotonic() - began < HANGS_S
        assert peak < MEMORY
        assert not one.connected


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "octets", [b"2", b"220-x\r\n250-x\r\n", b"250-x\r\n"], ids=["a line", "odd lines", "lines"]
)
def test_a_reply_that_drips_ends_at_the_deadline_of_its_step(stage: str, octets: bytes) -> None:
    """Bytes that keep coming do not start the time-out anew."""
    with OddSmtp(after(stage, lambda talk: talk.drip(octets, TIMEOUT_S / 5))) as server:
        with session(server.port) as one:
            began = time.monotonic()
            assert send(one) != "sent"
            assert time.monotonic() - began < HANGS_S
        assert server.accepted == []


def test_a_login_without_end_ends() -> None:
    """AUTH that is answered with lines for ever."""

    def endless(talk: Talk) -> None:
        talk.greet()
        talk.line()
        talk.say("250-mail.example.com\r\n250 AUTH PLAIN LOGIN")
        talk.line()
        talk.flood(b"334-x\r\n")

    with OddSmtp(endless) as server, session(server.port, HANGS_S / 2, **LOGIN) as one:
        began = time.monotonic()
        assert send(one) == "connect broken"
        assert time.monotonic() - began < HANGS_S


@pytest.mark.parametrize("slow", [("connect", "ehlo"), ("ehlo", "auth"), ("auth",)], ids=" ".join)
def test_connecting_has_one_deadline_over_all_its_steps(slow: tuple[str, ...]) -> None:
    """Each reply comes in time; greeting, EHLO and challenge after challenge together do not."""
    heard = []

    def lazy(talk: Talk) -> None:
        def say(stage: str, reply: str) -> None:
            time.sleep(TIMEOUT_S * 0.7 if stage in slow else 0)
            talk.say(reply)

        say("connect", "220 mail.example.com")
        heard.append(talk.line())
        say("ehlo", "250-mail.example.com\r\n250 AUTH LOGIN")
        while True:
            heard.append(talk.line())
            say("auth", "334 VXNlcm5hbWU6")

    with OddSmtp(lazy) as server, session(server.port, **LOGIN) as one:
        assert send(one) == "connect timeout"
    assert len(heard) <= 3


def test_an_address_of_the_mail_server_that_is_silent_has_its_share_of_the_time() -> None:
    """The mail goes to the next one, within MAIL_TIMEOUT."""
    names = Names(leading_to(SILENT, "127.0.0.1"))
    with OddSmtp() as server, silence(server.port), session(server.port, 4.0, names) as one:
        assert send(one) == "sent"


def with_login(challenge: str) -> Script:
    """A server that offers AUTH, and answers it so."""

    def script(talk: Talk) -> None:
        talk.greet()
        talk.line()
        talk.say("250-mail.example.com\r\n250 AUTH CRAM-MD5 PLAIN")
        while True:
            talk.line()
            talk.say(challenge)

    return script


@pytest.mark.parametrize(
    ("password", "challenge", "blame", "code"),
    [
        ("contraseña", "334 PDEyMzQ+", Blame.OPERATOR, "login not offered"),
        ("secret", "334 x", Blame.SERVER, "connect broken"),
    ],
)
def test_a_login_that_cannot_be_spelled_is_a_fault_and_no_accident(
    password: str, challenge: str, blame: Blame, code: str
) -> None:
    """A password outside ASCII is for the operator; a challenge that is no base64 is the server's. Neither
    password nor challenge is in the fault or in what caused it."""
    login = LOGIN | {"MAIL_PASSWORD": password}
    with (
        OddSmtp(with_login(challenge)) as server,
        session(server.port, HANGS_S, **login) as one,
        pytest.raises(MailFault) as raised,
    ):
        one.send(mail())
    assert (raised.value.blame, raised.value.code) == (blame, code)
    told = "".join(traceback.format_exception(raised.value, chain=True))
    assert password not in told.replace("password", "")


def test_a_server_that_reads_nothing_ends_the_write_at_its_deadline() -> None:
    """A content that is larger than all buffers on the way."""
    large = Mail("a@example.com", "b@example.com", b"x" * 30_000_000 + b"\r\n")

    def deaf(talk: Talk) -> None:
        talk.greet()
        talk.line()
        talk.say(EHLO)
        for reply in (OK, OK, "354 Go"):
            talk.line()
            talk.say(reply)
        wait_until(lambda: talk.server.closing, 30)

    with OddSmtp(deaf) as server, session(server.port) as one:
        began = time.monotonic()
        assert send(one, large) == "write broken"
        assert time.monotonic() - began < HANGS_S


def test_a_handshake_that_drips_ends_at_its_deadline() -> None:
    """MAIL_USE_SSL, and a server that sends one byte of a TLS record after the other."""

    def drip(talk: Talk) -> None:
        talk.drip(TLS_RECORD, TIMEOUT_S / 5)

    with OddSmtp(drip) as server, session(server.port, MAIL_USE_SSL=True) as one:
        began = time.monotonic()
        assert send(one).startswith("connect")
        assert time.monotonic() - began < HANGS_S


@pytest.mark.parametrize(
    ("script", "tls", "code"),
    [
        (ordinary, [], "sent"),
        (after("connect", lambda talk: talk.drip(b"2", TIMEOUT_S / 5)), [], "greeting timeout"),
        (after("rcpt", lambda talk: talk.drip(b"250-x\r\n", TIMEOUT_S / 5)), [], "recipient timeout"),
        (after("ehlo", lambda talk: talk.flood(b"250-x\r\n")), [], "connect broken"),
        (lambda talk: talk.drip(TLS_RECORD, TIMEOUT_S / 5), ["tls"], "connect timeout"),
    ],
    ids=["healthy", "greeting", "reply", "endless", "handshake"],
)
def test_deadlines_hold_under_gevent_too(script: Script, tls: list[str], code: str) -> None:
    """gevent's sockets give each of many small reads the whole time-out."""
    with OddSmtp(script) as server:
        run = subprocess.run(
            [sys.executable, "-m", PROGRAM, str(TIMEOUT_S), str(server.port), *tls],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    seconds, _, told = run.stdout.strip().partition(" ")
    assert told == code
    assert float(seconds) < HANGS_S
