"""One SMTP session with a scripted mail server."""

from collections.abc import Iterator

import flask
import pytest

from app.errors import SettingsError
from app.mail.messages import Mail
from app.mail.smtp import MAX_MAILS, Blame, MailFault, SmtpMail, SmtpSession
from tests.support.smtp import ScriptedSmtp, say
from tests.support.waiting import wait_until

MAIL = Mail("no-reply@example.com", "ada@example.com", b"Subject: x\r\n\r\nx\r\n")


@pytest.fixture
def smtp_session(smtp: ScriptedSmtp) -> Iterator[SmtpSession]:
    app = flask.Flask("mail")
    app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=smtp.port)
    session = SmtpSession(SmtpMail(app, timeout_s=1.0))
    yield session
    session.close()


def test_a_mail_that_may_not_go_any_more_is_not_handed_over(
    smtp: ScriptedSmtp, smtp_session: SmtpSession
) -> None:
    """Asked after DATA was accepted; the connection is given up, so nothing can be taken for the mail."""
    with pytest.raises(MailFault) as raised:
        smtp_session.send(MAIL, lambda: False)
    assert (raised.value.blame, raised.value.code) == (Blame.MOMENT, "lease lost")
    wait_until(lambda: not smtp.open_connections)
    assert smtp.contents == []
    smtp_session.send(MAIL)
    assert len(smtp.mails) == 1


def test_envelope_and_data_go_in_one_write(smtp: ScriptedSmtp, smtp_session: SmtpSession) -> None:
    """RFC 2920, where the server offers it; answers come in turn."""
    smtp_session.send(MAIL)
    smtp_session.send(MAIL)
    assert smtp.pipelined == 2
    assert [mail.recipient for mail in smtp.mails] == ["ada@example.com"] * 2


def test_a_connection_is_made_anew_after_many_mails(smtp: ScriptedSmtp, smtp_session: SmtpSession) -> None:
    """So that load balancers and changed addresses come to bear."""
    for _ in range(MAX_MAILS + 1):
        smtp_session.send(MAIL)
    assert smtp.connections == 2
    assert len(smtp.mails) == MAX_MAILS + 1


@pytest.mark.parametrize(
    ("reply", "blame"),
    [
        ("550 5.1.1 x", Blame.ADDRESS),
        ("550 5.1.2 x", Blame.ADDRESS),
        ("550 5.1.3 x", Blame.ADDRESS),
        ("550 5.1.6 x", Blame.ADDRESS),
        ("556 5.1.10 x", Blame.ADDRESS),
        ("550 5.2.1 x", Blame.ADDRESS),
        ("550", Blame.ADDRESS),
        ("551 x", Blame.ADDRESS),
        ("553 x", Blame.ADDRESS),
        ("550 5.1.7 x", Blame.OPERATOR),
        ("550 5.1.8 x", Blame.OPERATOR),
        ("550 5.7.1 x", Blame.OPERATOR),
        ("554 5.7.606 x", Blame.OPERATOR),
        ("530 x", Blame.OPERATOR),
        ("450 4.1.1 x", Blame.MOMENT),
        ("450 5.1.1 x", Blame.MOMENT),
        ("552 5.2.2 x", Blame.MOMENT),
        ("554 x", Blame.MOMENT),
        ("550 5.1.11 x", Blame.MOMENT),
        ("550 5.0.0 x", Blame.MOMENT),
        ("501 5.1.1x", Blame.MOMENT),
    ],
)
def test_who_is_to_blame_for_a_refused_recipient(
    reply: str, blame: Blame, smtp: ScriptedSmtp, smtp_session: SmtpSession
) -> None:
    """Only these codes are the address's fault; 5.7.x and the sender's codes are the operator's."""
    smtp.script["rcpt"] = say(reply)
    with pytest.raises(MailFault) as raised:
        smtp_session.send(MAIL)
    assert raised.value.blame is blame


def test_a_file_without_certificates_stops_the_start() -> None:
    """MAIL_CA_FILE that names the wrong file is a wrong setting."""
    with pytest.raises(SettingsError, match="MAIL_CA_FILE"):
        SmtpMail(flask.Flask("mail"), 1.0, __file__)


@pytest.mark.parametrize(
    ("setting", "read"), [("MAIL_USE_TLS", True), ("MAIL_USE_SSL", True), ("MAIL_DEBUG", False)]
)
def test_the_authorities_are_read_at_the_start_where_there_is_tls(setting: str, read: bool) -> None:
    """While mails go, the file that holds them may be out of reach, and senders must not wait for it."""
    app = flask.Flask("mail")
    app.config[setting] = True
    assert ("tls" in vars(SmtpMail(app, 1.0))) is read
