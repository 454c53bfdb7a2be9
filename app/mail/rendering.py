"""From a service's brand, sentences and layout to what its mails say, with a mark for each mail's own values.

Imports of the app only `domain`, `errors` and the room.
"""

import re
import traceback
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from babel import Locale
from jinja2 import Environment, FunctionLoader, StrictUndefined, TemplateSyntaxError, select_autoescape
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from app.domain.service import Service
from app.errors import SettingsError
from app.mail.colors import accent
from app.mail.languages import LAYOUTS, built_in, sentences
from app.mail.wording import cldr

VALUES: Final = ("number", "reference", "issued_at", "duration")
"""Each mail's own values, in its subject and its bodies."""

MARK: Final = re.compile("\ue000([a-z_]+)\ue001")
"""Stands for such a value: its name between two private-use characters."""

SURROGATE: Final = re.compile("[\ud800-\udfff]")

LRM: Final = "\u200e"
"""Left-to-right mark: without it the groups of a number stand in the wrong order in Arabic."""


class Brand(NamedTuple):
    """What a layout sees of a service, which also holds the secrets that sign its events."""

    id: str
    name: str
    support: str
    color: str
    logo: str

    @classmethod
    def of(cls, service: Service) -> Self:
        return cls(service.id, service.name, service.support, service.color, service.logo)


class Rendered(NamedTuple):
    """What a mail says, with a mark for each of its values."""

    subject: str
    text: str
    html: str

    def filled(self, values: Mapping[str, str]) -> "Rendered":
        """The same with a mail's values in place of the marks."""
        return Rendered(*(MARK.sub(lambda found: values[found[1]], part) for part in self))


def mark(name: str) -> str:
    return f"\ue000{name}\ue001"


def render(service: Service, language: str, *, endless: bool) -> Rendered:
    """What the service's mails in this language say. `endless`: the number has no end but its use.

    Raises SettingsError, with file, line and variable, where a template or a sentence cannot be used.
    """
    locale = cldr(language)
    if locale is None:
        raise SettingsError(f"{language}.toml: Nothing is known of this language's dates and durations.")
    said = sentences(service, language)
    said = {**said, "life": said["life_without_end" if endless else "life"]}
    html, text = (_layout(service, name, _names(service, language, locale, said, name)) for name in LAYOUTS)
    return Rendered(_subject(service, said, locale), text, html)


def _subject(service: Service, said: Mapping[str, str], locale: Locale) -> str:
    number = mark("number")
    if locale.text_direction == "rtl":
        number = f"{LRM} {number} {LRM}"
    sentence = said["subject_with_number" if service.subject_number else "subject"]
    return f"{sentence.format(service=service.name, number=number)} ({mark('reference')})"


def _names(
    service: Service, language: str, locale: Locale, said: Mapping[str, str], layout: str
) -> dict[str, Any]:
    """Everything that a layout can show, by name."""
    values = {name: mark(name) for name in VALUES}
    in_html = layout.endswith(".html")
    fields = {"service": service.name, "support": service.support}
    if in_html:
        fields = {name: Markup("<bdi>{}</bdi>").format(value) for name, value in fields.items()}
    rtl = locale.text_direction == "rtl"
    return {
        **{
            key: (escape(sentence) if in_html else sentence).format(**values, **fields)
            for key, sentence in said.items()
        },
        **values,
        "service": Brand.of(service),
        "accent": accent(service.color),
        "language": language,
        "direction": "rtl" if rtl else "ltr",
        "start": "right" if rtl else "left",
        "lrm": LRM if rtl else "",
    }


def _layout(service: Service, name: str, names: Mapping[str, Any]) -> str:
    sources = {**built_in(), **service.templates}
    environment = _environment(*(sources[layout] for layout in LAYOUTS))
    try:
        shown = environment.get_template(name).render(names)
    except TemplateSyntaxError as error:
        raise SettingsError(f"{name}, line {error.lineno}: {error.message}") from error
    except Exception as error:  # the expressions of a template may raise anything
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name
        ]
        raise SettingsError(f"{name}, line {lines[-1] if lines else 1}: {str(error).rstrip('.')}.") from error
    if fault := _fault(shown):
        raise SettingsError(f"{name}: {fault}")
    return shown


def _fault(shown: str) -> str:
    """What is wrong with what a layout shows; empty where nothing is."""
    if mark("number") not in shown:
        return "Must show {{ number }}."
    if unknown := set(MARK.findall(shown)) - set(VALUES):
        return f"Shows {', '.join(sorted(unknown))} between private characters (U+E000, U+E001)."
    if set(MARK.sub("", shown)) & set(mark("")):
        return f"Changes {', '.join(VALUES[:-1])} or {VALUES[-1]}, which can only be shown as they are."
    if SURROGATE.search(shown):
        return "Shows half a character (a lone surrogate)."
    return ""


@lru_cache(maxsize=16)
def _environment(*sources: str) -> Environment:
    """For layouts with these sources. Kept, since compiling them costs more than everything else here.

    It is a sandbox: a brand's author need not be allowed to read the secrets of this process.
    """
    layouts = dict(zip(LAYOUTS, sources, strict=True))
    return ImmutableSandboxedEnvironment(
        loader=FunctionLoader(lambda name: (layouts[name], name, None) if name in layouts else None),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
