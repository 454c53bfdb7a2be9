"""Placeholder until the real one is merged."""

import re

MAX_TAG_LENGTH = 35


def is_tag(text: str) -> bool:
    return (
        re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", text) is not None and len(text) <= MAX_TAG_LENGTH
    )
