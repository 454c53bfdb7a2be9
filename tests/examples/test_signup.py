"""The sign-up pages that docs/integrate.md shows, used as a person uses them."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.api.conftest import wrong
from tests.examples.conftest import LANGUAGES, Ask, Person, Reply, Site
from tests.support.browser import PHONE, Watched, axe_source, chromium_running
from tests.support.servers import ROOT
from tests.support.smtp import say
from tests.support.waiting import wait_until

TWO_CLICKS = "button => { button.click(); setTimeout(() => button.click(), 3) }"
"""The second one before the answer."""

SMALL_PAGE = 8
"""Rules of axe-core that apply to it."""


@pytest.fixture
def email() -> str:
    """An address that no other test uses."""
    return f"ada@{uuid.uuid4().hex[:12]}.example.com"


@pytest.fixture
def ada(site: Site, email: str) -> Person:
    site.smtp.script.clear()
    site.way.script.clear()
    return Person(site, email)


def test_a_person_signs_up_with_the_number_of_the_mail(ada: Person) -> None:
    """Typing errors and wrong numbers are told apart; the number can be mailed again."""
    ada.registers()
    assert (ada.url, ada.alert) == ("/number", "")
    assert f"on its way to {ada.email}" in ada.text
    number = ada.number()
    ada.verifies(number[:-1])
    assert "typing error" in ada.alert
    ada.verifies(wrong(number))
    assert "Tries left: 4." in ada.alert
    ada.sends("/resend")
    assert (ada.url, "We have sent it again." in ada.text) == ("/number", True)
    assert ada.number(mails=2) == number
    ada.verifies(f" {number[:3]} {number[3:]}")
    assert ada.url == "/welcome"
    assert "Welcome, Ada" in ada.text


@pytest.mark.parametrize("origin", ["cross-site", "same-site"])
def test_another_page_cannot_send_the_form_in_somebody_s_name(ada: Person, origin: str) -> None:
    """Its data would wait for the number that Ada gets by mail, and types into her own browser."""
    form = {"name": "Eve", "email": ada.email, "once": uuid.uuid4().hex}
    for sent_by, status in ((origin, 403), ("same-origin", 200)):
        answer = requests.post(f"{ada.site.url}/", form, headers={"Sec-Fetch-Site": sent_by}, timeout=30)
        assert (answer.status_code, len(ada.site.smtp.to(ada.email)) == 1) == (status, status == 200)


def test_the_mail_comes_in_the_language_of_the_browser(ada: Person) -> None:
    """Which the site hands on."""
    ada.registers()
    (mail,) = ada.site.smtp.wait_for(ada.email)
    assert "Confirme su correo electrónico" in mail.message["Subject"]


def test_phones_offer_the_number_and_its_keys(ada: Person) -> None:
    """By the words that browsers know."""
    ada.registers()
    (field,) = (each for each in ada.tree.iter("input") if each.get("name") == "number")
    assert (field.get("autocomplete"), field.get("inputmode")) == ("one-time-code", "numeric")


def test_a_second_click_makes_no_second_mail_and_loses_no_account(ada: Person) -> None:
    """The form has its Idempotency-Key with it."""
    ada.opens("/")
    form = ada.form("/") | {"name": ada.name, "email": ada.email}
    with ThreadPoolExecutor(2) as pool:
        clicks = [pool.submit(ada.sends, "/", **form) for _ in range(2)]
    assert [click.exception() for click in clicks] == [None, None]
    ada.opens("/number")
    number, once = ada.number(), ada.form("/number")["once"]
    ada.sends("/number", number=number, once=once)
    assert ada.url == "/welcome"
    ada.opens("/number")
    ada.sends("/number", number=number, once=once)
    assert ada.url == "/welcome"
    assert len(ada.site.smtp.wait_for(ada.email)) == 1


def problem(slug: str, status: int, retry_after: str) -> Reply:
    return Reply(status, {"type": f"/problems/{slug}", "status": status}, {"Retry-After": retry_after})


def lost(ask: Ask) -> None:
    """Cedula has done it; the answer does not arrive."""
    ask()


def late(ask: Ask) -> Reply:
    """Likewise, and what stands in between says so at once."""
    ask()
    return problem("storage-unavailable", 503, "60")


def test_lost_answers_are_asked_for_again(ada: Person) -> None:
    """Without a word to the person, and without a second mail."""
    ada.site.way.script = [lost, lost]
    ada.registers()
    assert ada.url == "/number"
    ada.site.way.script = [lost, lost]
    ada.verifies(ada.number())
    assert ada.url == "/welcome"
    assert len(ada.site.smtp.wait_for(ada.email)) == 1


def test_a_form_whose_answer_stays_out_can_be_sent_again_and_again(ada: Person) -> None:
    """It is the same request, until there is an answer: no second mail, no token lost."""
    ada.site.way.script = [late, late]
    ada.registers()
    for _ in range(2):
        assert "did not work" in ada.alert
        ada.sends("/")
    assert ada.url == "/number"
    once = ada.form("/number")["once"]
    ada.verifies("1")
    assert ada.form("/number")["once"] != once
    ada.site.way.script = [late, late]
    ada.verifies(ada.number())
    for _ in range(2):
        assert "did not work" in ada.alert
        ada.sends("/number")
    assert ada.url == "/welcome"
    assert len(ada.site.smtp.wait_for(ada.email)) == 1


def test_a_request_that_is_still_being_answered_is_waited_for(ada: Person) -> None:
    """Cedula says 409 for up to 5 s."""
    ada.site.way.script = [lambda _: problem("request-in-progress", 409, "1")] * 3
    ada.registers()
    assert ada.url == "/number"


def test_a_wait_may_be_a_date(ada: Person) -> None:
    """A proxy may say it so (RFC 9110)."""
    ada.site.way.script = [lambda _: problem("too-many-registrations", 429, "Wed, 25 Nov 2026 07:28:00 GMT")]
    ada.registers()
    assert "Please try again in 1 min." in ada.alert


def test_a_form_that_is_changed_and_sent_once_more_works_then(ada: Person) -> None:
    """Somebody who goes back to correct the name is asked to send the form again."""
    ada.opens("/")
    once = ada.form("/")["once"]
    ada.sends("/", name="Adda", email=ada.email, once=once)
    ada.opens("/")
    ada.sends("/", name="Ada", email=ada.email, once=once)
    assert "send it once more" in ada.alert
    ada.sends("/", name="Ada", email=ada.email)
    assert ada.url == "/number"
    ada.verifies(ada.number(mails=2))
    assert "Welcome, Ada" in ada.text


def test_events_say_on_the_page_what_became_of_the_mail(ada: Person) -> None:
    """It has left; later it comes back."""

    def shown(words: str) -> bool:
        ada.opens("/number")
        return words in ada.text

    ada.registers()
    wait_until(lambda: shown("The mail has left."), 15)
    report = {"message_id": ada.site.smtp.wait_for(ada.email)[0].message_id, "kind": "bounced"}
    assert ada.site.api.call("POST", "/api/bounces", json=report).status_code == 204
    wait_until(lambda: shown("The mail came back."), 15)


def test_an_event_that_cedula_has_not_signed_is_refused(site: Site) -> None:
    """Whoever else finds the address of the hook."""
    body = '{"type": "registration.bounced", "data": {"id": "a", "created_at": "b"}}'
    signed = {"webhook-id": "a", "webhook-timestamp": "1764000000", "webhook-signature": "v1,AAAA"}
    for headers in ({}, signed, signed | {"webhook-signature": "nonsense"}):
        answer = requests.post(f"{site.url}/hooks/cedula", body, headers=headers, timeout=30)
        assert answer.status_code == 400


def test_an_address_that_no_mail_reaches_is_told(ada: Person) -> None:
    """So is one that is no address. What was typed stays."""
    ada.site.smtp.script["rcpt"] = say("550 5.1.1 No such user")
    ada.registers()
    assert "No mail reaches this address" in ada.alert
    assert ada.form("/")["email"] == ada.email
    ada.sends("/", name="<b>Ada", email="nobody")
    assert "Please check the address" in ada.alert
    assert ada.form("/")["name"] == "<b>Ada"


def test_the_address_is_blamed_only_where_it_is_wrong(ada: Person) -> None:
    """Not for a name that is too long for a token, which browsers do not send."""
    ada.name = "x" * 5000
    ada.registers()
    assert "did not work" in ada.alert
    (field,) = (each for each in ada.tree.iter("input") if each.get("name") == "name")
    assert int(field.get("maxlength")) < 500


def test_a_number_that_has_ended_is_told_before_it_costs_a_try(ada: Person) -> None:
    """Cedula calls it wrong."""
    ended = {"expires_at": "2026-11-25T02:30:53.414Z"}
    ada.site.way.script = [lambda ask: (reply := ask())._replace(body=reply.body | ended)]
    ada.registers()
    ada.verifies(ada.number())
    assert "This number has ended. Please begin again." in ada.alert
    ada.sends("/", name=ada.name, email=ada.email)
    ada.verifies(ada.number(mails=2))
    assert ada.url == "/welcome"


def test_too_much_is_told_with_the_wait(ada: Person) -> None:
    """Too many wrong numbers."""
    ada.registers()
    for other in range(1, 7):
        ada.verifies(wrong(ada.number(), other))
    assert "too many wrong numbers. Please try again in 15 min." in ada.alert


def test_a_number_confirms_only_what_was_entered_in_the_same_browser(ada: Person) -> None:
    """Somebody else enters Ada's address and data of their own; she types the number of the newest mail."""
    ada.registers()
    mallory = Person(ada.site, ada.email, "Mallory")
    mallory.registers()
    ada.verifies(ada.number(mails=2))
    assert "entered elsewhere" in ada.alert
    ada.opens("/welcome")
    assert ada.url == "/"


def test_a_number_that_was_asked_for_elsewhere_is_not_waited_for(ada: Person) -> None:
    """Somebody else has entered Ada's address; she asks for another mail."""
    ada.registers()
    Person(ada.site, ada.email, "Mallory").registers()
    ada.sends("/resend")
    assert "entered elsewhere" in ada.alert
    assert ada.form("/")["once"]


def test_an_address_has_one_account_however_it_is_written(ada: Person) -> None:
    """Its id is the same."""
    ada.registers()
    ada.verifies(ada.number())
    again = Person(ada.site, ada.email.replace("ada", "ADA"), "Adda")
    again.registers()
    again.verifies(again.number())
    ada.opens("/welcome")
    assert "Welcome, Adda" in ada.text


@pytest.mark.system
def test_everybody_can_use_the_pages(ada: Person) -> None:
    """No violation of axe-core's rules on any page, on a phone, in light and in dark."""
    with chromium_running() as chromium:
        page = chromium.new_page(viewport={"width": PHONE[0], "height": PHONE[1]})
        watched = Watched(page, ada.site.url, axe_source())
        page.goto(ada.site.url)
        watched.check_accessibility(rules=SMALL_PAGE)
        page.get_by_label("Name").fill(ada.name)
        page.get_by_label("E-mail").fill(ada.email)
        page.get_by_role("button").click()
        page.get_by_label("Identification number").fill(wrong(ada.number()))
        page.get_by_role("button", name="Confirm").evaluate(TWO_CLICKS)
        page.get_by_role("alert").wait_for()
        watched.check_accessibility(rules=SMALL_PAGE)
        page.get_by_label("Identification number").fill(wrong(ada.number(), 2))
        page.get_by_role("button", name="Confirm").click()
        page.get_by_text("Tries left: 3.").wait_for()  # the double click was one try
        page.get_by_label("Identification number").fill(ada.number())
        page.get_by_role("button", name="Confirm").click()
        page.get_by_role("heading", name="Welcome").wait_for()
        watched.check_accessibility(rules=SMALL_PAGE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_example_is_read_in_one_go(language: str) -> None:
    """Less than 200 lines."""
    (source,) = (ROOT / "examples" / language).glob("signup.[pt]*")
    assert len(source.read_text().splitlines()) < 200


def test_no_registry_stands_in_the_lock() -> None:
    """Whoever installs takes npm's own, or a mirror of theirs."""
    assert '"resolved"' not in (ROOT / "examples/typescript/package-lock.json").read_text()
