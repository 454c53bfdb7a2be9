"""Where things stand on the story's page, on screens of every width and in every language."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import PHONE
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

LANGUAGES = ("en", "es", "pt")
WIDTHS = (360, 390, 768, 1280)

COLLISIONS = """() => {
  const svg = document.querySelector("#drawing svg");
  const isShown = (node) =>
    getComputedStyle(node).display !== "none" && (node.tagName !== "text" || node.textContent);
  const shown = (selector) => [...svg.querySelectorAll(selector)]
    .filter(isShown)
    .map((node) => ({ name: node.textContent || node.getAttribute("class") || "bar", box: node.getBBox() }));
  const texts = shown("text");
  const shapes = shown(".bar rect, .line, .tip");
  const meet = ({ box: a }, { box: b }) =>
    a.x < b.x + b.width && b.x < a.x + a.width && a.y + 1 < b.y + b.height && b.y + 1 < a.y + a.height;
  const found = [];
  texts.forEach((one, place) => {
    for (const other of [...texts.slice(place + 1), ...shapes])
      if (meet(one, other)) found.push(`${one.name} / ${other.name}`);
    if (one.box.x < 0 || one.box.x + one.box.width > svg.clientWidth) found.push(`${one.name} / edge`);
  });
  return found;
}"""
"""Every text of the diagram against every other, and against bars and arrows."""

DRAWN = "document.querySelector('svg').clientWidth == document.querySelector('#drawing').clientWidth"

SECTIONS = """[...document.querySelectorAll(".step, .diagram")]
  .map((one) => [one.className, one.getBoundingClientRect().top + scrollY, one.offsetHeight])"""


@pytest.fixture
def opened(chromium: Browser, url: str) -> Any:
    @contextmanager
    def open_with(language: str, size: tuple[int, int]) -> Iterator[Page]:
        viewport: Any = {"width": size[0], "height": size[1]}
        context = chromium.new_context(viewport=viewport, locale=language, reduced_motion="reduce")
        context.set_default_timeout(20_000)
        try:
            page = context.new_page()
            page.goto(url)
            expect(page.locator("#drawing svg")).to_be_visible()
            yield page
        finally:
            context.close()

    return open_with


def register(page: Page, email: str, state: str = "lit") -> None:
    page.fill("#email", email)
    page.click("#register button")
    expect(page.locator('svg .row[data-step="answered"]')).to_have_class(re.compile(rf"\b{state}$"))


def verify(page: Page, number: str, state: str) -> None:
    page.fill("#number", number)
    page.click("#verify button")
    expect(page.locator('svg .row[data-step="later-answered"]')).to_have_class(re.compile(rf"\b{state}$"))


def read_mail(page: Page, email: str, mails: int) -> str:
    """Opens the newest of so many mails to the address; returns its number."""
    found = page.locator("#mails button", has_text=email)
    expect(found).to_have_count(mails)
    found.first.click()
    number = page.frame_locator("#mail-html").locator(".number")
    expect(number).to_be_visible()
    return str(number.inner_text())


def check_labels(page: Page, when: str) -> None:
    """At every width, none touches another, a bar or an arrow, and none is cut off."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wait_until(lambda: page.evaluate(DRAWN), what="drawn for this width")
        assert page.evaluate(COLLISIONS) == [], (when, width)


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_never_collide(opened: Any, language: str) -> None:
    """Idle, with times, with old data and without, taken and refused."""
    email = f"labels-{language}@example.com"
    with opened(language, (1280, 900)) as page:
        check_labels(page, "idle")
        register(page, email)
        check_labels(page, "registered")
        register(page, email)
        number = read_mail(page, email, 2)
        verify(page, number, "lit")
        check_labels(page, "verified")
        verify(page, number, "fault")
        check_labels(page, "refused")
        register(page, "nobody", "fault")
        check_labels(page, "not accepted")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", [360, 390])
def test_on_a_phone_the_steps_come_first_and_each_fits_two_screens(
    opened: Any, language: str, width: int
) -> None:
    """With all that can happen on them: an answer, three mails in the list, one open, a second answer. What
    was drawn meanwhile is a touch away, and next in the order of the page."""
    email = f"steps-{language}-{width}@example.com"
    with opened(language, (width, PHONE[1])) as page:
        for _ in range(3):
            register(page, email)
        verify(page, read_mail(page, email, 3), "lit")
        names, tops, heights = zip(*page.evaluate(SECTIONS), strict=True)
        assert names == ("step", "step", "step", "diagram")
        assert list(tops) == sorted(tops)
        assert max(heights) <= 2 * PHONE[1]
        page.locator("#verified .to-diagram a").click()
        expect(page.locator("#diagram-title")).to_be_in_viewport()


def test_on_a_desk_the_diagram_stands_beside_the_steps(opened: Any) -> None:
    """And in sight while a person registers: no link leads there."""
    with opened("en", (1280, 800)) as page:
        register(page, "beside@example.com")
        expect(page.locator("#diagram-title")).to_be_in_viewport()
        expect(page.locator("#registered .to-diagram")).to_be_hidden()
