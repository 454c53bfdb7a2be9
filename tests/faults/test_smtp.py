"""Mail servers that are out of step, drip or never end: no mail is wrong, no memory fills, each wait ends."""

import contextlib
import random
import resource
import subprocess
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import flask
import pytest

from app.mail.messages import Mail
from app.mail.smtp import Blame, MailFault, SmtpMail, SmtpSession
from tests.support.faults.smtp import EHLO, OK, OddSmtp, Over, Script, Talk, ordinary
from tests.support.waiting import wait_until

TIMEOUT_S = 0.5

PROGRAM = "tests.support.faults.send_under_gevent"

HANGS_S = 15.0
"""A wait that is longer than this has no deadline."""

TLS_RECORD = b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb" + b"\x03" * 16_000
"""A TLS record with a ServerHello that is as long as a record may be."""

MEMORY = 4_000_000
"""Bytes that one session may need at its worst; a reply without end takes a gigabyte in ten seconds."""


def mail(number: int = 0) -> Mail:
    return Mail(
        "no-reply@example.com",
        f"person{number}@example.com",
        f"Subject: x\r\nMessage-ID: <{number}@example.com>\r\n\r\nNumber {number}\r\n".encode(),
    )


@contextmanager
def session(port: int, timeout_s: float = TIMEOUT_S, **settings: object) -> Iterator[SmtpSession]:
    app = flask.Flask("mail")
    app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=port, **settings)
    one = SmtpSession(SmtpMail(app, timeout_s))
    yield one
    one.close()


def send(one: SmtpSession, what: Mail | None = None) -> str:
    """The code of the fault, or `sent`."""
    try:
        one.send(what or mail())
    except MailFault as fault:
        return fault.code
    return "sent"


def after(stage: str, act: Callable[[Talk], None]) -> Script:
    """Ordinary up to the reply to a stage (`connect`, `ehlo`, `mail` …); in its place, the act."""

    def script(talk: Talk) -> None:
        def instead(at: str, usual: str) -> str:
            if at == stage:
                act(talk)
                raise Over
            return usual

        talk.instead = instead
        ordinary(talk)

    return script


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


LOGIN = {"MAIL_USERNAME": "ada", "MAIL_PASSWORD": "secret"}


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


def test_what_a_server_says_before_tls_is_not_taken_for_an_answer_after_it() -> None:
    """RFC 3207 §4.1: somebody on the way may have put it there, so the connection ends."""
    heard = []

    def injected(talk: Talk) -> None:
        talk.greet()
        talk.line()
        talk.say("250-mail.example.com\r\n250 STARTTLS")
        talk.line()
        talk.put(b"220 Go ahead\r\n250 PIPELINING\r\n")
        heard.append(talk.line())

    with OddSmtp(injected) as server, session(server.port, MAIL_USE_TLS=True) as one:
        assert send(one) == "connect broken"
    assert heard == []


IN_CLEAR = {
    "stripped": ("250 AUTH PLAIN", ""),
    "refused": ("250-STARTTLS\r\n250 AUTH PLAIN", "454 4.7.0 Not now"),
    "not begun": ("250-STARTTLS\r\n250 AUTH PLAIN", "220 Ready"),
    "garbage": ("250-STARTTLS\r\n250 AUTH PLAIN", "220 Ready\r\n\0\0garbage"),
    "injected": ("250-STARTTLS\r\n250 AUTH PLAIN", "220 Ready\r\n250-mail.example.com\r\n250 AUTH PLAIN"),
    "in lines": ("250-STARTTLS\r\n250 AUTH PLAIN", "220-Ready\r\n250 AUTH PLAIN"),
}
"""What somebody on the way may say: to EHLO, and to STARTTLS."""


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize(("offer", "reply"), IN_CLEAR.values(), ids=IN_CLEAR)
def test_where_tls_is_asked_for_neither_password_nor_mail_goes_in_clear(
    offer: str, reply: str, late: bool
) -> None:
    """STARTTLS stripped from the offer, refused, or followed by what was never encrypted (CVE-2011-0411)."""
    heard: list[str] = []

    def tampered(talk: Talk) -> None:
        talk.greet()
        heard.append(talk.line())
        talk.say(f"250-mail.example.com\r\n{offer}")
        heard.append(talk.line())
        first, _, rest = reply.partition("\r\n")
        talk.put(first.encode() + b"\r\n" + (b"" if late else rest.encode() + b"\r\n" * bool(rest)))
        with contextlib.suppress(Over):
            talk.buffer = b""
            heard.append(talk.sock.recv(5).decode("latin-1"))
            if late:
                talk.say(rest)
            heard.append(talk.line())

    with OddSmtp(tampered) as server, session(server.port, MAIL_USE_TLS=True, **LOGIN) as one:
        assert send(one) != "sent"
        assert not one.connected
    spoken = [line for line in heard if not line.startswith("\x16\x03")]  # a TLS handshake
    assert not any(word in line.upper() for line in spoken for word in ("AUTH", "MAIL", "RCPT", "DATA"))


WRONG = {
    "connect": ("250 2.0.0 Hello", "354 Go", "220-x\r\n250 y"),
    "mail": ("354 Go", "220 x", "221 x", "235 x", "334 x", "250-x\r\n550 y", "2500 x", "150 x"),
    "rcpt": ("354 Go", "220 x", "334 x"),
    "data": ("250 2.0.0 Ok", "220 x", "334 x", "355 x"),
}


@pytest.mark.parametrize(
    ("stage", "reply"), [(stage, reply) for stage, all_ in WRONG.items() for reply in all_]
)
def test_a_code_that_does_not_belong_there_ends_the_connection_before_the_content(
    stage: str, reply: str
) -> None:
    """And the next mail goes over a new one."""

    def once(talk: Talk) -> None:
        if talk.serial == 1:
            talk.instead = lambda at, usual: reply if at == stage else usual
        ordinary(talk)

    with OddSmtp(once) as server, session(server.port) as one:
        results = [send(one, mail(number)) for number in range(3)]
        assert results[1:] == ["sent", "sent"]
        assert server.connections == 2
        exactly_ours(server, 3)


@pytest.mark.parametrize("code", ["354 Go", "220 x", "221 x", "334 x"])
def test_a_final_reply_that_is_none_is_not_an_acceptance(code: str) -> None:
    """The mail may have been taken: it is tried again later, over another connection."""
    with OddSmtp() as server, session(server.port) as one:
        server.script = after("content", lambda talk: talk.say(code))
        assert send(one) == f"content {code[:3]}"
        assert not one.connected
        server.script = ordinary
        assert send(one, mail(1)) == "sent"
        exactly_ours(server, 2)


@pytest.mark.parametrize("reply", ["502 5.5.1 No", "354 Go", "221 Bye"])
def test_a_connection_whose_reset_is_refused_is_not_kept(reply: str) -> None:
    """The refusal of the recipient stands."""

    def script(talk: Talk) -> None:
        if talk.serial == 1:
            talk.instead = {"ehlo": "250 x", "rcpt": "550 5.1.1 No", "rset": reply}.get
        ordinary(talk)

    with OddSmtp(script) as server, session(server.port) as one:
        with pytest.raises(MailFault) as refusal:
            one.send(mail())
        assert refusal.value.blame is Blame.ADDRESS
        assert not one.connected
        assert send(one, mail(1)) == "sent"
        assert server.connections == 2


def test_a_reply_that_nobody_asked_for_ends_a_kept_connection_before_the_next_mail() -> None:
    """It costs that connection, and the mail goes over a new one."""

    def stray(talk: Talk) -> None:
        if talk.serial == 1:
            talk.instead = lambda at, usual: f"{usual}\r\n250 2.0.0 Once more" if at == "content" else usual
        ordinary(talk)

    with OddSmtp(stray) as server, session(server.port) as one:
        assert [send(one, mail(number)) for number in range(4)] == ["sent"] * 4
        assert server.connections == 2
        exactly_ours(server, 4)


def exactly_ours(server: OddSmtp, many: int) -> None:
    """Every mail that the server took is a mail of ours, whole, to its recipient."""
    ours = {(each.sender, each.recipient, each.content) for each in map(mail, range(many))}
    wrong = [each for each in server.accepted if (each.sender, each.recipient, each.content) not in ours]
    assert wrong == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("late", [False, True], ids=["together", "late"])
def test_with_random_stray_replies_no_mail_carries_anything_but_itself(seed: int, late: bool) -> None:
    """200 mails through a server that says too much, too little or something else: every mail that it takes
    is one of ours, nearly all go out, and memory stays as it is."""
    chance = random.Random(seed)
    replies = ("250 2.0.0 Ok", "354 Go", "550 5.1.1 No", "503 5.5.1 No", "451 4.3.0 Later", "220 Hi",
               "what?", "", "421 4.3.2 Bye")  # fmt: skip

    def odd(talk: Talk) -> None:
        def before(_: str) -> bytes:
            if chance.random() > 0.03:
                return b"250-half\r\n" if chance.random() < 0.01 else b""
            if late:
                talk.put(f"{chance.choice(replies)}\r\n".encode())
                time.sleep(0.002)
                return b""
            return "".join(
                f"{chance.choice(replies)}\r\n" for _ in range(chance.choice((1, 1, 1, 2, 3)))
            ).encode()

        def instead(_: str, usual: str) -> str:
            if chance.random() > 0.01:
                return usual
            if chance.random() < 0.3:
                talk.put(usual.encode()[: chance.randrange(len(usual))])
                raise Over
            return chance.choice(replies)

        talk.before, talk.instead = before, instead
        ordinary(talk)

    many = 200
    with OddSmtp(odd) as server, session(server.port, 0.2) as one:
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        results = [send(one, mail(number)) for number in range(many)]
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    exactly_ours(server, many)
    assert results.count("sent") > many * 0.7
    assert server.connections < many
    assert grown_kb < MEMORY / 1000


@pytest.mark.parametrize(
    ("script", "tls", "code"),
    [
        (ordinary, [], "sent"),
        (after("connect", lambda talk: talk.drip(b"2", TIMEOUT_S / 5)), [], "connect timeout"),
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
