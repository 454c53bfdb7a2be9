"""Reports of mails over HTTP: what counts, and what changes nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.http.bodies import MAX_MESSAGE_BYTES
from tests.api.conftest import API_KEYS, SHOP, Api
from tests.support.faults.redis import everything
from tests.support.metrics import read
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn, settings_for
from tests.support.stores import own_valkey
from tests.support.tenants import key_of, services_file
from tests.unit.test_reports import TAG, VERDICTS, fixture

INDEX = "the index key of the services with bounces"
REPORTS = re.compile(r'cedula_reports_total\{kind="(\w+)",outcome="(\w+)"\}')
RFC822 = {"Content-Type": "message/rfc822"}


# its index key is not that of other services
valkey_server = own_valkey("module")


@pytest.fixture(scope="module")
def settings_here(
    valkey_server: Valkey, mail: MailServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Two services in a file."""
    file = services_file(tmp_path_factory.mktemp("services"), shop={}, bank={})
    return settings_for(valkey_server, mail) | {
        "INDEX_KEY": INDEX,
        "SERVICES_FILE": str(file),
        "API_KEYS": API_KEYS,
        "ADDRESS_LIMIT": "5/hour",
    }


@pytest.fixture(scope="module")
def bouncing(settings_here: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """A process that knows its mails again."""
    environment = settings_here | {"BOUNCE_ADDRESS": "bounce@acme.example"}
    with gunicorn(tmp_path_factory.mktemp("service"), environment) as server:
        yield server


@pytest.fixture
def shop(bouncing: Gunicorn, mail: MailServer, store: redis.Redis) -> Api:
    return Api(bouncing, mail, key_of("shop"))


@pytest.fixture
def bank(bouncing: Gunicorn, mail: MailServer, store: redis.Redis) -> Api:
    return Api(bouncing, mail, key_of("bank"))


def registrations(store: redis.Redis) -> dict[bytes, Any]:
    """What Redis holds of users: all but what processes tell each other."""
    return {key: value for key, value in everything(store).items() if key.startswith(b"{")}


def tag_of(api: Api, email: str) -> str:
    """The tag of the last mail, from its envelope."""
    sender = api.mail.box.wait_for(email)[-1].sender
    name, _, domain = sender.partition("@")
    assert domain == "acme.example"
    return name.removeprefix("bounce+")


def look_up(api: Api, user_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.call("GET", f"/api/users/{user_id}").json()
    return found


def told(api: Api, **body: str) -> requests.Response:
    return api.call("POST", "/api/bounces", json=body)


def bounce_of(tag: str, name: str = "postfix-unknown-user") -> bytes:
    """A fixture about another mail."""
    return fixture(name).replace(TAG.encode(), tag.encode())


def sent(api: Api, message: bytes) -> requests.Response:
    return api.call("POST", "/api/bounces", data=message, headers=RFC822)


def test_a_mail_that_came_back_is_known_and_its_address_held_back(shop: Api, email: str) -> None:
    """The whole way, by the message that the mail server wrote."""
    user_id = shop.register(email).json()["id"]
    answer = sent(shop, bounce_of(tag_of(shop, email)))
    assert (answer.status_code, answer.content) == (204, b"")
    found = look_up(shop, user_id)
    assert (found["delivery"], found["mail_error"]) == ("bounced", "bounced 5.1.1")
    assert found["reported_at"] >= found["mailed_at"]
    for again in (shop.register(email), shop.call("POST", f"/api/users/{user_id}/resend")):
        assert (again.status_code, again.json()["type"]) == (422, "/problems/undeliverable-address")
    assert look_up(shop, user_id) == found
    assert len(shop.mail.box.to(email)) == 1
    assert shop.verify(email, shop.number_of(email)).json()["token"] == "t0ken"


@pytest.mark.parametrize("name", ["tag", "message_id", "message_id without brackets"])
def test_a_provider_s_webhook_names_the_mail_in_json(shop: Api, email: str, name: str) -> None:
    """By whatever it has of it."""
    user_id = shop.register(email).json()["id"]
    message_id = shop.mail.box.wait_for(email)[-1].message_id
    values = {
        "tag": {"tag": tag_of(shop, email)},
        "message_id": {"message_id": message_id},
        "message_id without brackets": {"message_id": message_id.strip("<>")},
    }
    assert told(shop, kind="complained", **values[name]).status_code == 204
    assert look_up(shop, user_id)["delivery"] == "complained"


@pytest.mark.parametrize(
    ("kind", "code", "delivery", "error"),
    [
        ("bounced", "", "bounced", "bounced"),
        ("bounced", "550", "bounced", "bounced 550"),
        ("bounced", "5.2.2", "sent", "soft 5.2.2"),
        ("bounced", "4.4.7", "sent", "soft 4.4.7"),
        ("bounced", "605", "sent", "soft 605"),
        ("complained", "", "complained", "complained"),
        ("delivered", "2.0.0", "sent", None),
    ],
)
def test_what_each_kind_does(
    shop: Api, email: str, kind: str, code: str, delivery: str, error: str | None
) -> None:
    """A full mailbox or a filter does not hold an address back; a delivery is only counted."""
    user_id = shop.register(email).json()["id"]
    body = {"tag": tag_of(shop, email), "kind": kind} | ({"code": code} if code else {})
    assert told(shop, **body).status_code == 204
    found = look_up(shop, user_id)
    assert (found["delivery"], found.get("mail_error")) == (delivery, error)
    assert shop.register(email).status_code == (201 if delivery == "sent" else 422)


def test_each_mail_has_its_own_tag(shop: Api, email: str) -> None:
    """Also a resend, whose registration is the same: a report of either is one of it."""
    user_id = shop.register(email).json()["id"]
    first = tag_of(shop, email)
    shop.call("POST", f"/api/users/{user_id}/resend")
    second = tag_of(shop, email)
    assert first != second
    told(shop, tag=first, kind="bounced")
    assert look_up(shop, user_id)["delivery"] == "bounced"


def test_a_report_of_what_was_replaced_changes_nothing(shop: Api, email: str, store: redis.Redis) -> None:
    """It is another registration's mail."""
    shop.register(email)
    old = tag_of(shop, email)
    user_id = shop.register(email).json()["id"]
    before = registrations(store)
    assert sent(shop, bounce_of(old)).status_code == 204
    assert registrations(store) == before
    assert look_up(shop, user_id)["delivery"] == "sent"


def test_a_service_reports_for_itself_alone(shop: Api, bank: Api, email: str, store: redis.Redis) -> None:
    """And is not told whose the mail is."""
    shop.register(email)
    tag = tag_of(shop, email)
    before = registrations(store)
    assert told(bank, tag=tag, kind="bounced").status_code == 204
    assert sent(bank, bounce_of(tag)).status_code == 204
    assert registrations(store) == before


def counted(server: Gunicorn) -> Counter[tuple[str, ...]]:
    """How many reports there were, by kind and outcome."""
    text = Api(server, key=SHOP).call("GET", "/metrics").text
    found = {REPORTS.fullmatch(name): value for name, value in read(text).items()}
    return Counter({match.groups(): int(value) for match, value in found.items() if match})


def test_reports_are_counted_by_what_came_of_them(
    shop: Api, bank: Api, bouncing: Gunicorn, email: str
) -> None:
    """Forged ones and answers of people, too."""
    shop.register(email)
    tag = tag_of(shop, email)
    before = counted(bouncing)
    told(shop, tag=tag, kind="delivered")
    told(shop, tag="a" * 52, kind="complained")
    sent(shop, bounce_of(tag, "out-of-office-german"))
    told(bank, tag=tag, kind="bounced")
    shop.register(email)
    told(shop, tag=tag, kind="bounced")
    assert counted(bouncing) - before == Counter(
        {
            ("delivered", "noted"): 1,
            ("complained", "no_tag"): 1,
            ("nothing", "ignored"): 1,
            ("bounced", "foreign"): 1,
            ("bounced", "not_live"): 1,
        }
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "bounced"}, "tag"),
        ({"kind": "bounced", "tag": "a" * 52, "message_id": "x"}, "tag"),
        ([], "_schema"),
        ({"kind": "bounced", "tag": ""}, "tag"),
        ({"kind": "opened", "tag": "a" * 52}, "kind"),
        ({"tag": "a" * 52}, "kind"),
        ({"kind": "bounced", "tag": "a" * 52, "code": "user unknown <ada@example.com>"}, "code"),
        ({"kind": "bounced", "tag": "a" * 52, "code": "5.1.1\n"}, "code"),
        ({"kind": "bounced", "tag": "a" * 52, "more": 1}, "more"),
    ],
)
def test_what_cannot_be_read_is_told(shop: Api, body: Any, field: str) -> None:
    """422, with the name of the field."""
    answer = shop.call("POST", "/api/bounces", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")
    assert field in answer.json()["errors"]


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"", RFC822, 422),
        (b"x" * (MAX_MESSAGE_BYTES + 1), RFC822, 413),
        (b"x" * 65_537, {"Content-Type": "application/json"}, 413),
        (b"x", {"Content-Type": "text/plain"}, 415),
        (b"x", {**RFC822, "Content-Encoding": "gzip"}, 415),
        (b"{", {"Content-Type": "application/json"}, 400),
    ],
)
def test_bodies_are_read_strictly(shop: Api, data: bytes, headers: dict[str, str], status: int) -> None:
    """A message may have a megabyte, JSON 64 KiB as everywhere."""
    assert shop.call("POST", "/api/bounces", data=data, headers=headers).status_code == status


@pytest.mark.parametrize("chunked", [False, True])
def test_a_message_may_have_a_megabyte(shop: Api, email: str, chunked: bool) -> None:
    """Also where its length is not told before."""
    user_id = shop.register(email).json()["id"]
    message = bounce_of(tag_of(shop, email))
    message += b"x" * (MAX_MESSAGE_BYTES - len(message))
    body: Any = iter([message[:70_000], message[70_000:]]) if chunked else message
    answer = shop.call("POST", "/api/bounces", data=body, headers=RFC822)
    assert answer.status_code == 204, answer.text
    assert look_up(shop, user_id)["delivery"] == "bounced"


def test_a_longer_message_is_refused_also_in_chunks(shop: Api) -> None:
    """Whose length nobody knows before."""
    body = iter([b"x" * 65_536] * 17)
    assert shop.call("POST", "/api/bounces", data=body, headers=RFC822).status_code == 413


def test_who_has_no_key_reports_nothing(bouncing: Gunicorn) -> None:
    """401, as everywhere."""
    assert Api(bouncing).call("POST", "/api/bounces", data=b"x", headers=RFC822).status_code == 401


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_forged_report_never_changes_anything(shop: Api, store: redis.Redis, data: st.DataObject) -> None:
    """Whatever real report is made up for a live registration, by whoever knows its id and address: a tag
    without the key is none."""
    email = "forged@example.com"
    if not shop.mail.box.to(email) or not store.keys("*:user:*"):
        shop.register(email)
    tag = tag_of(shop, email)
    place = data.draw(st.integers(0, len(tag) - 1))
    letter = data.draw(
        st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(lambda char: char != tag[place])
    )
    forged = tag[:place] + letter + tag[place + 1 :]
    before = registrations(store)
    answer = sent(shop, bounce_of(forged, data.draw(st.sampled_from(sorted(VERDICTS)))))
    assert answer.status_code == 204
    assert registrations(store) == before


def test_without_a_bounce_address_mails_are_as_they_were(
    settings_here: dict[str, str], mail: MailServer, store: redis.Redis, email: str, tmp_path: Path
) -> None:
    """The sender is the service's, the Message-ID says nothing, and no report of such a mail counts."""
    with gunicorn(tmp_path, settings_here) as server:
        shop = Api(server, mail, key_of("shop"))
        shop.register(email)
        sent = mail.box.wait_for(email)[-1]
        assert "+" not in sent.sender
        before = registrations(store)
        assert told(shop, message_id=sent.message_id, kind="bounced").status_code == 204
        assert registrations(store) == before
