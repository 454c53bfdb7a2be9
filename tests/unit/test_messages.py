"""The mail: its envelope, its headers, and what it tells a person."""

import email
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.number import grouped
from app.errors import ServiceUnknown
from app.mail.messages import Mail, Messages, reference
from tests.support.mails import LANGUAGES, PLAIN, REGISTRATION, SHOP, every_mail, messages, parsed, text_of

ONCE = (
    "From",
    "To",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Auto-Submitted",
    "X-Auto-Response-Suppress",
    "Content-Language",
)
NUMBER = grouped(REGISTRATION.number)
ODD_NAMES = [
    "Cedula, Inc.",
    "Müller, Söhne & Co.",
    'The "Service"',
    "Servicio de identificación de la Comunidad Autónoma",
    "A name in ASCII that is as long as the longest may be: sixty",
    "身分証明書",
    "متجر",
    "💌",
    "=?utf-8?q?x?=",
    "100 % {service} %(number)b {{ number }} <b>&amp;",
]


@pytest.fixture(params=LANGUAGES)
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
    assert message["From"] == SHOP.sender
    assert message["Reply-To"] == SHOP.support
    assert message["To"] == "ada@xn--fa-hia.de"
    assert message["Date"].datetime == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert message["Message-ID"] == "<0123456789abcdef0123@acme.example>"
    assert message["Auto-Submitted"] == "auto-generated"


def test_the_envelope_holds_bare_addresses(mail: Mail) -> None:
    """In ASCII, with the domain of IDNA 2008."""
    assert mail.sender == "no-reply@acme.example"
    assert mail.recipient == "ada@xn--fa-hia.de"


def test_without_a_support_address_there_is_no_reply_to() -> None:
    """Answers go where the mail came from, and no line offers another place."""
    mail = messages(PLAIN).mail(REGISTRATION)
    assert parsed(mail)["Reply-To"] is None
    assert "questions" not in text_of(mail, "plain")


def test_a_support_address_of_any_script_stands_in_the_header_in_ascii() -> None:
    """And as it is in the text."""
    mail = messages(replace(SHOP, support="hilfe@müller.example.com")).mail(REGISTRATION)
    assert parsed(mail)["Reply-To"] == "hilfe@xn--mller-kva.example.com"
    assert "hilfe@müller.example.com" in text_of(mail, "plain")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["plain", "html"])
def test_both_parts_say_all_that_a_person_must_know(language: str, kind: str) -> None:
    """Who asks, the number, whom to ask, and what tells this mail from others. How long: the next test."""
    text = text_of(messages().mail(REGISTRATION._replace(locale=language)), kind)
    assert text.count(NUMBER) == 1
    assert text.count("Acme Shop") >= 3
    assert "help@acme.example" in text
    assert reference(REGISTRATION.registration_id) in text
    assert "2023" in text
    assert "UTC" in text
    assert "Cedula" not in text


@pytest.mark.parametrize(
    ("language", "left_ms", "words"),
    [
        ("en", 600_000, "works for 10 minutes after"),
        ("en", 598_000, "works for 10 minutes after"),
        ("en", 86_398_000, "works for 24 hours after"),
        ("en", None, "works until you use it"),
        ("es", 90_000, "durante 90 segundos"),
        ("pt", 3 * 86_400_000, "por 3 dias"),
        ("fr", 7_200_000, "valable 2 heures"),
        ("de", 600_000, "10 Minuten gültig"),
        ("it", 7 * 86_400_000, "per 7 giorni"),
        ("ar", 7_200_000, "مدة صلاحية الرقم ساعتان"),
    ],
)
def test_a_mail_says_how_long_the_number_is_good(language: str, left_ms: int | None, words: str) -> None:
    """From when it goes out, in the person's words."""
    mail = messages().mail(REGISTRATION._replace(locale=language, left_ms=left_ms))
    for kind in ("plain", "html"):
        assert words in text_of(mail, kind).replace("\u00a0", " ").replace("\n", " ")


def test_the_mail_is_written_in_the_language_that_serves_the_wish() -> None:
    """The request's tag, else the service's language, else English; a header says which."""
    spanish = replace(SHOP, locale="es")
    for service, wish, language in (
        (SHOP, "es-MX", "es"),
        (SHOP, "PT-br", "pt"),
        (spanish, "", "es"),
        (spanish, "nl", "es"),
        (replace(SHOP, locale="nl"), "ja", "en"),
        (spanish, "en", "en"),
    ):
        mail = messages(service).mail(REGISTRATION._replace(locale=wish))
        assert parsed(mail)["Content-Language"] == language
        assert messages(service).shown(REGISTRATION._replace(locale=wish)).locale == language
        assert f'<html lang="{language}"' in text_of(mail, "html")


def test_there_is_no_link_in_it(mail: Mail) -> None:
    """A mail that asks for a number and offers a link teaches people to be phished. The logo is a picture."""
    for kind in ("plain", "html"):
        text = text_of(mail, kind).lower().replace(f'<img src="{SHOP.logo}"', "")
        assert re.search(r"https?:|href|src=|mailto", text) is None


def test_the_number_is_in_the_subject_where_the_service_wants_it() -> None:
    """Subjects show on locked screens and in the logs of mail servers, so it is not there by default."""
    for language in LANGUAGES:
        registration = REGISTRATION._replace(locale=language)
        without = parsed(messages().mail(registration))["Subject"]
        assert re.search(r"\d", without) is None
        with_it = parsed(messages(replace(SHOP, subject_number=True)).mail(registration))["Subject"]
        assert with_it.lstrip("\u200e ").startswith(f"{NUMBER} ")
        for subject in (without, with_it):
            assert "Acme Shop" in subject
            assert subject.endswith(f" ({reference(REGISTRATION.registration_id)})")


def test_the_number_stands_in_the_subject_in_plain_ascii() -> None:
    """So that a phone finds it; the words around it are encoded."""
    mail = messages(replace(SHOP, subject_number=True)).mail(REGISTRATION._replace(locale="de"))
    assert re.search(rb"\r\nSubject: 482 109 3753\s+=\?utf-8\?", mail.content)


@pytest.mark.parametrize("kind", ["plain", "html"])
def test_what_is_shown_is_what_is_mailed(kind: str) -> None:
    """`shown` is for those who look at a mail: of a test service, or of a preview."""
    for name, service, registration in every_mail():
        shown, mail = messages(service).shown(registration), messages(service).mail(registration)
        assert text_of(mail, kind).rstrip("\n") == (shown.text if kind == "plain" else shown.html), name
        assert parsed(mail)["Subject"] == shown.subject, name
        assert (shown.number, shown.to, shown.sender) == (registration.number, "ada@faß.de", service.sender)


@pytest.mark.parametrize("subject_number", [False, True])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_service_may_have_any_name(name: str, subject_number: bool) -> None:
    """It arrives as it is: in the subject, in both parts, and as nobody's markup, format or header."""
    service = replace(SHOP, name=name, subject_number=subject_number)
    for language in LANGUAGES:
        registration = REGISTRATION._replace(locale=language)
        mail = messages(service).mail(registration)
        assert name in parsed(mail)["Subject"]
        assert name in text_of(mail, "plain").replace("\n", " ")
        assert "<b>" not in text_of(mail, "html")
        assert max(map(len, head(mail))) < 78


def test_no_name_and_no_sender_makes_a_header() -> None:
    """They are checked where they are read; this is for those that are not."""
    service = replace(SHOP, name="Shop\r\nBcc: eve@example.com", sender="A\r\nX: y <a@acme.example>")
    message = parsed(messages(service).mail(REGISTRATION))
    assert message["Bcc"] is None
    assert message["X"] is None


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_sender_name_is_one_name_in_front_of_one_address(name: str) -> None:
    """A comma once made two senders of one."""
    quoted = name.replace('"', '\\"')
    mail = messages(replace(SHOP, sender=f'"{quoted}" <no-reply@acme.example>')).mail(REGISTRATION)
    shown, address = parseaddr(re.sub(r"\r\n(?= )", "", email.message_from_bytes(mail.content)["From"]))
    assert str(make_header(decode_header(shown))) == name
    assert address == mail.sender == "no-reply@acme.example"


def test_a_sender_without_a_name_is_the_bare_address() -> None:
    """The default, `no-reply@<host name>`."""
    mail = messages(replace(SHOP, sender="no-reply@acme.example")).mail(REGISTRATION)
    assert parsed(mail)["From"] == "no-reply@acme.example"


def test_a_repeat_is_the_same_mail_and_a_resend_is_another() -> None:
    """A repeat has the same Message-ID, also from another process, so mail programs show it once."""
    composed = messages()
    assert composed.mail(REGISTRATION) == messages().mail(REGISTRATION._replace(attempts=3))
    resend = parsed(composed.mail(REGISTRATION._replace(resends=1)))
    assert resend["Message-ID"] == "<0123456789abcdef0123-1@acme.example>"


def test_with_a_bounce_address_a_mail_goes_out_under_its_tag() -> None:
    """In the envelope, where its report goes, and in the Message-ID, which some reports bring back alone. The
    rest of the mail is as it was."""
    tagged = Messages({"shop": SHOP}.get, "bounce@acme.example", lambda mail: f"tag{mail.resends}")
    for resends in (0, 1):
        registration = REGISTRATION._replace(resends=resends)
        mail, plain = tagged.mail(registration), messages().mail(registration)
        assert mail.sender == f"bounce+tag{resends}@acme.example"
        assert parsed(mail)["Message-ID"] == f"<tag{resends}@acme.example>"
        assert parsed(mail)["From"] == SHOP.sender
        untagged = f"<{registration.mail_id}@acme.example>".encode()
        assert mail.content.replace(f"<tag{resends}@acme.example>".encode(), untagged) == plain.content


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


@pytest.mark.parametrize("digits", range(10, 19))
def test_numbers_of_every_length_are_shown(digits: int) -> None:
    """Also in a subject, whose lines stay short."""
    number = "123456789012345678"[:digits]
    mail = messages(replace(SHOP, subject_number=True)).mail(REGISTRATION._replace(number=number))
    assert grouped(number) in text_of(mail, "plain")
    assert grouped(number) in text_of(mail, "html")
    assert grouped(number) in parsed(mail)["Subject"]
    assert max(map(len, head(mail))) < 78


def test_the_mail_of_a_service_that_is_gone_is_not_composed() -> None:
    """It waits."""
    for ask in (messages().mail, messages().shown):
        with pytest.raises(ServiceUnknown):
            ask(REGISTRATION._replace(service="gone"))


def test_a_service_that_was_read_anew_has_its_new_mail() -> None:
    """Also where nothing but a template has changed, which makes two services equal."""
    services = {"shop": replace(SHOP, templates={"en.toml": 'title = "The old one"'})}
    composed = Messages(services.get)
    assert "The old one" in text_of(composed.mail(REGISTRATION), "plain")
    services["shop"] = replace(SHOP, templates={"en.toml": 'title = "The new one"'})
    assert "The new one" in text_of(composed.mail(REGISTRATION), "plain")


@given(
    name=st.text(st.characters(exclude_categories=("Cc", "Cs", "Co", "Zl", "Zp")), min_size=1, max_size=60)
)
def test_any_name_gives_a_mail_that_can_be_read(name: str) -> None:
    """Headers in ASCII and in short lines, bodies in lines of 76 characters."""
    mail = messages(replace(SHOP, name=name, subject_number=True)).mail(REGISTRATION)
    assert mail.content.isascii()
    assert max(map(len, head(mail))) < 78
    assert max(map(len, mail.content.split(b"\r\n"))) <= 77  # 76, and a doubled dot
    assert NUMBER in parsed(mail)["Subject"]
    assert text_of(mail, "plain").startswith(name)


def head(mail: Mail) -> list[bytes]:
    """The lines of the headers."""
    return mail.content.split(b"\r\n\r\n", 1)[0].split(b"\r\n")


class Counted(Mapping[str, str]):
    """Templates that count how often a composition asks for them."""

    def __init__(self) -> None:
        self.asked = 0

    def __getitem__(self, name: str) -> str:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        self.asked += 1
        return iter(())

    def __len__(self) -> int:
        return 0


def test_a_thousand_services_in_turn_are_composed_once_each() -> None:
    """Composing anew costs several times what the rest of a registration does."""
    templates = {f"s{n}": Counted() for n in range(1000)}
    services = {name: replace(SHOP, id=name, templates=each) for name, each in templates.items()}
    ours = Messages(services.get)
    asked: list[int] = []
    for _ in range(2):
        for name in services:
            ours.mail(REGISTRATION._replace(service=name))
        asked.append(sum(each.asked for each in templates.values()))
    assert asked[0] > 0
    assert asked[1] == asked[0]
