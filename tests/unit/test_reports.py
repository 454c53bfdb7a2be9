"""Reports as real mail servers write them, each with what it says; and whatever else may come."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.report import Report, ReportKind, failure
from app.mail import incoming, reports
from app.repositories.tags import Tags
from tests.support.mails import REGISTRATION
from tests.support.servers import ROOT

FOLDER = ROOT / "tests/fixtures/bounces"
TAG = Tags("the index key of the bounce fixtures").make(
    REGISTRATION._replace(
        user_id="m4xkwq7hd2n5tzvbc6ayr3gejo",
        registration_id="9f3c61d2a84b07e5",
        asked_for_ms=1_795_366_409_123,
    )
)
"""Of the mail that all of them are about."""

VERDICTS = {
    "aol-arf": (ReportKind.COMPLAINED, ""),
    "arf-auth-failure": (ReportKind.NOTHING, ""),
    "arf-headers-only": (ReportKind.COMPLAINED, ""),
    "arf-not-spam": (ReportKind.NOTHING, ""),
    "challenge": (ReportKind.NOTHING, ""),
    "courier-unknown": (ReportKind.BOUNCED, "5.1.1"),
    "domino-failure": (ReportKind.BOUNCED, "5.1.1"),
    "domino-no-status": (ReportKind.BOUNCED, ""),
    "exchange-2007": (ReportKind.BOUNCED, "5.1.1"),
    "exchange-5.5": (ReportKind.BOUNCED, ""),
    "exchange-full-mailbox": (ReportKind.SOFT, "5.2.2"),
    "exim-delayed": (ReportKind.SOFT, "4.3.2"),
    "exim-plain": (ReportKind.BOUNCED, ""),
    "exim-relay-generic-spam": (ReportKind.SOFT, "5.7.1"),
    "exim-report": (ReportKind.BOUNCED, "5.1.1"),
    "forwarded-bounce-inside": (ReportKind.NOTHING, ""),
    "french-latin-1": (ReportKind.BOUNCED, "5.1.1"),
    "gmail-delayed-spanish": (ReportKind.SOFT, "4.4.1"),
    "gmail-over-quota": (ReportKind.SOFT, "5.2.2"),
    "gmail-unknown-user": (ReportKind.BOUNCED, "5.1.1"),
    "japanese-8bit": (ReportKind.BOUNCED, "5.1.1"),
    "list-of-two-recipients": (ReportKind.BOUNCED, "5.1.1"),
    "mailenable": (ReportKind.BOUNCED, ""),
    "mailing-list-confirmation": (ReportKind.NOTHING, ""),
    "office365-access-denied": (ReportKind.SOFT, "5.7.1"),
    "office365-not-found": (ReportKind.BOUNCED, "5.1.10"),
    "opensmtpd": (ReportKind.BOUNCED, "5.1.1"),
    "out-of-office-exchange": (ReportKind.NOTHING, ""),
    "out-of-office-french": (ReportKind.NOTHING, ""),
    "out-of-office-german": (ReportKind.NOTHING, ""),
    "out-of-office-spanish": (ReportKind.NOTHING, ""),
    "outlook-com": (ReportKind.BOUNCED, "5.5.0"),
    "postfix-delayed": (ReportKind.SOFT, "4.7.1"),
    "postfix-delivered": (ReportKind.DELIVERED, "2.0.0"),
    "postfix-expired": (ReportKind.SOFT, "4.4.1"),
    "postfix-full-mailbox": (ReportKind.SOFT, "5.2.2"),
    "postfix-headers-only": (ReportKind.BOUNCED, "5.1.1"),
    "postfix-local-user": (ReportKind.BOUNCED, "5.1.1"),
    "postfix-smtputf8": (ReportKind.BOUNCED, "5.1.1"),
    "postfix-spam-refused": (ReportKind.SOFT, "5.7.1"),
    "postfix-unknown-domain": (ReportKind.BOUNCED, "5.4.4"),
    "postfix-unknown-user": (ReportKind.BOUNCED, "5.1.1"),
    "qmail-expired": (ReportKind.SOFT, "4.3.0"),
    "qmail-no-mailbox": (ReportKind.BOUNCED, "5.1.1"),
    "qmail-quota": (ReportKind.SOFT, "5.2.2"),
    "qmail-remote-said": (ReportKind.BOUNCED, "550"),
    "read-receipt": (ReportKind.NOTHING, ""),
    "report-in-base64": (ReportKind.BOUNCED, "5.1.1"),
    "report-in-quoted-printable": (ReportKind.BOUNCED, "5.1.1"),
    "sendmail-8.8-without-report": (ReportKind.BOUNCED, "550"),
    "sendmail-user-unknown": (ReportKind.BOUNCED, "5.1.1"),
    "sendmail-warning": (ReportKind.SOFT, "4.4.1"),
    "ses-like": (ReportKind.BOUNCED, "5.1.1"),
    "success-dsn": (ReportKind.DELIVERED, "2.1.5"),
    "vacation-from-postmaster": (ReportKind.NOTHING, ""),
    "vacation-unix": (ReportKind.NOTHING, ""),
    "yahoo-plain": (ReportKind.BOUNCED, ""),
}


def fixture(name: str) -> bytes:
    return (FOLDER / f"{name}.eml").read_bytes()


def test_every_fixture_has_its_verdict() -> None:
    """In the one table."""
    assert {path.stem for path in FOLDER.iterdir()} == set(VERDICTS)
    assert len(VERDICTS) >= 40


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("name", VERDICTS)
def test_a_report_says_what_its_server_meant_and_of_which_mail(name: str, ends: bytes) -> None:
    """With the line ends of a pipe and of the network."""
    report = reports.read(fixture(name).replace(b"\n", ends))
    assert (report.kind, report.code) == VERDICTS[name]
    assert report.candidates[:1] == (TAG,)


@pytest.mark.parametrize("name", VERDICTS)
def test_the_mail_is_known_without_the_address_that_the_report_went_to(name: str) -> None:
    """By what came back, or wherever the tag stands: some servers write to another address."""
    moved = fixture(name).replace(f"To: bounce+{TAG}@".encode(), b"To: bounces@")
    moved = moved.replace(f"Envelope-to: bounce+{TAG}@".encode(), b"Envelope-to: bounces@")
    assert (TAG in reports.read(moved).candidates) == (TAG.encode() in moved or "base64" in name)


def test_the_recipient_says_more_than_what_came_back() -> None:
    """A tag in a header that a mail server writes comes before one in a text."""
    other = TAG[::-1]
    data = f"To: bounce+{TAG}@acme.example\nSubject: {other}\n\n{other} Return-Path: <{other}@x>".encode()
    assert reports.read(data).candidates == (TAG, other)


@pytest.mark.parametrize(
    ("code", "for_good"),
    [
        ("", True),
        ("550", True),
        ("5.1.1", True),
        ("5.0.0", True),
        ("5.4.4", True),
        ("5.2.1", True),
        ("5.2.2", False),
        ("552", False),
        ("5.3.4", False),
        ("5.7.1", False),
        ("4.4.7", False),
        ("450", False),
        ("2.0.0", False),
    ],
)
def test_what_fails_for_good(code: str, for_good: bool) -> None:
    """Not a full mailbox, a mail system in trouble or a filter."""
    assert failure(code) is (ReportKind.BOUNCED if for_good else ReportKind.SOFT)


HOSTILE = {
    "semicolons": b'Content-Type: multipart/mixed; a="' + b";" * 2_000_000,
    "layers": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (i, i) for i in range(20_000)
    ),
    "messages in messages": b"Content-Type: message/rfc822\n\n" * 20_000,
    "parts": b"Content-Type: multipart/digest; boundary=b\n\n" + b"--b\n\n\n" * 200_000,
    "groups": b"Content-Type: message/delivery-status\n\n" + b"\n\n" * 500_000,
    "headers": b"To: x\n" * 200_000,
    "line ends": b"\r" * 1_000_000,
    "a charset that costs the square": b"Content-Type: text/plain; charset=punycode\n\n"
    + b"\xffz-9" * 99_999,
    "one line": b"From: mailer-daemon\n\nnot yet been delivered\n" + b"a" * 1_000_000,
    "letters of tags": b"\n" + b"a" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(20)
def test_no_message_takes_long(name: str) -> None:
    """Each of these took minutes, or every level of recursion there is, where nothing is cut to size."""
    report = reports.read(HOSTILE[name])
    assert report.kind is ReportKind.NOTHING
    assert len(report.candidates) <= reports.MAX_CANDIDATES


@pytest.mark.timeout(5)
def test_no_diagnostic_code_takes_long() -> None:
    """This one took 14 s of a worker, which answers nobody meanwhile: base64 hides a line that is not cut."""
    status = b"Action: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; " + b"exceed" * 28_000
    head = b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\n"
    assert reports.read(head + base64.encodebytes(status)).kind is ReportKind.BOUNCED


def test_a_message_is_looked_at_as_far_as_its_bound() -> None:
    """What comes behind it is not read."""
    assert TAG in reports.read(b"\n" + TAG.encode() + b"\n" + b"x" * incoming.MAX_BYTES).candidates
    assert reports.read(b"\n" + b" " * incoming.MAX_BYTES + TAG.encode()).candidates == ()


@given(data=st.binary(max_size=4000))
def test_anything_can_be_read(data: bytes) -> None:
    """And says nothing."""
    assert reports.read(data) == Report(ReportKind.NOTHING)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Pieces of real reports, in whatever order, with bytes in between."""
    pieces = []
    for _ in range(draw(st.integers(1, 6))):
        text = fixture(draw(st.sampled_from(sorted(VERDICTS))))
        begin, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        pieces += [text[begin:end], draw(st.binary(max_size=40))]
    return b"".join(pieces)


@given(data=damaged())
def test_whatever_becomes_of_a_report_it_can_be_read(data: bytes) -> None:
    """And nothing fails that `read` would hide: what it is made of does not raise, either."""
    report = reports.read(data)
    assert len(report.candidates) <= reports.MAX_CANDIDATES
    assert report.code == "" or report.code[0] in "245"
    parts = incoming.opened(data)
    assert isinstance(parts.text, str)
    list(incoming.fields(parts.status))
