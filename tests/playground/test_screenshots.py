"""The pictures of the README can be taken anew."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.playground.screenshots import take

pytestmark = pytest.mark.system


def test_the_pictures_are_taken_in_light_and_in_dark(chromium: Browser, url: str, tmp_path: Path) -> None:
    """Two different ones, as WebP."""
    light, dark = (path.read_bytes() for path in take(chromium, url, tmp_path))
    assert light != dark
    for picture in (light, dark):
        assert (picture[:4], picture[8:12]) == (b"RIFF", b"WEBP")
