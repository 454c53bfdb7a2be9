"""A page in Chromium that is watched: what it asks for, what it complains about, who can use it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.waiting import wait_until

AXE = "axe-core@4.11.1"
"""The accessibility rules, from npm; kept in the virtual environment."""

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK, PHONE = (1280, 800), (390, 844)
EXPECTED_COMPLAINT = "Failed to load resource: the server responded with a status of 4"
"""What Chromium itself says of every answer that is a refusal."""


@contextmanager
def chromium_running() -> Iterator[Browser]:
    """Debian's Chromium, until the end of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()


class Watched:
    """A page, with everything that it asked for and complained about."""

    def __init__(self, page: Page, url: str, axe: str) -> None:
        """`url`: all that it may ask. `axe`: the source of axe-core."""
        self.page, self._url, self._axe = page, url, axe
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type != "log" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def check_accessibility(self, rules: int = 10) -> None:
        """No violation of any of axe-core's rules, in light and in dark; nothing is wider than the window.
        More than so many rules have something to say."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            # The page hears of it with the next frame; then colours change within a transition, and what is
            # half-way is nobody's colour.
            self.page.evaluate(
                "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
            )
            self.page.evaluate(
                "Promise.allSettled(document.getAnimations().map((one) => one.finished)).then(() => 0)"
            )
            self.page.evaluate(self._axe)
            found = self.page.evaluate("axe.run(document, { iframes: false, resultTypes: ['violations'] })")
            violations = [
                (rule["id"], node["target"], node["failureSummary"])
                for rule in found["violations"]
                for node in rule["nodes"]
            ]
            assert violations == [], scheme
            assert len(found["passes"]) > rules
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def check_behaviour(self, refusals: int, requests: int = 6) -> None:
        """Nobody else was asked for anything, by so many requests at least, and nothing complained but of the
        refusals."""
        assert len(self.requests) >= requests
        ours = (f"{self._url}/", "data:")
        assert [asked for asked in self.requests if not asked.startswith(ours)] == []
        expected = [said for said in self.complaints if said.startswith(EXPECTED_COMPLAINT)]
        assert (len(expected), len(self.complaints)) == (refusals, refusals), self.complaints


def wait_for_focus_to_show(page: Page) -> None:
    """The focused element has an outline. Asked from here: what a page would ask itself again and again, as
    `wait_for_function` has it do, our policy for scripts forbids."""
    shown = "getComputedStyle(document.activeElement).outlineStyle != 'none'"
    wait_until(lambda: page.evaluate(shown), 20, "the focus is to be seen")


def axe_source() -> str:
    """The source of axe-core."""
    folder = Path(sys.prefix) / "axe-core" / AXE.rpartition("@")[2]
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--prefix", str(folder), "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(["npm", "install", *options, AXE], check=True, timeout=100, capture_output=True)
    return script.read_text()
