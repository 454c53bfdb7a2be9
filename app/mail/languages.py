"""The languages of a service's mails, and the sentences of each.

A language is one file, `<tag>.toml`: the built-in ones lie in `app/templates/mail`, a service's own in its
`templates`. A service's file replaces single sentences of the built-in language, of which it may be a
variety; a file of a new language needs all sentences. Imports of the app only `domain` and `errors`.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from string import Formatter

from app.domain.locale import is_tag, look_up
from app.domain.service import Service
from app.errors import SettingsError

LAST_RESORT = "en"

MUST_SHOW: Mapping[str, frozenset[str]] = {
    "subject": frozenset({"service"}),
    "subject_with_number": frozenset({"number", "service"}),
    "title": frozenset(),
    "intro": frozenset({"service"}),
    "life": frozenset({"duration"}),
    "life_without_end": frozenset(),
    "warning": frozenset(),
    "nobody_asks": frozenset(),
    "newest": frozenset(),
    "not_you": frozenset(),
    "questions": frozenset({"support"}),
    "reference_line": frozenset({"reference", "issued_at"}),
}
"""Every sentence, with the fields that it must show. `{service}` may stand in each."""

NUMBER_FIRST = "{number} "
"""How `subject_with_number` begins, so that the number is visible also where the subject is cut off."""

LAYOUTS = ("number.html", "number.txt")
SENTENCES = ".toml"


@cache
def built_in() -> Mapping[str, str]:
    """The built-in templates, by file name. They are read once: clear the cache after an edit."""
    return {file.name: file.read_text("utf-8") for file in files("app").joinpath("templates/mail").iterdir()}


def available(service: Service) -> tuple[str, ...]:
    """The tags of the languages that the service has. Raises SettingsError for a file that is no template."""
    for name in service.templates:
        if name not in LAYOUTS and not (name.endswith(SENTENCES) and is_tag(_tag(name))):
            raise SettingsError(f"{name}: Must be number.html, number.txt or <language tag>.toml.")
    return tuple(dict.fromkeys((*_tags(service.templates), *_tags(built_in()))))


def chosen(service: Service, tag: str) -> str:
    """The language of a mail to somebody who wants `tag` (empty = no wish): the closest one, else the
    service's own, else English."""
    languages = available(service)
    return look_up(tag, languages) or look_up(service.locale, languages) or LAST_RESORT


def sentences(service: Service, language: str) -> Mapping[str, str]:
    """Every sentence by its name. Raises SettingsError, which lists what is wrong in the language's file."""
    name = language + SENTENCES
    base = look_up(language, _tags(built_in()))
    found = tomllib.loads(built_in()[base + SENTENCES]) if base else {}
    if name in service.templates:
        found |= _read(name, service.templates[name])
    missing = [key for key in MUST_SHOW if key not in found]
    if missing:
        raise SettingsError(f"{name}: Lacks {', '.join(missing)}.")
    return found


def _tags(templates: Mapping[str, str]) -> Iterator[str]:
    return (_tag(name) for name in sorted(templates) if name.endswith(SENTENCES))


def _tag(name: str) -> str:
    return name.removesuffix(SENTENCES)


def _read(name: str, source: str) -> dict[str, str]:
    try:
        found = tomllib.loads(source)
    except (ValueError, RecursionError) as error:  # the text of a TOMLDecodeError names line and column
        raise SettingsError(f"{name}: {error}.") from error
    faults = [
        f"{name}, line {_line(source, key)}: {key} {fault}"
        for key, sentence in found.items()
        for fault in _faults(key, sentence)
    ]
    if faults:
        raise SettingsError("\n".join(faults))
    return found


def _faults(key: str, sentence: object) -> Iterator[str]:
    """What is wrong with a sentence; the words follow its name."""
    if key not in MUST_SHOW:
        yield f"is not among the sentences: {', '.join(MUST_SHOW)}."
    elif not isinstance(sentence, str) or not sentence.strip():
        yield "must be a text that is not empty."
    elif any(unicodedata.category(character) in ("Cc", "Co", "Zl", "Zp") for character in sentence):
        yield "must be one line, without control or private characters."
    else:
        yield from _faults_of_fields(key, sentence)


def _faults_of_fields(key: str, sentence: str) -> Iterator[str]:
    try:
        parts = [part for part in Formatter().parse(sentence) if part[1] is not None]
    except ValueError:
        yield "has a brace without its other half; {{ and }} are shown as one."
        return
    may_show = MUST_SHOW[key] | {"service"}
    for _, field, specification, conversion in parts:
        if field not in may_show:
            known = ", ".join(f"{{{each}}}" for each in sorted(may_show))
            yield f"asks for {{{field}}}; it may have {known}."
        elif specification or conversion:
            yield f"shows {{{field}}} in a format or a conversion; the name alone is known."
    for field in sorted(MUST_SHOW[key] - {part[1] for part in parts}):
        yield f"must show {{{field}}}."
    if "number" in MUST_SHOW[key] and not sentence.startswith(NUMBER_FIRST):
        yield f'must begin with "{NUMBER_FIRST}".'


def _line(source: str, key: str) -> int:
    """Where the sentence begins."""
    found = re.search(rf"""^[ \t]*["']?{re.escape(key)}["']?[ \t]*=""", source, re.MULTILINE)
    return source.count("\n", 0, found.start()) + 1 if found else 1
