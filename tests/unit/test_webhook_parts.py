"""Events as receivers get them, and the addresses that they may go to."""

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.domain.registration import EventKind
from app.domain.service import Endpoint
from app.webhook.addresses import Receiver, is_loopback, is_public
from app.webhook.answers import NotTaken
from app.webhook.signing import signed
from tests.support.events import NEXT_SECRET, SECRET, event


@pytest.mark.parametrize("kind", EventKind)
def test_an_event_says_what_happened_to_whom_and_when(kind: EventKind) -> None:
    """And no more: neither address nor token nor number."""
    body = json.loads(signed(event(kind=kind), (SECRET,), 0).body)
    assert body == {
        "type": f"registration.{kind}",
        "timestamp": "2026-09-21T14:13:20.123Z",
        "data": {"id": "u" * 26, "created_at": "2026-09-21T13:56:40.007Z"},
    }


@pytest.mark.parametrize("secrets", [(SECRET,), (SECRET, NEXT_SECRET)], ids=["one", "two"])
def test_each_secret_signs(secrets: tuple[str, ...]) -> None:
    """The reference library of receivers accepts the event with any of them, and with no other."""
    headers, body = signed(event(), secrets, time.time())
    assert len(headers["webhook-signature"].split(" ")) == len(secrets)
    for secret in secrets:
        assert Webhook(secret).verify(body, headers) == json.loads(body)
    for secret in {SECRET, NEXT_SECRET} - set(secrets):
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(secret).verify(body, headers)


def test_a_changed_event_does_not_pass() -> None:
    """Body, id and time are signed."""
    headers, body = signed(event(), (SECRET,), time.time())
    later = str(int(headers["webhook-timestamp"]) + 1)
    for changed in ({}, {"webhook-id": "event-1"}, {"webhook-timestamp": later}):
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(SECRET).verify(body if changed else body.replace(b"sent", b"verified"), headers | changed)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999_999_6])
def test_the_time_that_is_signed_is_the_time_that_is_told(fraction: float) -> None:
    """Also in the last moment of a second, which datetime rounds up."""
    second = int(time.time())
    headers, body = signed(event(), (SECRET,), second + fraction)
    assert headers["webhook-timestamp"] == str(second)
    Webhook(SECRET).verify(body, headers)


def test_each_attempt_tells_the_same_id_and_its_own_time() -> None:
    """Receivers refuse old times, and know a repetition by the id."""
    first, second = (signed(event(7), (SECRET,), now) for now in (1_800_000_000, 1_800_000_900))
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "event-7"
    assert [each.headers["webhook-timestamp"] for each in (first, second)] == ["1800000000", "1800000900"]
    assert first.body == second.body
    assert first.headers["content-type"] == "application/json"
    assert first.headers["user-agent"] == "Cedula"


PUBLIC = [
    "8.8.8.8",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",  # NAT64 and 6to4 of 8.8.8.8
    "2002:808:808::1",
]

PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # where clouds keep their credentials
    "100.64.0.1",  # CGNAT
    "0.0.0.0",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "::",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "2001::1",  # Teredo
    "::10.0.0.1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:a00:1::1",
    "2002:7f00:1::1",
]

LOOPBACK = ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"]


def test_an_address_is_public_private_or_loopback() -> None:
    """Also one that is only the way to another."""
    found = {address: (is_public(address), is_loopback(address)) for address in PUBLIC + PRIVATE + LOOPBACK}
    assert [address for address in PUBLIC if found[address] != (True, False)] == []
    assert [address for address in PRIVATE if found[address] != (False, False)] == []
    assert [address for address in LOOPBACK if not found[address][1]] == []


@dataclass(frozen=True)
class Rule:
    """Whether a service may have events sent to an address; the code of the refusal, or nothing."""

    url: str
    address: str
    code: str = ""
    private: bool = False


RULES = [
    Rule("https://x.example", "8.8.8.8"),
    Rule("https://x.example", "127.0.0.1"),
    Rule("https://x.example", "10.0.0.1", "private address"),
    Rule("https://x.example", "10.0.0.1", private=True),
    Rule("https://x.example", "::ffff:10.0.0.1", "private address"),
    Rule("http://localhost", "127.0.0.1"),
    Rule("http://localhost", "8.8.8.8", "not encrypted"),
    Rule("http://localhost", "10.0.0.1", "not encrypted"),
    Rule("http://localhost", "10.0.0.1", "not encrypted", private=True),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_what_a_service_may_reach(rule: Rule) -> None:
    """Private addresses where it was wanted; without TLS this machine only, whatever was wanted."""
    receiver = Receiver.of(Endpoint(rule.url, (SECRET,), private=rule.private))
    if not rule.code:
        receiver.check(rule.address)
        return
    with pytest.raises(NotTaken) as raised:
        receiver.check(rule.address)
    assert raised.value.code == rule.code


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Acme.example/x", (True, "acme.example", 443)),
        ("https://acme.example:8443?x", (True, "acme.example", 8443)),
        ("HTTP://[::1]:3000/", (False, "::1", 3000)),
        ("http://localhost", (False, "localhost", 80)),
    ],
)
def test_a_url_says_whom_to_connect_to(url: str, expected: tuple[Any, ...]) -> None:
    """The rest of it is for the request."""
    assert Receiver.of(Endpoint(url, (SECRET,)))[:3] == expected
