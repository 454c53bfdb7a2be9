"""Documentation and problem pages in Chromium: they work, for everybody, and ask nobody but this service."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from tests.api.conftest import SHOP, Api
from tests.support.browser import DESK, PHONE, Watched, axe_source, chromium_running

pytestmark = pytest.mark.system

SIZES = pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_running() as browser:
        yield browser


@pytest.fixture
def opened(chromium: Browser) -> Any:
    """Opens a page of a service."""

    @contextmanager
    def open_with(api: Api, path: str, size: tuple[int, int]) -> Iterator[Watched]:
        viewport: Any = {"width": size[0], "height": size[1]}
        context = chromium.new_context(viewport=viewport, is_mobile=size is PHONE, has_touch=size is PHONE)
        context.set_default_timeout(20_000)
        try:
            watched = Watched(context.new_page(), api.url, axe_source())
            watched.page.goto(f"{api.url}{path}")
            yield watched
        finally:
            context.close()

    return open_with


def authorize(page: Page, key: str) -> None:
    page.locator("button.authorize").first.click()
    page.locator(".auth-container input").first.fill(key)
    page.locator(".auth-container button.authorize").click()


@SIZES
def test_try_it_out_registers_a_user_without_any_outside_request(
    keyed: Api, opened: Any, email: str, store: redis.Redis, size: tuple[int, int]
) -> None:
    """Authorize with a key, fill in the example, execute: 201, and the mail is there. At each state, in light
    and in dark, everybody can use it."""
    with opened(keyed, "/", size) as watched:
        page: Page = watched.page
        expect(page.locator(".info .title")).to_contain_text("Cedula")
        watched.check_accessibility()
        authorize(page, SHOP)
        watched.check_accessibility()
        page.locator(".auth-btn-wrapper button.btn-done").click()
        operation = page.locator(".opblock-post").first
        operation.locator(".opblock-summary-control").click()
        operation.locator("button.try-out__btn").click()
        body = operation.locator("textarea.body-param__text")
        expect(body).to_have_value(re.compile("ada@example.com"))
        watched.check_accessibility()
        body.fill(body.input_value().replace("ada@example.com", email))
        operation.locator("button.execute").click()
        answered = operation.locator(".live-responses-table tbody .response-col_status").first
        expect(answered).to_contain_text("201")
        watched.check_accessibility()
        (mail,) = keyed.mail.box.wait_for(email)
        assert keyed.verify(email, mail.number).status_code == 200
        watched.check_behaviour(refusals=0)


def test_the_documentation_is_as_light_or_as_dark_as_the_browser(api: Api, opened: Any) -> None:
    """Also when that changes while it is open."""
    with opened(api, "/docs", DESK) as watched:
        page: Page = watched.page
        expect(page.locator(".info .title")).to_contain_text("Cedula")
        for scheme, ground in (("dark", "rgb(28, 32, 34)"), ("light", "rgb(255, 255, 255)")):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            expect(page.locator("html")).to_have_css("color-scheme", re.compile(scheme))
            shown = page.locator(".swagger-ui" if scheme == "dark" else "body")
            expect(shown).to_have_css("background-color", ground)


@SIZES
def test_the_page_of_a_problem_is_plain_and_alone(api: Api, opened: Any, size: tuple[int, int]) -> None:
    """It loads its style sheet and its picture, and breaks no policy."""
    with opened(api, "/problems/verification-failed", size) as watched:
        expect(watched.page.locator("h1")).to_contain_text("does not confirm")
        watched.check_accessibility()
        watched.check_behaviour(refusals=0, requests=2)
