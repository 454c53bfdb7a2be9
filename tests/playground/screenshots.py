"""The pictures of the playground in the README: `make screenshots`.

One person's whole way is played, and shown in light and in dark. The pictures change with each run: ids and
times are in them.
"""

import base64
import sys
import tempfile
from pathlib import Path
from typing import Literal

import requests
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium_running
from tests.support.dev_run import running
from tests.support.servers import ROOT

INTO = ROOT / "docs/images"
SIZE = (1280, 960)
SCALE = 1.5
"""Sharp also on a dense screen."""

CONVERT = """
async (png) => {
  const image = new Image();
  image.src = png;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").drawImage(image, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/webp", quality: 0.8 });
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(blob);
  });
}
"""
"""Playwright writes no WebP; Chromium does."""

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def play(page: Page) -> None:
    """Registers an address, opens the mail, hands in the number of it."""
    page.click("#register button")
    page.locator("#mails button", has_text="ada@example.com").click()
    number = page.frame_locator("#mail-html").locator(".number")
    expect(number).to_be_visible()
    page.fill("#number", " ".join(number.inner_text().split()))
    page.click("#verify button")
    expect(page.locator(".prize strong")).to_be_visible()


def take(browser: Browser, url: str, into: Path) -> list[Path]:
    """Writes playground-light.webp and playground-dark.webp; returns where they are."""
    body = {"email": "grace@example.com", "token": "basket 4710"}
    requests.post(
        f"{url}/api/users", json=body, timeout=30
    )  # whoever comes first waits for what is made then
    width, height = SIZE
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=SCALE,
        locale="en",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(url)
    play(page)
    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    taken = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        path = into / f"playground-{scheme}.webp"
        path.write_bytes(webp(browser, page.screenshot(animations="disabled")))
        taken.append(path)
    context.close()
    return taken


def webp(browser: Browser, png: bytes) -> bytes:
    """The same picture in a fourth of the bytes."""
    page = browser.new_page()
    written = page.evaluate(CONVERT, f"data:image/png;base64,{base64.b64encode(png).decode()}")
    page.close()
    return base64.b64decode(written.partition(",")[2])


def main(into: Path) -> None:
    """Starts everything, takes the pictures, ends everything."""
    into.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "instance", Path(folder) / "log") as run,
        chromium_running() as browser,
    ):
        for path in take(browser, f"http://127.0.0.1:{run.ports['PORT']}", into):
            sys.stdout.write(f"{path}: {path.stat().st_size // 1024} KiB\n")


if __name__ == "__main__":
    main(INTO)
