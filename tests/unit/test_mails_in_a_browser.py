"""Every mail in Chromium, on a phone and on a desk, in light and in dark."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from app.mail.colors import READABLE, contrast
from tests.support.browser import chromium_running
from tests.support.mails import LANGUAGES, REGISTRATION, SHOP, messages

WIDTHS = (390, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

LOGO = '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="60"><rect width="600" height="60"/></svg>'
"""Ten times as wide as it is high."""

LONGEST = replace(
    SHOP,
    name="Bäckerei Sonnenschein & Töchter GmbH, Abteilung Onlinehandel",
    color="#ffe94a",
    logo="",
)

LOOK = """() => {
    const number = document.querySelector(".number");
    const text = number.firstChild;
    const digits = [...text.data].map((character, place) => {
        const range = document.createRange();
        range.setStart(text, place);
        range.setEnd(text, place + 1);
        const box = range.getBoundingClientRect();
        return {character, x: box.x, top: box.top};
    }).filter(each => /[0-9]/.test(each.character));
    const hex = css => "#" + css.match(/[0-9]+/g).slice(0, 3)
        .map(channel => Number(channel).toString(16).padStart(2, "0")).join("");
    const ground = element => {
        const color = getComputedStyle(element).backgroundColor;
        return color === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : hex(color);
    };
    const said = [...document.querySelectorAll("p, h1, .number, td.note")].map(element => ({
        text: element.textContent,
        ink: hex(getComputedStyle(element).color),
        ground: ground(element),
    }));
    getSelection().removeAllRanges();
    return {
        digits, said,
        width: document.documentElement.scrollWidth,
        wide: [...document.body.querySelectorAll("*")]
            .filter(element => element.getBoundingClientRect().right > innerWidth
                || element.getBoundingClientRect().left < 0).length,
    };
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_running() as browser:
        yield browser


@pytest.fixture(params=product(WIDTHS, SCHEMES), ids=lambda look: f"{look[0]}-{look[1]}")
def page(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A reading pane that asks nobody for anything."""
    width, scheme = request.param
    page = chromium.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.route("**/*", lambda route: route.abort())
    yield page
    page.close()


def look(page: Page, html: str) -> dict[str, Any]:
    page.set_content(html)
    found: dict[str, Any] = page.evaluate(LOOK)
    return found


@pytest.mark.system
@pytest.mark.parametrize("service", [SHOP, LONGEST], ids=["shop", "longest"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mail_is_as_it_should_be_on_every_screen(page: Page, language: str, service: Any) -> None:
    """It fits, everything in it can be read, and the digits stand in their order on one line."""
    registration = REGISTRATION._replace(locale=language, number="48210937552348")
    found = look(page, messages(service).shown(registration).html)
    assert found["width"] <= page.evaluate("innerWidth")
    assert found["wide"] == 0
    assert "".join(digit["character"] for digit in found["digits"]) == registration.number
    places = [digit["x"] for digit in found["digits"]]
    assert places == sorted(places)
    assert len({digit["top"] for digit in found["digits"]}) == 1
    pale = [one for one in found["said"] if contrast(one["ink"], one["ground"]) < READABLE]
    assert pale == []
    assert len(found["said"]) >= 8


@pytest.mark.system
@pytest.mark.parametrize("width", [320, 390])
def test_the_longest_number_fits_on_a_phone(page: Page, width: int) -> None:
    """On two lines, if need be: a line ends between two groups."""
    page.set_viewport_size({"width": width, "height": 700})
    registration = REGISTRATION._replace(locale="ar", number="482109375523482109")
    found = look(page, messages().shown(registration).html)
    assert found["wide"] == 0
    read = sorted(found["digits"], key=lambda digit: (digit["top"], digit["x"]))
    assert "".join(digit["character"] for digit in read) == registration.number


@pytest.mark.system
def test_one_click_selects_the_whole_number(page: Page) -> None:
    """And nothing but the number."""
    page.set_content(messages().shown(REGISTRATION._replace(locale="ar")).html)
    page.locator(".number").click()
    assert page.evaluate("getSelection().toString().trim()") == "482 109 3753"


@pytest.mark.system
def test_a_wide_logo_keeps_its_bounds(page: Page) -> None:
    """And its proportions: it is fitted into its box."""
    page.unroute("**/*")
    page.route("**/*", lambda route: route.fulfill(body=LOGO, content_type="image/svg+xml"))
    page.set_content(messages().shown(REGISTRATION).html)
    page.wait_for_function("document.images[0].complete && document.images[0].naturalWidth > 0")
    box = page.locator("img").bounding_box()
    assert box is not None
    assert (box["width"], box["height"]) == (240, 40)
    assert page.evaluate("getComputedStyle(document.images[0]).objectFit") == "contain"


@pytest.mark.system
def test_without_its_style_sheet_it_can_be_read_just_as_well(page: Page) -> None:
    """Some mail programs drop it."""
    html = messages().shown(REGISTRATION).html
    start, end = html.index("<style>"), html.index("</style>")
    found = look(page, html[:start] + html[end + len("</style>") :])
    assert found["wide"] == 0
    assert [one for one in found["said"] if contrast(one["ink"], one["ground"]) < READABLE] == []
