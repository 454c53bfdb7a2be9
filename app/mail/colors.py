"""A brand's colour, made readable. Imports nothing of the app."""

from typing import NamedTuple

BUILT_IN = "#1f5f8b"
"""The colour of a service that has none."""

LIGHT_GROUND = "#ffffff"
DARK_GROUND = "#1c2127"
"""The backgrounds of number.html, which names them, too."""

READABLE = 4.5
"""Contrast of text, at least (WCAG 2.2, 1.4.3)."""

_STEPS = 50


class Accent(NamedTuple):
    """A brand's colour as `#rrggbb`: for the light ground and for the dark one."""

    light: str
    dark: str


def accent(color: str) -> Accent:
    """The colour, darkened or lightened only until it is readable; empty = the built-in one."""
    color = color or BUILT_IN
    return Accent(
        light=_towards("#000000", color, LIGHT_GROUND), dark=_towards("#ffffff", color, DARK_GROUND)
    )


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _towards(end: str, color: str, ground: str) -> str:
    """The first colour between `color` and `end` that is readable on the ground."""
    mixes = (_mix(color, end, step / _STEPS) for step in range(_STEPS + 1))
    return next(mix for mix in mixes if contrast(mix, ground) >= READABLE)


def _mix(one: str, other: str, share: float) -> str:
    mixed = (round(a + (b - a) * share) for a, b in zip(_channels(one), _channels(other), strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(color: str) -> bytes:
    return bytes.fromhex(color.removeprefix("#"))


def _luminance(color: str) -> float:
    red, green, blue = (_linear(channel / 255) for channel in _channels(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
