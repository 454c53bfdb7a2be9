"""What an earlier release left in Redis is served, and what a later one wrote is left alone."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from app.domain.registration import Delivery
from app.domain.service import Service
from app.errors import NewerRecord, VerificationFailed
from app.repositories.keys import Field, Names, keys_of
from app.repositories.records import LAYOUT_VERSION
from tests.api.conftest import Api, named, wrong
from tests.support.faults.redis import everything
from tests.support.layout import (
    DEFAULT_SERVICE,
    HAND_IN_KEY,
    HANDED_IN,
    INDEX,
    KEY,
    LONG_TOKEN,
    OTHERS,
    PEOPLE,
    SECRET,
    SHOP,
    TOKEN,
    TOLD,
    TOLD_TRIAL,
    address,
    restore,
)
from tests.support.people import Process, ada
from tests.support.scan import contradictions
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn
from tests.support.stores import own_valkey
from tests.support.telling import Person
from tests.support.values import text, there
from tests.support.waiting import wait_until

FIXTURES = Path(__file__).parents[1] / "fixtures"
LAYOUTS = sorted(FIXTURES.glob("layout-*/*.json"))
MAILED = ("due", "pending", "running")
"""Whose mail is owed and due; that of `begun` when the lease of its dead sender ends."""


# other services must not see these records
valkey_server = own_valkey("module")


def email(person: str) -> str:
    return address(person).email


def user_id(person: str, service: Service = DEFAULT_SERVICE) -> str:
    return Names(INDEX).user(service.id, address(person)).user_id


Left = tuple[Api, dict[str, str]]


@pytest.fixture(params=LAYOUTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def left(
    request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str], store: redis.Redis
) -> Iterator[Left]:
    """The service on what a release left, and the numbers that it gave."""
    numbers = restore(store, request.param)
    assert contradictions(store) == []
    secrets = {"SECRET_KEY": SECRET} if request.param.stem == "sealed" else {}
    mail = request.getfixturevalue("mail_server")
    with gunicorn(tmp_path, {**environment, "INDEX_KEY": INDEX, **secrets}) as server:
        yield Api(server, mail), numbers


def test_every_registration_of_an_earlier_release_can_be_looked_up(left: Left) -> None:
    """With what was known of its mail."""
    api, _ = left
    found = {person: api.call("GET", f"/api/users/{user_id(person)}") for person in PEOPLE}
    assert {answer.status_code for answer in found.values()} == {200}
    bodies = {person: answer.json() for person, answer in found.items()}
    assert {person: body["email"] for person, body in bodies.items()} == {p: email(p) for p in PEOPLE}
    assert [bodies[person]["delivery"] for person in ("sent", "failed", "begun")] == [
        "sent",
        "failed",
        "pending",
    ]
    assert bodies["failed"]["mail_error"] == "recipient 550 5.1.1"
    assert "expires_at" not in bodies["forever"]
    assert "expires_at" in bodies["sent"]
    assert [bodies[person]["mail_attempts"] for person in ("sent", "resent")] == [1, 2]
    assert api.call("GET", f"/api/users/{user_id(HANDED_IN)}").status_code == 404


def test_every_number_of_an_earlier_release_is_taken_once(left: Left, store: redis.Redis) -> None:
    """And brings the token; tries that were used up then are used up now."""
    api, numbers = left
    for _ in range(2):
        assert api.verify(email("guessed"), wrong(numbers["guessed"])).status_code == 403
    assert api.verify(email("guessed"), numbers["guessed"]).status_code == 429
    for person in PEOPLE:
        if person != "guessed":
            answer = api.verify(email(person), numbers[person])
            assert answer.json()["token"] == (LONG_TOKEN if person == "long" else TOKEN)
            assert api.verify(email(person), numbers[person]).status_code == 403
    assert contradictions(store) == []


def test_a_number_that_was_handed_in_at_an_earlier_release_brings_its_token_again(left: Left) -> None:
    """To the same request: the same Idempotency-Key."""
    api, numbers = left
    assert api.verify(email(HANDED_IN), numbers[HANDED_IN]).status_code == 403
    again = api.verify(email(HANDED_IN), numbers[HANDED_IN], headers=named(HAND_IN_KEY))
    assert (again.status_code, again.json()["token"]) == (200, TOKEN)


def process_of(service: Service, valkey: Valkey, layout: Path) -> Process:
    secrets = (SECRET,) if layout.stem == "sealed" else ()
    listens = service.events is not None
    return Process(valkey.url, secrets, INDEX, name=service.id, test=service.test, listens=listens)


layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda path: f"{path.parent.name}-{path.stem}")


@layouts
@pytest.mark.parametrize("service", [TOLD, TOLD_TRIAL], ids=lambda service: service.id)
def test_events_that_an_earlier_release_left_are_delivered(
    valkey_server: Valkey, store: redis.Redis, layout: Path, service: Service
) -> None:
    """And what becomes of its registrations is told after them."""
    numbers = restore(store, layout)
    with closing(process_of(service, valkey_server, layout)) as process:
        person = Person(process, store, address("sent"))
        (waiting,) = person.told
        assert waiting.created_ms <= waiting.at_ms <= process.outbox.now_ms()
        assert process.events.due(person.shards).count(person.queue) == 1
        assert process.verify(person.address, numbers[service.id]) == TOKEN
        assert person.delivered() == ["sent", "verified"]
        assert process.events.count().waiting[service.id] == 0
    assert contradictions(store) == []


@layouts
def test_an_end_that_comes_after_an_earlier_release_is_told(
    valkey_server: Valkey, store: redis.Redis, layout: Path
) -> None:
    """It was noted when the registration was made."""
    restore(store, layout)
    with closing(process_of(TOLD, valkey_server, layout)) as process:
        person = Person(process, store, address("sent"))
        person.ended()
        assert person.swept() == 1
        assert person.kinds == ["sent", "expired"]


@layouts
def test_registrations_of_each_service_stay_that_services(
    valkey_server: Valkey, store: redis.Redis, layout: Path
) -> None:
    """The record tells its service, and whether it is a test; all mails to one mailbox are counted as one."""
    numbers = restore(store, layout)
    processes = {
        service: process_of(service, valkey_server, layout) for service in (DEFAULT_SERVICE, *OTHERS)
    }
    for service, process in processes.items():
        found = there(process.users.find(user_id("sent", service)))
        assert (found.contents.service, found.contents.test) == (service.id, service.test)
        assert found.delivery is Delivery.SENT
    shop = processes[SHOP]
    with pytest.raises(VerificationFailed):
        shop.verify(address("sent"), numbers["sent"])
    assert shop.verify(address("sent"), numbers[SHOP.id]) == TOKEN
    ours = processes[DEFAULT_SERVICE].keys(address("sent"))
    assert store.get(ours.mailbox(Names(INDEX).mailbox(address("sent")))) == b"4"
    assert contradictions(store) == []
    for process in processes.values():
        process.close()


def test_a_service_does_not_see_what_another_registered_at_an_earlier_release(left: Left) -> None:
    """Not by its id, either."""
    api, _ = left
    for service in OTHERS:
        path = f"/api/users/{user_id('sent', service)}"
        calls = (api.call("GET", path), api.call("DELETE", path), api.call("POST", f"{path}/resend"))
        assert {answer.status_code for answer in calls} == {404}


def test_mails_that_an_earlier_release_owed_go_out(left: Left) -> None:
    """With the number that was given, in the language that was asked for; none is mailed twice."""
    api, numbers = left
    for person in MAILED:
        (mail,) = api.mail.box.wait_for(email(person), timeout_s=40)
        assert mail.number == numbers[person]
    assert api.mail.box.to(email("sent")) == []


def test_requests_of_an_earlier_release_are_not_carried_out_again(left: Left) -> None:
    """Answered, or stored and never answered: the same registration."""
    api, numbers = left
    sent, pending = (api.register(email(person), TOKEN, headers=named(KEY)) for person in ("sent", "pending"))
    assert (sent.status_code, pending.status_code) == (201, 202)
    assert api.register(email("sent"), "another", headers=named(KEY)).status_code == 422

    def answered() -> requests.Response | None:
        answer = api.register(email("running"), TOKEN, headers=named(KEY))
        return None if answer.status_code == 409 else answer

    assert there(wait_until(answered, 10)).json()["id"] == user_id("running")
    for person in ("sent", "pending", "running"):
        assert api.verify(email(person), numbers[person]).status_code == 200


def test_registrations_of_an_earlier_release_are_replaced_and_erased(left: Left, store: redis.Redis) -> None:
    """Nothing of the old data is left."""
    api, numbers = left
    for person in PEOPLE:
        assert api.register(email(person)).status_code in (201, 202)
        assert api.verify(email(person), numbers[person]).status_code in (403, 429)
        assert api.call("DELETE", f"/api/users/{user_id(person)}").status_code == 204
    assert contradictions(store) == []
    others = {keys_of(user_id("sent", service)).user for service in OTHERS}
    assert {text(key) for key in store.scan_iter("*:user:*")} == others


@pytest.fixture
def newer(service: Gunicorn, mail_server: MailServer, store: redis.Redis) -> tuple[Api, str]:
    """The service, and the id of a registration that a later release has made its own."""
    api = Api(service, mail_server)
    found = api.register("ada@example.com").json()["id"]
    keys = keys_of(found)
    fields: dict[Any, Any] = {
        Field.LAYOUT: LAYOUT_VERSION + 1,
        Field.DELIVERY: "elsewhere",
        Field.CREATED_MS: "0x1",
    }
    store.hset(keys.user, mapping=fields)
    store.hdel(keys.user, Field.REGISTRATION, Field.NUMBER, Field.ATTEMPTS, "d0")
    return api, str(found)


def test_a_record_of_a_later_release_is_a_503_that_says_so(
    newer: tuple[Api, str], service: Gunicorn, store: redis.Redis
) -> None:
    """Never a 500, and nothing is changed, whatever is asked for."""
    api, found = newer
    before = everything(store, "*:user:*")
    for answer in (
        api.call("GET", f"/api/users/{found}"),
        api.verify("ada@example.com", wrong(api.number_of("ada@example.com"))),
        api.register("ada@example.com"),
        api.register("ada@example.com", headers=named("k")),
        api.call("POST", f"/api/users/{found}/resend"),
        api.call("DELETE", f"/api/users/{found}"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/storage-unavailable")
        assert "newer version" in answer.json()["detail"]
        assert answer.headers["Retry-After"].isdigit()
    assert everything(store, "*:user:*") == before
    assert "newer version" in service.log
    assert "unforeseen" not in service.log


@pytest.mark.parametrize(
    "ask",
    [
        lambda at, one: at.users.find(one),
        lambda at, one: at.users.erase(one),
        lambda at, one: at.outbox.retry(one),
        lambda at, one: at.outbox.drop(one),
    ],
    ids=["find", "erase", "retry", "drop"],
)
def test_an_operator_is_told_of_a_record_of_a_later_release(
    valkey_server: Valkey, store: redis.Redis, ask: Callable[[Process, str], object]
) -> None:
    """Each call says that the version is newer, and changes nothing."""
    process = Process(valkey_server.url)
    one = process.registered(ada(), lease_ms=0).registration.user_id
    store.hset(keys_of(one).user, Field.LAYOUT, LAYOUT_VERSION + 1)
    before = everything(store)
    with pytest.raises(NewerRecord):
        ask(process, one)
    assert everything(store) == before
    process.close()


def test_senders_and_listings_leave_a_record_of_a_later_release_alone(
    valkey_server: Valkey, store: redis.Redis
) -> None:
    """It is not claimed, its mail stays owed, and the rest of the list is shown."""
    process = Process(valkey_server.url)
    stored = process.registered(ada())
    registration = stored.registration
    other = process.registered(address("bob"), lease_ms=0).registration
    store.hset(keys_of(registration.user_id).user, Field.LAYOUT, LAYOUT_VERSION + 1)
    before = everything(store, "*:user:*")
    settled = process.outbox.settle(
        registration.user_id, registration.mail_id, stored.owner or "", Delivery.REFUSED, go_on=True
    )
    assert settled.left
    assert process.outbox.claim(registration.user_id, "me").registration is None
    assert everything(store, "*:user:*") == before
    assert store.zscore(keys_of(registration.user_id).outbox, registration.user_id)
    assert [owed.user_id for owed in process.census.pending()] == [other.user_id]
    assert list(process.census.failed()) == []
    assert process.census.owed().depth == 2
    process.close()


def test_a_mark_of_a_later_release_is_a_503(valkey_server: Valkey, store: redis.Redis) -> None:
    """Not another request's, and nothing that can be carried out."""
    process = Process(valkey_server.url)
    process.registered(ada(), key=KEY)
    (mark,) = store.scan_iter("*:idempotency:*")
    fingerprint, registration, created_ms, expires_ms, _ = text(store.get(mark)).split("|")
    known = f"{fingerprint}|{registration}|{created_ms}"
    for value in ("2|whatever", f"{known}|{expires_ms}|bounced", f"{known}|sent"):
        store.set(mark, value, keepttl=True)
        with pytest.raises(NewerRecord):
            process.outcome(ada(), key=KEY)
    process.close()


def test_an_unknown_delivery_state_is_no_500(newer: tuple[Api, str], store: redis.Redis) -> None:
    """A record of our version that does not hold what it should. It does not tell whose it is either, so only
    the operator can erase it; registering again replaces it."""
    api, found = newer
    store.hset(keys_of(found).user, Field.LAYOUT, LAYOUT_VERSION)
    answer = api.call("GET", f"/api/users/{found}")
    assert answer.status_code == 503
    assert Delivery.SENT.value not in answer.text
    assert api.call("DELETE", f"/api/users/{found}").status_code == 503
    assert store.exists(keys_of(found).user)
    assert api.register("ada@example.com").json()["id"] == found
    assert api.call("DELETE", f"/api/users/{found}").status_code == 204
