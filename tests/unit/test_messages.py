"""The mail: what it says, what its headers are, and which templates are taken."""

import email
import email.policy
import re
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path

import flask_mail
import pytest
from flask import Flask

from app.config import LOCALES
from app.domain.address import Address
from app.domain.registration import Registration
from app.errors import SettingsError
from app.mail.messages import Mail, Messages, reference

SENDER = "Cedula <no-reply@cedula.example>"
ONCE = ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Auto-Submitted")

REGISTRATION = Registration(
    user_id="a" * 26,
    registration_id="0123456789abcdef0123",
    address=Address.parse("ada@faß.de"),
    number="482109375523",
    locale="en",
    created_ms=1_700_000_000_123,
)


def messages(sender: str = SENDER, overrides: Path | str = "") -> Messages:
    """The messages of a service; Flask-Mail composes inside an app."""
    app = Flask(__name__)
    flask_mail.Mail(app)
    with app.app_context():
        return Messages(sender, LOCALES, str(overrides))


def parsed(mail: Mail) -> EmailMessage:
    """The mail as its receiver reads it, without the doubled dots of the SMTP conversation."""
    content = re.sub(rb"(?m)^\.\.", b".", mail.content)
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def text_of(mail: Mail, kind: str) -> str:
    """The `plain` or the `html` part."""
    part = parsed(mail).get_body((kind,))
    assert part is not None
    assert not part.defects
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def override(folder: Path, part: str, text: str, locale: str = "en") -> Path:
    """Writes one template of an operator; returns the folder for MAIL_TEMPLATES."""
    file = folder / "number" / locale / part
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder


@pytest.fixture(params=LOCALES)
def mail(request: pytest.FixtureRequest) -> Mail:
    """The mail of one registration, in each language."""
    return messages().mail(REGISTRATION._replace(locale=request.param))


def test_every_header_that_a_mail_must_have_is_there_once(mail: Mail) -> None:
    """Two Message-IDs or Dates make a mail look like spam (RFC 5322 §3.6)."""
    message = parsed(mail)
    assert {name: len(message.get_all(name, [])) for name in ONCE} == dict.fromkeys(ONCE, 1)


def test_the_headers_say_who_when_and_that_a_machine_wrote_it(mail: Mail) -> None:
    """Auto-Submitted (RFC 3834) keeps holiday notices from answering."""
    message = parsed(mail)
    assert message["From"] == SENDER
    assert message["To"] == "ada@xn--fa-hia.de"
    assert message["Date"].datetime == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert message["Message-ID"] == "<0123456789abcdef0123@cedula.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert [part.get_content_type() for part in message.walk() if not part.is_multipart()] == [
        "text/plain",
        "text/html",
    ]


def test_the_envelope_holds_bare_addresses(mail: Mail) -> None:
    """In ASCII, with the domain of IDNA 2008."""
    assert mail.sender == "no-reply@cedula.example"
    assert mail.recipient == "ada@xn--fa-hia.de"


def test_both_parts_show_the_number_in_groups_its_reference_and_its_time(mail: Mail) -> None:
    """What a person needs to tell one mail from another."""
    for kind in ("plain", "html"):
        text = text_of(mail, kind)
        assert "4821 0937 5523" in text
        assert reference(REGISTRATION.registration_id) in text
        assert "2023-11-14 22:13:20 UTC" in text


def test_a_per_cent_sign_of_a_template_stays_one(tmp_path: Path) -> None:
    """A mail is filled in by formatting, and a template may hold what looks like a field."""
    folder = override(tmp_path, "body.txt", "{{ number }} is 100 % yours, %(number)b %s %%")
    text = text_of(messages(overrides=folder).mail(REGISTRATION), "plain")
    assert text == "4821 0937 5523 is 100 % yours, %(number)b %s %%"


def test_the_mail_is_written_in_the_language_of_the_registration() -> None:
    """And says so in a header."""
    composed = messages()
    spanish = composed.mail(REGISTRATION._replace(locale="es"))
    assert "Su número de identificación" in text_of(spanish, "plain")
    assert "Su número de identificación" in text_of(spanish, "html")
    assert parsed(spanish)["Content-Language"] == "es"
    english = composed.mail(REGISTRATION)
    assert "Your identification number" in text_of(english, "plain")
    assert parsed(english)["Content-Language"] == "en"


def test_there_is_no_link_in_it(mail: Mail) -> None:
    """A mail that asks for a number and offers a link teaches people to be phished."""
    for kind in ("plain", "html"):
        text = text_of(mail, kind).lower()
        assert "http:" not in text
        assert "https:" not in text
        assert "href" not in text
        assert "src=" not in text


def test_the_number_is_not_in_the_subject(mail: Mail) -> None:
    """Subjects show on locked screens and in the logs of mail servers."""
    assert re.search(r"\d", parsed(mail)["Subject"]) is None


def test_every_line_ends_in_crlf_is_short_and_in_ascii(mail: Mail) -> None:
    """What every SMTP server takes without an extension (RFC 5321 §4.5.3.1.6: 998 and CRLF)."""
    assert mail.content.isascii()
    assert mail.content.endswith(b"\r\n")
    lines = mail.content.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(len(line) for line in lines) <= 998


def test_a_line_that_begins_with_a_dot_is_doubled_once(tmp_path: Path) -> None:
    """A lone dot would end the mail early, a doubled one that is doubled again would arrive as two."""
    override(tmp_path, "body.txt", ".\n..\n.hidden\n{{ number }}\n")
    mail = messages(overrides=tmp_path).mail(REGISTRATION)
    assert b"\r\n..\r\n...\r\n..hidden\r\n" in mail.content
    assert b"\r\n.\r\n" not in mail.content
    assert text_of(mail, "plain").splitlines()[:3] == [".", "..", ".hidden"]


def test_no_placeholder_is_left(mail: Mail) -> None:
    """They are what the composed message is cut at."""
    assert re.search(rb"xx[A-Z]+x+", mail.content) is None


def test_the_same_registration_gives_the_same_mail() -> None:
    """A repeat has the same Message-ID, also from another process, so mail programs show it once."""
    composed = messages()
    assert composed.mail(REGISTRATION) == composed.mail(REGISTRATION._replace(attempts=3))
    (first, repeat) = (parsed(one.mail(REGISTRATION)) for one in (composed, messages()))
    assert first["Message-ID"] == repeat["Message-ID"]


def test_another_registration_of_the_address_has_another_message_id_and_reference() -> None:
    """They are two mails to a mail program and to a person."""
    other = REGISTRATION._replace(registration_id="0123456789abcdef0124")
    first, second = (messages().mail(registration) for registration in (REGISTRATION, other))
    assert parsed(first)["Message-ID"] != parsed(second)["Message-ID"]
    assert reference(REGISTRATION.registration_id) != reference(other.registration_id)


@pytest.mark.parametrize("registration_id", ["0" * 20, "f" * 20, "0123456789abcdef0123"])
def test_a_reference_is_two_letters_that_nobody_takes_for_digits(registration_id: str) -> None:
    """No I and no O."""
    assert re.fullmatch("[A-HJ-NP-Z]{2}", reference(registration_id))


@pytest.mark.parametrize("digits", range(11, 19))
def test_numbers_of_every_length_are_shown(digits: int) -> None:
    """A longer number must not be broken at the end of a line."""
    number = "123456789012345678"[:digits]
    mail = messages().mail(REGISTRATION._replace(number=number))
    shown = " ".join(number[start : start + 4] for start in range(0, digits, 4))
    assert shown in text_of(mail, "plain")
    assert shown in text_of(mail, "html")


@pytest.mark.parametrize(
    "name",
    [
        "Cedula, Inc.",
        "Müller, Söhne & Co.",
        'The "Service"',
        "Servicio de identificación de la Comunidad Autónoma de Extremadura y sus municipios",
        "身分証明書",
        "💌",
    ],
)
def test_an_odd_sender_name_is_one_name_in_front_of_one_address(name: str) -> None:
    """A comma once made two senders of one."""
    quoted = name.replace('"', '\\"')
    mail = messages(sender=f'"{quoted}" <no-reply@cedula.example>').mail(REGISTRATION)
    shown, address = parseaddr(email.message_from_bytes(mail.content)["From"].replace("\r\n", ""))
    assert str(make_header(decode_header(shown))) == name
    assert address == "no-reply@cedula.example"
    assert mail.sender == "no-reply@cedula.example"


def test_a_sender_without_a_name_is_the_bare_address() -> None:
    """The default, `no-reply@<host name>`."""
    mail = messages(sender="no-reply@cedula.example").mail(REGISTRATION)
    assert parsed(mail)["From"] == "no-reply@cedula.example"


def test_an_operators_template_takes_the_place_of_ours(tmp_path: Path) -> None:
    """One file is enough; the others stay."""
    override(tmp_path, "body.txt", "Grüezi. Ihre Nummer:\n\n{{ number }}\n")
    override(tmp_path, "subject.txt", "Grüezi\n{{ reference }}\n")
    mail = messages(overrides=tmp_path).mail(REGISTRATION)
    assert text_of(mail, "plain").startswith("Grüezi. Ihre Nummer:\n\n4821 0937 5523")
    assert parsed(mail)["Subject"] == f"Grüezi {reference(REGISTRATION.registration_id)}"
    assert "Your identification number" in text_of(mail, "html")


@pytest.mark.parametrize(
    "subject",
    [
        "Su número de identificación de la Comunidad Autónoma de Extremadura y de sus municipios",
        "身分証明書の番号「{{ reference }}」",
        "💌 {{ reference }}",
        "A subject in ASCII that is so long that it would have to be broken somewhere: {{ reference }}",
    ],
)
def test_a_subject_of_any_language_and_length_arrives_as_it_was_written(tmp_path: Path, subject: str) -> None:
    """With its reference, and without a space inside a word."""
    override(tmp_path, "subject.txt", subject)
    mail = messages(overrides=tmp_path).mail(REGISTRATION)
    shown = subject.replace("{{ reference }}", reference(REGISTRATION.registration_id))
    assert parsed(mail)["Subject"] == shown


def test_a_template_may_be_saved_on_windows(tmp_path: Path) -> None:
    """CRLF in the file does not become two line breaks in the mail."""
    override(tmp_path, "body.txt", "Hello\r\n\r\n{{ number }}\r\n")
    mail = messages(overrides=tmp_path).mail(REGISTRATION)
    assert text_of(mail, "plain").splitlines()[:3] == ["Hello", "", "4821 0937 5523"]


BROKEN = {
    "does not show the number": "Your number is on its way.",
    "never ends its expression": "{{ number",
    "asks for something that is not there": "{{ number }} {{ token }}",
    "is not UTF-8": b"\xff\xfe {{ number }}",
    "shows the number in a line that is too long": "w" * 70 + "{{ number }}",
    "shows the reference in a line that is too long": "{{ number }}\n" + "w" * 72 + "{{ reference }}",
    "shows the time in a line that is too long": "{{ number }}\n" + "w" * 60 + "{{ issued_at }}",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_template_that_cannot_be_used_stops_the_start(tmp_path: Path, text: str | bytes) -> None:
    """Now, by name, and not at the first registration."""
    override(tmp_path, "body.txt", "", locale="es").joinpath("number/es/body.txt").write_bytes(
        text.encode() if isinstance(text, str) else text
    )
    with pytest.raises(SettingsError, match="number/es"):
        messages(overrides=tmp_path)
