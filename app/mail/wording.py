"""Durations and times in the words of a language (CLDR, by Babel). Imports of the app only `domain`."""

import math
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Literal

from babel import Locale
from babel.dates import format_date, format_time, format_timedelta, get_datetime_format
from babel.localedata import locale_identifiers

from app.domain.locale import look_up

Unit = Literal["day", "hour", "minute", "second"]

_SECONDS: tuple[tuple[Unit, int], ...] = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))

NO_BREAK = "\u00a0"
"""Keeps a duration on one line."""


@cache
def cldr(language: str) -> Locale | None:
    """The locale data of a language; None where there are none. A private variety, such as `es-x-formal`, has
    those of its language."""
    found = look_up(language, (identifier.replace("_", "-") for identifier in locale_identifiers()))
    return Locale.parse(found, sep="-") if found else None


def duration(language: str, ms: int) -> str:
    """How long that is, in the largest unit of which there are two: `10 minutes`, `90 seconds`.

    Rounds up by at most a hundredth of the duration, and a tenth of the unit: a number of ten minutes has 10
    minutes, not 9, also when its mail goes out after two seconds.
    """
    for unit, seconds in _SECONDS:
        unit_ms = seconds * 1000
        count = (ms + min(ms // 100, unit_ms // 10)) // unit_ms
        if count >= 2:
            return _duration(language, unit, count)
    return _duration(language, "second", 1)


@lru_cache(maxsize=1024)
def _duration(language: str, unit: Unit, count: int) -> str:
    # format_unit knows no days in Italian, Portuguese or Arabic (Babel 2.18).
    length = timedelta(seconds=count * dict(_SECONDS)[unit])
    words = format_timedelta(length, granularity=unit, threshold=math.inf, locale=cldr(language))
    return words.replace(" ", NO_BREAK)


def moment(language: str, unix_s: int) -> str:
    """A time to the minute: `November 14, 2023, 10:13 PM UTC`."""
    return _moment(language, unix_s // 60)


@lru_cache(maxsize=64)
def _moment(language: str, unix_minutes: int) -> str:
    when, locale = datetime.fromtimestamp(unix_minutes * 60, UTC), cldr(language)
    date, time = format_date(when, "long", locale), format_time(when, "short", locale=locale)
    pattern = str(get_datetime_format("long", locale=locale)).replace("'", "")
    return f"{pattern.replace('{1}', date).replace('{0}', time)} UTC"
