"""Languages and layouts: the built-in ones, a service's own, and what is told of one that cannot be used."""

import string
import tomllib
from dataclasses import replace

import pytest

from app import config
from app.domain.service import Service
from app.mail.languages import MUST_SHOW, NUMBER_FIRST, available, built_in, chosen
from app.mail.messages import faults
from tests.support.mails import LANGUAGES, REGISTRATION, SHOP, messages, parsed, text_of

DUTCH = {key: f"nl {''.join(f'{{{field}}}' for field in sorted(shown))}" for key, shown in MUST_SHOW.items()}
DUTCH["subject_with_number"] = "{number} nl {service}"


def toml(sentences: dict[str, str]) -> str:
    return "\n".join(f"{key} = '{sentence}'" for key, sentence in sentences.items())


def with_files(**files: str) -> Service:
    """The shop with files of its own; `_html` stands for `.html`."""
    return replace(SHOP, templates={name.replace("_", "."): source for name, source in files.items()})


def test_seven_languages_are_built_in() -> None:
    """One file each, and one layout for all."""
    assert set(LANGUAGES) == {"en", "es", "pt", "fr", "de", "it", "ar"}
    assert set(config.LANGUAGES) == set(LANGUAGES), "what DEFAULT_LOCALE may be"
    assert set(built_in()) == {*(f"{language}.toml" for language in LANGUAGES), "number.html", "number.txt"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_sentence_and_no_other(language: str) -> None:
    """In one order, so that two can be read side by side."""
    sentences = tomllib.loads(built_in()[f"{language}.toml"])
    assert list(sentences) == list(MUST_SHOW)
    assert faults(SHOP) == []


def test_every_sentence_is_used() -> None:
    """Each is seen in some mail once it says something else."""
    for key, sentence in tomllib.loads(built_in()["en.toml"]).items():
        service = with_files(en_toml=toml({key: f"{sentence} seen"}))
        service = replace(service, subject_number=key == "subject_with_number")
        left_ms = None if key == "life_without_end" else 600_000
        shown = messages(service).shown(REGISTRATION._replace(left_ms=left_ms))
        assert "seen" in shown.subject + shown.text, key
        if not key.startswith("subject"):
            assert "seen" in shown.html, key


def test_fields_of_sentences_are_those_that_are_declared() -> None:
    """`{service}` may be in each."""
    for language in LANGUAGES:
        for key, sentence in tomllib.loads(built_in()[f"{language}.toml"]).items():
            fields = {field for _, field, _, _ in string.Formatter().parse(sentence) if field}
            assert MUST_SHOW[key] <= fields <= MUST_SHOW[key] | {"service"}, (language, key)


def test_a_sentence_of_the_service_takes_the_place_of_ours() -> None:
    """The others of that language stay; so do the other languages."""
    service = with_files(es_toml="title = 'Hola'")
    spanish = messages(service).shown(REGISTRATION._replace(locale="es"))
    assert "Hola" in spanish.text
    assert "Hola" in spanish.html
    assert "Ingrese su número para" in spanish.text
    assert "Hola" not in messages(service).shown(REGISTRATION).text


def test_a_new_language_is_one_file() -> None:
    """With dates and durations of its own."""
    service = with_files(nl_toml=toml(DUTCH))
    mail = messages(service).mail(REGISTRATION._replace(locale="nl-BE"))
    assert parsed(mail)["Content-Language"] == "nl"
    assert "nl 10\u00a0minuten" in text_of(mail, "plain")
    assert "14 november 2023" in text_of(mail, "html")
    assert faults(service) == []


def test_a_language_that_is_written_from_right_to_left_is_shown_so() -> None:
    """Known by its tag."""
    service = with_files(he_toml=toml(DUTCH))
    shown = messages(service).shown(REGISTRATION._replace(locale="he"))
    assert '<html lang="he" dir="rtl">' in shown.html
    assert "\u200e482 109 3753\u200e" in shown.text


def test_a_variety_of_a_language_needs_only_what_differs() -> None:
    """`es-AR` is Spanish but for the sentences in its file; so is a private one such as `es-x-formal`."""
    for tag in ("es-AR", "es-x-formal"):
        service = replace(SHOP, templates={f"{tag}.toml": "title = 'Che'"})
        shown = messages(service).shown(REGISTRATION._replace(locale=tag))
        assert (shown.locale, "Che" in shown.text, "Ingrese su número" in shown.text) == (tag, True, True)
        assert "de noviembre de" in shown.text
        assert messages(service).shown(REGISTRATION._replace(locale="es")).locale == "es"


def test_which_language_somebody_gets() -> None:
    """The nearest, else the service's, else English."""
    service = replace(with_files(nl_toml=toml(DUTCH)), locale="fr-CA")
    assert set(available(service)) == {*LANGUAGES, "nl"}
    wishes = {"nl": "nl", "NL-be": "nl", "ja": "fr", "": "fr", "zh-Hant-TW": "fr", "i-klingon": "fr"}
    assert {wish: chosen(service, wish) for wish in wishes} == wishes
    assert chosen(replace(SHOP, locale="ja"), "ko") == "en"


def test_a_layout_of_the_service_takes_the_place_of_ours() -> None:
    """It may show the brand, the sentences and the values; a line may be as long as it likes."""
    text = (
        "w" * 200 + "{{ number }}" + "w" * 200 + "\n.\n..\n{{ service.name }} {{ intro }} {{ reference }} %s"
    )
    service = with_files(number_txt=text.replace("\n", "\r\n"))
    shown = text_of(messages(service).mail(REGISTRATION), "plain").splitlines()
    assert shown[0] == "w" * 200 + "482 109 3753" + "w" * 200
    assert shown[1:3] == [".", ".."]
    assert shown[3].startswith("Acme Shop To finish registering")
    assert shown[3].endswith(" %s")
    assert "Confirm your email" in text_of(messages(service).mail(REGISTRATION), "html")


def test_what_a_layout_shows_is_escaped_in_html_alone() -> None:
    """A name is a text, whatever is in it."""
    service = replace(SHOP, name="A & <i>B</i>", support="")
    shown = messages(service).shown(REGISTRATION)
    assert "<bdi>A &amp; &lt;i&gt;B&lt;/i&gt;</bdi>" in shown.html
    assert "A & <i>B</i>" in shown.text


WRONG = {
    "a layout reaches into the process": (
        {"number_txt": "{{ number }}\n{{ cycler.__init__.__globals__.os.environ }}"},
        "number.txt, line 2: access to attribute '__init__' of 'type' object is unsafe.",
    ),
    "a layout has a mark of its own": (
        {"number_txt": "{{ number }} \ue000to\ue001 \ue000nothing\ue001"},
        "number.txt: Shows nothing, to between private characters (U+E000, U+E001).",
    ),
    "a sentence has a mark of its own": (
        {"es_toml": "subject = '{service} \ue000nothing\ue001'"},
        "es.toml, line 1: subject must be one line, without control or private characters.",
    ),
    "a layout names what is not there": (
        {"number_html": "<p>{{ number }}</p>\n<p>{{ nubmer }}</p>"},
        "number.html, line 2: 'nubmer' is undefined.",
    ),
    "a layout asks a service for what it has not": (
        {"number_txt": "{{ number }}\n\n\n{{ service.nmae }}"},
        "number.txt, line 4: 'app.mail.rendering.Brand object' has no attribute 'nmae'.",
    ),
    "a layout asks a service for its secrets": (
        {"number_txt": "{{ number }}\n{{ service.events.secrets }}"},
        "number.txt, line 2: 'app.mail.rendering.Brand object' has no attribute 'events'.",
    ),
    "a layout cannot be read": (
        {"number_html": "{{ number }}\n{% if %}"},
        "number.html, line 2: Expected an expression, got 'end of statement block'",
    ),
    "a layout reckons with a text": (
        {"number_txt": "{{ number }}\n{{ number / 2 }}"},
        "number.txt, line 2: unsupported operand type(s) for /: 'str' and 'int'.",
    ),
    "a layout does not show the number": ({"number_txt": "Hello"}, "number.txt: Must show {{ number }}."),
    "a layout changes the value of each mail": (
        {"number_txt": "{{ number }}\n{{ life | upper }}"},
        "number.txt: Changes number, reference, issued_at or duration, which can only be shown as they are.",
    ),
    "a layout shows half a character": (
        {"number_txt": "{{ number }}\n{{ '\\ud800' }}"},
        "number.txt: Shows half a character (a lone surrogate).",
    ),
    "a sentence names what is not there": (
        {"es_toml": "# ours\n\ntitle = 'Hola {nombre}'"},
        "es.toml, line 3: title asks for {nombre}; it may have {service}.",
    ),
    "a sentence reaches into an object": (
        {"es_toml": "title = '{service.__class__}'"},
        "es.toml, line 1: title asks for {service.__class__}; it may have {service}.",
    ),
    "a sentence formats": (
        {"es_toml": "title = '{service:>99999999}'"},
        "es.toml, line 1: title shows {service} in a format or a conversion; the name alone is known.",
    ),
    "a sentence does not show what it must": (
        {"de_toml": "life = 'Nicht mehr lange.'"},
        "de.toml, line 1: life must show {duration}.",
    ),
    "a brace is alone": (
        {"de_toml": "title = 'Hallo {'"},
        "de.toml, line 1: title has a brace without its other half; {{ and }} are shown as one.",
    ),
    "a sentence is unknown": (
        {"de_toml": "titel = 'Hallo'"},
        f"de.toml, line 1: titel is not among the sentences: {', '.join(MUST_SHOW)}.",
    ),
    "a sentence is no text": (
        {"de_toml": "title = 1"},
        "de.toml, line 1: title must be a text that is not empty.",
    ),
    "a sentence has two lines": (
        {"de_toml": 'title = """Hallo\nDu"""'},
        "de.toml, line 1: title must be one line, without control or private characters.",
    ),
    "the number is not first in its subject": (
        {"de_toml": "subject_with_number = 'Nummer {number} für {service}'"},
        f'de.toml, line 1: subject_with_number must begin with "{NUMBER_FIRST}".',
    ),
    "a file is no TOML": (
        {"de_toml": "title = 'Hallo'\ntitle"},
        "de.toml: Expected '=' after a key in a key/value pair (at end of document).",
    ),
    "a new language lacks sentences": (
        {"nl_toml": "title = 'Hoi'"},
        f"nl.toml: Lacks {', '.join(key for key in MUST_SHOW if key != 'title')}.",
    ),
    "nothing is known of a language": (
        {"tlh_toml": toml(DUTCH)},
        "tlh.toml: Nothing is known of this language's dates and durations.",
    ),
    "a file has an unknown name": (
        {"nmuber_html": "{{ number }}"},
        "nmuber.html: Must be number.html, number.txt or <language tag>.toml.",
    ),
}


@pytest.mark.parametrize(("files", "fault"), WRONG.values(), ids=WRONG)
def test_a_template_that_cannot_be_used_is_told_with_file_line_and_name(
    files: dict[str, str], fault: str
) -> None:
    """At the start, and not at the first mail."""
    service = with_files(**files)
    assert faults(service) == [fault]


@pytest.mark.parametrize("value", ["[" * 2000 + "]" * 2000, "9" * 5000], ids=["nested", "huge"])
def test_a_file_that_toml_itself_trips_over_is_told(value: str) -> None:
    """Nested too deeply, or a number too long to be read: no TOMLDecodeError, and yet no file to use."""
    (fault,) = faults(with_files(de_toml=f"title = {value}"))
    assert fault.startswith("de.toml: ")


def test_every_fault_is_told_at_once() -> None:
    """Each once, whatever the number of languages that meet it."""
    service = with_files(
        number_html="{{ nubmer }}",
        de_toml="titel = ''\nlife = 'x'",
        es_toml="title = ''",
        nl_toml=toml(DUTCH),
    )
    starts = sorted(fault.split(":")[0] for fault in faults(service))
    assert starts == ["de.toml, line 1", "de.toml, line 2", "es.toml, line 1", "number.html, line 1"]


def test_the_built_in_templates_have_no_fault() -> None:
    """Of any service."""
    assert faults(SHOP) == faults(Service()) == []
