"""Mail servers that say what does not belong there, or too early: no mail and no password goes astray."""

import contextlib
import random
import resource
import time

import pytest

from app.mail.smtp import Blame, MailFault
from tests.faults.sessions import LOGIN, MEMORY, after, mail, send, session
from tests.support.faults.smtp import OddSmtp, Over, Talk, ordinary


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


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "late", [pytest.param(False, marks=pytest.mark.slow), True], ids=["together", "late"]
)
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
