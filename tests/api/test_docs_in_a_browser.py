"""Swagger UI in Chromium: it works, and asks nobody but this service."""

import re
from collections.abc import Iterator

import pytest
import redis
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from tests.api.conftest import SHOP, Api
from tests.support.browser import chromium_running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_running() as browser:
        yield browser


class Watched:
    """A page, with everything that it asked for and complained about."""

    def __init__(self, browser: Browser) -> None:
        self.page: Page = browser.new_page()
        self.page.set_default_timeout(20_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def outside(self, url: str) -> list[str]:
        """Requests to anybody else; data: URLs are none."""
        return [asked for asked in self.requests if not asked.startswith((url, "data:"))]

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    found = Watched(chromium)
    yield found
    found.page.close()


@pytest.mark.system
def test_try_it_out_registers_a_user_without_any_outside_request(
    keyed: Api, watched: Watched, email: str, store: redis.Redis
) -> None:
    """Authorize with a key, fill in the example, execute: 201, and the mail is there."""
    page = watched.page
    page.goto(f"{keyed.url}/")
    expect(page.locator(".info .title")).to_contain_text("Cedula")
    page.locator("button.authorize").first.click()
    page.locator(".auth-container input").first.fill(SHOP)
    page.locator(".auth-container button.authorize").click()
    page.locator(".auth-btn-wrapper button.btn-done").click()
    operation = page.locator(".opblock-post").first
    operation.locator(".opblock-summary-control").click()
    operation.locator("button.try-out__btn").click()
    body = operation.locator("textarea.body-param__text")
    expect(body).to_have_value(re.compile("ada@example.com"))
    body.fill(body.input_value().replace("ada@example.com", email))
    operation.locator("button.execute").click()
    expect(operation.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("201")
    (mail,) = keyed.mail.box.wait_for(email)
    assert keyed.verify(email, mail.number).status_code == 200
    assert watched.outside(keyed.url) == []
    assert len(watched.requests) >= 6
    assert watched.complaints == []


@pytest.mark.system
def test_the_page_of_a_problem_is_plain_and_alone(api: Api, watched: Watched) -> None:
    """It loads its style sheet and its picture, and breaks no policy."""
    watched.page.goto(f"{api.url}/problems/verification-failed")
    expect(watched.page.locator("h1")).to_contain_text("does not confirm")
    assert watched.outside(api.url) == []
    assert watched.complaints == []
