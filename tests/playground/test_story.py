"""The playground in Chromium, used by mouse, by keyboard, on a desk and on a phone."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from stdnum import damm

from tests.support.browser import DESK, PHONE, Watched, wait_for_focus_to_show
from tests.support.dev_run import Run

pytestmark = pytest.mark.system

WORDS = {
    "en": {
        "title": "One address, one number, one mail",
        "empty": "Register an address, and it will be here",
        "registered": "the mail server has accepted the mail",
        "arrived": "A new mail has arrived",
        "mail": "Confirm your email address",
        "verified": "That was the only time",
        "refused": "Refused: the number is wrong, used",
    },
    "es": {
        "title": "Una dirección, un número, un correo",
        "empty": "Registre una dirección y aparecerá aquí",
        "registered": "el servidor de correo ha aceptado el correo",
        "arrived": "Ha llegado un correo nuevo",
        "mail": "Confirme su correo electrónico",
        "verified": "Solo ocurre una vez",
        "refused": "Rechazado: el número es erróneo, usado",
    },
    "pt": {
        "title": "Um endereço, um número, um e-mail",
        "empty": "Cadastre um endereço, e o e-mail aparecerá aqui",
        "registered": "o servidor de e-mail aceitou o e-mail",
        "arrived": "Chegou um e-mail novo",
        "mail": "Confirme seu e-mail",
        "verified": "Só acontece uma vez",
        "refused": "Recusado: o número está errado, usado",
    },
}


class Playground(Watched):
    """The tab with the story."""

    def __init__(self, page: Page, url: str, axe: str) -> None:
        super().__init__(page, url, axe)
        page.goto(url)
        expect(page.locator("#drawing svg")).to_be_visible()

    def register(self, email: str, token: str = "basket 4711") -> None:
        self.page.fill("#email", email)
        self.page.fill("#token", token)
        self.page.click("#register button")

    def read_mail(self) -> str:
        """Open the newest mail; returns the number in it."""
        self.page.locator("#mails button").first.click()
        return self.number_in_mail()

    def number_in_mail(self) -> str:
        """As the person sees it in the open mail."""
        shown = self.page.frame_locator("#mail-html").locator(".number")
        expect(shown).to_be_visible()
        return " ".join(shown.inner_text().split())

    def verify(self, number: str) -> None:
        self.page.fill("#number", number)
        self.page.click("#verify button")

    def state_of(self, step: str) -> str:
        """How a step of the diagram is shown: idle, lit, skipped or fault."""
        return str(self.page.locator(f'svg .row[data-step="{step}"]').get_attribute("class")).split()[-1]

    def wait_for_step(self, step: str, state: str = "lit") -> None:
        expect(self.page.locator(f'svg .row[data-step="{step}"]')).to_have_class(re.compile(rf"\b{state}$"))

    def words(self, form: str) -> Any:
        return self.page.locator(f"#{form} .words")


@pytest.fixture
def url(fresh_run: Run) -> str:
    """Where the playground is."""
    return f"http://127.0.0.1:{fresh_run.ports['PORT']}"


@pytest.fixture
def fresh_run(run: Run) -> Run:
    """A run without any mail: the page begins as a newcomer sees it."""
    for mail in (run.instance / "mail").glob("*.eml"):
        mail.unlink()
    return run


@pytest.fixture
def opened(chromium: Browser, url: str, axe: str) -> Any:
    """Opens the playground with the given options of a browser context."""

    @contextmanager
    def open_with(size: tuple[int, int] = DESK, language: str = "en", **options: Any) -> Iterator[Playground]:
        viewport: Any = {"width": size[0], "height": size[1]}
        context: BrowserContext = chromium.new_context(viewport=viewport, locale=language, **options)
        context.set_default_timeout(15_000)
        try:
            yield Playground(context.new_page(), url, axe)
        finally:
            context.close()

    return open_with


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("language", WORDS)
def test_a_newcomer_registers_reads_verifies_and_is_refused_the_second_time(
    opened: Any, language: str, size: tuple[int, int]
) -> None:
    """The whole story, in the browser's language; at each state without a violation, a complaint or a request
    to anybody else."""
    words, email = WORDS[language], f"story-{language}-{size[0]}@example.com"
    with opened(size, language, is_mobile=size is PHONE, has_touch=size is PHONE) as playground:
        page: Page = playground.page
        expect(page.locator("h1")).to_have_text(words["title"])
        expect(page.locator("html")).to_have_attribute("lang", language)
        expect(page.locator("#post")).to_contain_text(words["empty"])
        assert playground.state_of("sent") == "idle"
        playground.check_accessibility()

        playground.register(email)
        expect(playground.words("registered")).to_contain_text(words["registered"])
        expect(page.locator("#registered .wire")).to_contain_text("HTTP/1.1 201")
        expect(page.locator("#registered .wire")).to_contain_text("Location: /api/users/")
        playground.wait_for_step("answered")
        assert playground.state_of("deleted") == "skipped"
        assert re.fullmatch(r"[\d.,]+\sm?s", page.locator("#total strong").inner_text())
        expect(page.locator("#post")).to_contain_text(words["arrived"])
        playground.check_accessibility()

        number = playground.read_mail()
        assert re.fullmatch(r"\d{3} \d{3} \d{4}", number)
        expect(page.frame_locator("#mail-html").locator("h1")).to_have_text(words["mail"])
        page.click("#mail summary")
        expect(page.locator("#mail-text")).to_contain_text(number)
        playground.check_accessibility()

        playground.verify(number)
        expect(playground.words("verified")).to_contain_text(words["verified"])
        expect(page.locator(".prize strong")).to_have_text("basket 4711")
        playground.wait_for_step("later-answered")
        page.click("#times summary")
        expect(page.locator("#times tbody")).to_contain_text("HMGET")
        playground.check_accessibility()

        page.click("#verify button")
        expect(playground.words("verified")).to_contain_text(words["refused"])
        expect(page.locator("#verified .wire")).to_contain_text("HTTP/1.1 403")
        expect(page.locator(".prize")).to_be_hidden()
        playground.wait_for_step("later-answered", "fault")
        assert playground.state_of("later-returned") == "idle"
        playground.check_accessibility()
        playground.check_behaviour(refusals=1)


def test_the_story_needs_nothing_but_a_keyboard(opened: Any) -> None:
    """Tab and Enter reach everything in the order of the story, and the focus is always to be seen."""
    with opened(reduced_motion="reduce") as playground:
        page: Page = playground.page

        def tab_to(selector: str) -> None:
            for _ in range(25):
                page.keyboard.press("Tab")
                wait_for_focus_to_show(page)
                if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
                    return
            raise AssertionError(f"Tab does not reach {selector}")

        tab_to(".skip")
        tab_to("[data-language=es]")
        page.keyboard.press("Enter")
        tab_to("#email")
        page.keyboard.press("Control+A")
        page.keyboard.type("teclado@example.com")
        tab_to("#token")
        page.keyboard.press("Enter")
        playground.wait_for_step("answered")
        tab_to("#mails button")
        page.keyboard.press("Enter")
        number = playground.number_in_mail()
        tab_to("#mail summary")
        tab_to("#number")
        page.keyboard.type(number)
        page.keyboard.press("Enter")
        expect(page.locator(".prize strong")).to_have_text("cesta 4711")
        tab_to("#verify button")
        page.keyboard.press("Enter")
        expect(playground.words("verified")).to_contain_text(WORDS["es"]["refused"])


def test_the_language_can_be_switched_in_the_middle_and_is_remembered(opened: Any) -> None:
    """What has happened stays, in the other language; the mail's language follows; so does the next visit."""
    with opened() as playground:
        page: Page = playground.page
        playground.register("switch@example.com")
        playground.wait_for_step("answered")
        page.click("[data-language=es]")
        expect(page.locator("html")).to_have_attribute("lang", "es")
        expect(playground.words("registered")).to_contain_text(WORDS["es"]["registered"])
        expect(page.locator("#drawing ol")).to_contain_text("api gateway → servicio de mensajería")
        assert playground.state_of("answered") == "lit"
        assert page.input_value("#locale") == "es"
        playground.check_accessibility()
        playground.register("switch@example.com")
        expect(page.locator("#mails button").first).to_contain_text("Confirme su correo electrónico")
        page.reload()
        expect(page.locator("h1")).to_have_text(WORDS["es"]["title"])


def test_old_data_and_reduced_motion(opened: Any) -> None:
    """Who wants no motion sees every step at once; registering again shows the old data being deleted."""
    with opened(reduced_motion="reduce") as playground:
        for state in ("skipped", "lit"):
            playground.register("again@example.com")
            playground.wait_for_step("answered")
            assert playground.state_of("deleted") == state
            assert playground.state_of("mailed") == "lit"
            expect(playground.page.locator("#register button")).not_to_have_attribute("aria-disabled", "true")


@pytest.mark.parametrize("language", WORDS)
def test_a_wrong_field_is_marked_and_explained(opened: Any, language: str) -> None:
    """422: the field takes the focus, and says what is wrong in the page's language; a typing error too."""
    said = {
        "en": ("No mail can be sent", "typing error"),
        "es": ("No se puede enviar", "error al escribir"),
        "pt": ("Não é possível enviar", "erro de digitação"),
    }
    with opened(PHONE, language) as playground:
        page: Page = playground.page
        playground.register("nobody", token="")
        expect(page.locator("#email")).to_be_focused()
        expect(page.locator("#email")).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#email")).to_have_accessible_description(re.compile(said[language][0]))
        expect(page.locator("#token")).to_have_attribute("aria-invalid", "true")
        playground.wait_for_step("answered", "fault")
        expect(page.locator("#times tbody tr")).to_have_count(2)
        playground.check_accessibility()
        playground.verify("1234")
        expect(playground.words("verified")).to_contain_text(said[language][1])
        playground.wait_for_step("later-answered", "fault")
        playground.check_accessibility()
        playground.check_behaviour(refusals=2)


def test_too_many_wrong_numbers_are_told_with_the_wait(opened: Any) -> None:
    """429: after five wrong numbers, in words and minutes."""
    with opened(reduced_motion="reduce") as playground:
        for tried in range(6):
            body = f"{123456 + tried}000"
            with playground.page.expect_response("**/verify"):
                playground.verify(body + damm.calc_check_digit(body))
        expect(playground.words("verified")).to_contain_text("taken again in 15 minutes")
        expect(playground.page.locator("#verified .wire")).to_contain_text("Retry-After:")
        playground.check_accessibility()


def test_a_store_that_is_away_and_a_service_that_is_gone_are_told(opened: Any, run: Run) -> None:
    """503 says when to try again; without any answer the page says that, too."""
    valkey = run.children()["valkey-server"]
    with opened(reduced_motion="reduce") as playground:
        os.kill(valkey, signal.SIGSTOP)
        try:
            playground.register("away@example.com")
            expect(playground.words("registered")).to_contain_text("Redis does not answer")
        finally:
            os.kill(valkey, signal.SIGCONT)
        expect(playground.page.locator("#registered .wire")).to_contain_text("HTTP/1.1 503")
        playground.wait_for_step("answered", "fault")
        playground.check_accessibility()
        playground.page.route("**/api/users", lambda route: route.abort())
        playground.register("gone@example.com")
        expect(playground.words("registered")).to_contain_text("Is make run still running?")
        expect(playground.page.locator("#registered .wire")).to_be_hidden()
        playground.check_accessibility()


def test_a_mail_that_is_late_is_awaited(opened: Any, run: Run) -> None:
    """202: the answer says that the mail will come, and the page shows it when it does."""
    mailbox = run.children()["dev.mailbox"]
    with opened(reduced_motion="reduce") as playground:
        page: Page = playground.page
        os.kill(mailbox, signal.SIGSTOP)
        try:
            playground.register("late@example.com")
            expect(playground.words("registered")).to_contain_text("will be sent", timeout=30_000)
            expect(page.locator("#post")).to_contain_text("on its way")
        finally:
            os.kill(mailbox, signal.SIGCONT)
        assert (playground.state_of("handed"), playground.state_of("confirmed")) == ("lit", "idle")
        expect(page.locator("#post")).to_contain_text("A new mail has arrived", timeout=60_000)
        playground.read_mail()
