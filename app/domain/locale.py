"""Language tags: which are well-formed, and which language serves one. Imports nothing of the app."""

import re
from collections.abc import Iterable

MAX_TAG_LENGTH = 35
"""Characters in a tag: what RFC 5646 §4.4.1 says an implementation should take at least."""

_LANGTAG = re.compile(
    r"(?:[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})"  # language, with extended language
    r"(?:-[a-z]{4})?"  # script
    r"(?:-(?:[a-z]{2}|[0-9]{3}))?"  # region
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants
    r"(?:-[a-wyz0-9](?:-[a-z0-9]{2,8})+)*"  # extensions
    r"(?:-x(?:-[a-z0-9]{1,8})+)?"  # private use
    r"|x(?:-[a-z0-9]{1,8})+",
    re.ASCII | re.IGNORECASE,
)

_IRREGULAR = frozenset(
    {"en-gb-oed", "i-ami", "i-bnn", "i-default", "i-enochian", "i-hak", "i-klingon", "i-lux", "i-mingo"}
    | {"i-navajo", "i-pwn", "i-tao", "i-tay", "i-tsu", "sgn-be-fr", "sgn-be-nl", "sgn-ch-de"}
)
"""Grandfathered tags that the syntax does not cover. The other grandfathered ones fit it."""


def is_tag(text: str) -> bool:
    """Whether this is a well-formed BCP 47 tag (RFC 5646 §2.1) of at most `MAX_TAG_LENGTH` characters."""
    if len(text) > MAX_TAG_LENGTH:
        return False
    return _LANGTAG.fullmatch(text) is not None or text.lower() in _IRREGULAR


def look_up(tag: str, available: Iterable[str]) -> str | None:
    """Which of the available tags serves this one, by RFC 4647 §3.4; None = none.

    The tag loses its last subtag until one fits: `zh-Hant-TW` is served by `zh-Hant`, else by `zh`. Case
    does not matter; what is returned is spelled as in `available`, the first where several differ in case.
    """
    known: dict[str, str] = {}
    for each in available:
        known.setdefault(each.lower(), each)
    subtags = tag.lower().split("-")
    while subtags:
        if found := known.get("-".join(subtags)):
            return found
        subtags.pop()
        while subtags and len(subtags[-1]) == 1:  # it introduced what was just removed
            subtags.pop()
    return None
