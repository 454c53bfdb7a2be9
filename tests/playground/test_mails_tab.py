"""The tab of mails in Chromium: every language, both widths, light and dark, and what changes meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from app.config import LANGUAGES
from tests.support.browser import DESK, PHONE, Watched, wait_for_focus_to_show
from tests.support.dev_run import Run, running

pytestmark = pytest.mark.system

WHITE, DARK = "rgb(255, 255, 255)", "rgb(28, 33, 39)"
"""Of the card in the mail."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MAIL_TEMPLATES of the run."""
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def run(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("mails")
    with running(folder / "instance", folder / "run.log", MAIL_TEMPLATES=str(own)) as started:
        yield started


@pytest.fixture
def opened(chromium: Browser, url: str, axe: str, own: Path) -> Iterator[Any]:
    """Opens the tab; the folder of templates is empty before and after."""

    @contextmanager
    def open_with(query: str = "", size: tuple[int, int] = DESK, language: str = "en") -> Iterator[Watched]:
        viewport: Any = {"width": size[0], "height": size[1]}
        context = chromium.new_context(viewport=viewport, locale=language)
        context.set_default_timeout(15_000)
        try:
            tab = Watched(context.new_page(), url, axe)
            tab.page.goto(f"{url}/playground/mails{query}")
            expect(tab.page.locator("#previews section").first).to_be_visible(timeout=30_000)
            yield tab
        finally:
            context.close()

    yield open_with
    for file in own.iterdir():
        file.unlink()


def shown(page: Page, selector: str, number: int = 0) -> Any:
    """What is in one of the frames."""
    page.locator("#previews iframe").nth(number).scroll_into_view_if_needed()
    return page.frame_locator("#previews iframe").nth(number).locator(selector)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_language_is_shown(opened: Any, size: tuple[int, int]) -> None:
    """Each with its mail in four frames, its subject as a mail program lists it, and its text part."""
    with opened("?service=shop", size) as tab:
        page: Page = tab.page
        expect(page.locator("h2 code")).to_have_text(sorted(LANGUAGES))
        expect(page.locator("#previews iframe")).to_have_count(4 * len(LANGUAGES))
        for number in range(4 * len(LANGUAGES)):
            expect(shown(page, ".number", number)).to_have_text("482 109 3753")
        expect(page.locator("#previews pre")).to_have_count(len(LANGUAGES))
        spanish = page.locator("section", has=page.locator("h2", has_text="Español"))
        expect(spanish.locator(".listed .subject").first).to_contain_text("Confirme su correo electrónico")
        expect(spanish.locator(".listed .sender").first).to_have_text("Acme Shop")
        expect(spanish.locator("pre")).to_contain_text("482 109 3753")
        tab.check_accessibility()
        tab.check_behaviour(refusals=0)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize(("language", "title"), [("es", "Todos los correos"), ("pt", "Todos os e-mails")])
def test_the_tab_speaks_the_language_of_the_browser(
    opened: Any, language: str, title: str, size: tuple[int, int]
) -> None:
    """As the story does."""
    with opened(f"?service=shop&language={language}", size, language) as tab:
        expect(tab.page.locator("h1")).to_contain_text(title)
        expect(shown(tab.page, ".number")).to_be_visible()
        tab.check_accessibility()
        tab.check_behaviour(refusals=0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_widths_and_both_schemes_are_shown_whatever_the_browser_has(opened: Any, scheme: Any) -> None:
    """A frame is as wide for the mail as the screen that it stands for, and on the page as there is room."""
    with opened("?service=rehearsal&language=de") as tab:
        page: Page = tab.page
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("#service option:checked")).to_contain_text("mails nothing")
        for number, (width, card) in enumerate([(390, WHITE), (390, DARK), (1280, WHITE), (1280, DARK)]):
            expect(shown(page, ".card", number)).to_have_css("background-color", card)
            frame = page.locator("#previews iframe").nth(number)
            assert frame.evaluate("(frame) => frame.clientWidth") == width
            box = frame.bounding_box()
            assert box is not None
            assert box["width"] <= min(width, 850)
        tab.check_behaviour(refusals=0)


def test_what_changes_is_shown_by_itself(opened: Any, own: Path) -> None:
    """A sentence, a new language; choices and the place on the page stay."""
    with opened("?service=shop&language=es") as tab:
        page: Page = tab.page
        expect(shown(page, "h1")).to_have_text("Confirme su correo electrónico")
        (own / "es.toml").write_text('title = "Bienvenido a {service}"\n')
        expect(shown(page, "h1")).to_have_text("Bienvenido a Acme Shop")
        (own / "es-AR.toml").write_text('title = "Che, bienvenido a {service}"\n')
        page.locator("#language option[value=es-AR]").wait_for(state="attached")
        assert page.input_value("#language") == "es"
        page.select_option("#language", "es-AR")
        expect(shown(page, "h1")).to_have_text("Che, bienvenido a Acme Shop")
        page.reload()
        expect(shown(page, "h1")).to_have_text("Che, bienvenido a Acme Shop")
        tab.check_behaviour(refusals=0)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_an_error_is_told_in_the_mail_s_place_until_it_is_gone(
    opened: Any, own: Path, size: tuple[int, int]
) -> None:
    """File, line and variable; the mails come back when it is right again."""
    with opened("", size) as tab:
        page: Page = tab.page
        expect(shown(page, ".number")).to_be_visible()
        (own / "number.html").write_text("<p>{{ number }}</p>\n<p>{{ numbr }}</p>\n")
        fault = "number.html, line 2: 'numbr' is undefined."
        expect(page.locator("section .faults")).to_have_text([fault] * len(LANGUAGES))
        expect(page.locator("#previews iframe")).to_have_count(0)
        tab.check_accessibility()
        (own / "number.html").write_text("<p class='number'>{{ number }}</p>\n")
        expect(shown(page, ".number")).to_have_text("482 109 3753")
        expect(page.locator(".faults")).to_have_count(0)
        tab.check_behaviour(refusals=0)


def test_the_tab_needs_nothing_but_a_keyboard(opened: Any) -> None:
    """From the skip link to the choices, and by the tabs to the story and back."""
    with opened() as tab:
        page: Page = tab.page

        def tab_to(selector: str) -> None:
            for _ in range(25):
                page.keyboard.press("Tab")
                if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
                    wait_for_focus_to_show(page)
                    return
            raise AssertionError(f"Tab does not reach {selector}")

        tab_to(".skip")
        tab_to("[data-language=es]")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Todos los correos que puede haber")
        tab_to("#service")
        page.keyboard.type("shop")
        tab_to("#language")
        page.keyboard.type("Fran")
        expect(page.locator("h2 code")).to_have_text(["fr"])
        tab_to("figcaption a")
        with page.expect_popup() as alone:
            page.keyboard.press("Enter")
        expect(alone.value.locator(".number")).to_have_text("482 109 3753")
        page.goto(page.url.partition("/playground")[0])
        tab_to("[data-text=mailsTab]")
        page.keyboard.press("Enter")
        expect(page.locator("[aria-current=page]")).to_have_text("Correos")
