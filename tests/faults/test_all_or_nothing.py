"""A script changes all or nothing: whatever it trips over, it trips over before its first write.

A new script is one line in SCRIPTS.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis

from app.domain.budget import Budget
from app.domain.registration import Delivery, Registration
from app.domain.report import ReportKind
from app.errors import CedulaError, StorageUnavailable
from app.repositories.client_limits import ClientLimits
from app.repositories.keys import RELAY_LOCK, Field, Names
from app.repositories.outbox import Outbox
from tests.api.conftest import wrong
from tests.support.faults.redis import REFUSALS, Fault, everything
from tests.support.people import KEY, Process, ada, age_mark
from tests.support.scan import contradictions
from tests.support.servers import Valkey, stopping
from tests.support.values import text


@dataclass
class Scene:
    """One registration whose mail is under way, with counters and a mark."""

    process: Process
    store: redis.Redis
    owner: str
    registration: Registration

    def key(self, kind: str) -> str:
        """The key of that kind; `number` is the live one, which no script can declare."""
        keys = self.process.keys(ada())
        if kind == "lock":
            return RELAY_LOCK
        if kind == "number":
            return keys.number_prefix + text(self.store.hget(keys.user, Field.NUMBER))
        if kind in ONE_KEY:
            (found,) = self.store.scan_iter(ONE_KEY[kind])
            return str(found.decode())
        return str(getattr(keys, kind))

    @property
    def outbox(self) -> Outbox:
        return self.process.outbox

    def settle(self, delivery: Delivery) -> None:
        ours = self.registration
        self.process.outbox.settle(ours.user_id, ours.mail_id, self.owner, delivery)

    def report(self, kind: ReportKind) -> None:
        record = self.process.users.find(self.registration.user_id)
        assert record is not None
        self.process.reports.note(record, kind, "5.1.1")

    def count(self, amount: int = 9) -> None:
        """`amount`: in the first of two windows."""
        limits = Budget(amount, 60), Budget(9, 120)
        ClientLimits(self.process.client, Names(None)).count("shop", limits)

    def fill_window(self) -> None:
        """Of one request, which seems to last longer than a window: then its end is written anew."""
        self.count(1)
        (key,) = self.store.scan_iter("cedula:limits:*:1/60")
        self.store.expire(key, 3600)

    def verify(self, number: str, key: str = "") -> None:
        self.process.verify(ada(), number, key)


@dataclass(frozen=True)
class Deed:
    """One call of a script, and the kinds of key that it reads."""

    act: Callable[[Scene], object]
    reads: str


SCRIPTS = {
    "register": Deed(
        lambda at: at.process.outcome(ada()), "user number sender outbox sends mailbox suppressed"
    ),
    "replay": Deed(
        lambda at: at.process.outcome(ada(), key=KEY),
        "user number sender outbox sends mailbox suppressed idempotency",
    ),
    "resend": Deed(lambda at: at.process.resent(ada()), "user sender outbox sends mailbox suppressed"),
    "bounce": Deed(
        lambda at: at.report(ReportKind.BOUNCED), "user outbox"
    ),  # what is no suppression it replaces
    "soft bounce": Deed(lambda at: at.report(ReportKind.SOFT), "user outbox"),
    "verify": Deed(lambda at: at.verify(at.registration.number), "user number outbox tries"),
    "verify with a key": Deed(
        lambda at: at.verify(at.registration.number, KEY), "user number outbox tries verified"
    ),
    "guess with a key": Deed(
        lambda at: at.verify(wrong(at.registration.number), KEY), "user number outbox tries verified"
    ),
    "guess": Deed(lambda at: at.verify(wrong(at.registration.number)), "user number outbox tries"),
    "erase": Deed(lambda at: at.process.users.erase(at.registration.user_id), "user number outbox"),
    "claim": Deed(
        lambda at: at.process.outbox.claim(at.registration.user_id, at.owner), "user sender outbox"
    ),
    "renew": Deed(lambda at: at.outbox.renew(at.registration.user_id, at.owner), "sender outbox"),
    "sent": Deed(lambda at: at.settle(Delivery.SENT), "user number sender outbox"),
    "put off": Deed(lambda at: at.settle(Delivery.PENDING), "user number sender outbox"),
    "refused": Deed(lambda at: at.settle(Delivery.REFUSED), "user number sender outbox"),
    "retry": Deed(lambda at: at.outbox.retry(at.registration.user_id), "user sender outbox"),
    "drop": Deed(lambda at: at.outbox.drop(at.registration.user_id), "user sender outbox"),
    "hold": Deed(lambda at: at.outbox.hold_relay(at.owner, 1000), ""),  # what is no lock it removes
    "count": Deed(lambda at: at.count(), "limits"),
    "refuse": Deed(lambda at: at.count(1), "limits"),
}
KINDS = (
    "user",
    "number",
    "sender",
    "outbox",
    "sends",
    "mailbox",
    "tries",
    "verified",
    "idempotency",
    "suppressed",
    "lock",
    "limits",
)
ONE_KEY = {"idempotency": "*:idempotency:*", "mailbox": "*:mailbox:*", "limits": "cedula:limits:*:9/120"}
"""Patterns of kinds of which there is one key, or one that is looked at last."""
FIELDS = (
    Field.LAYOUT,
    Field.CREATED_MS,
    Field.ATTEMPTS,
    Field.SINCE_MS,
    Field.EXPIRES_MS,
    Field.WRONG,
    Field.RESENDS,
)


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One of this module's own, to be mistreated."""
    with stopping(Valkey(tmp_path_factory.mktemp("valkey"), save="")) as server:
        yield server


@pytest.fixture
def scene(valkey_server: Valkey, store: redis.Redis) -> Iterator[Scene]:
    process = Process(valkey_server.url, mailbox_limit=9)
    stored = process.registered(ada(), key=KEY)
    assert stored.owner
    found = Scene(process, store, stored.owner, stored.registration)
    age_mark(store, 60)  # so that a replay writes
    with pytest.raises(CedulaError):
        found.verify(wrong(stored.registration.number))
    process.outbox.hold_relay(stored.owner, 60_000)
    found.count()
    found.fill_window()
    yield found
    process.close()
    store.flushall()


def failed_whole(deed: Deed, scene: Scene) -> bool:
    """Whether it failed; then nothing may have changed."""
    before = everything(scene.store)
    try:
        deed.act(scene)
    except StorageUnavailable:
        assert everything(scene.store) == before
        return True
    except CedulaError:  # a refusal of its own: a wrong number, a request that is running
        return False
    return False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deed", SCRIPTS.values(), ids=SCRIPTS)
def test_a_key_of_the_wrong_type_stops_a_script_whole(scene: Scene, deed: Deed, kind: str) -> None:
    """A list stands where something else should: whoever reads it changes nothing; others do not care."""
    key = scene.key(kind)
    scene.store.delete(key)
    scene.store.rpush(key, "a list")
    assert failed_whole(deed, scene) == (kind in deed.reads.split())


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@pytest.mark.parametrize("deed", SCRIPTS.values(), ids=SCRIPTS)
def test_a_number_that_cannot_be_read_stops_a_script_whole(scene: Scene, deed: Deed, field: Field) -> None:
    """Or the script needs it for nothing, and does all it has to."""
    scene.store.hset(scene.key("user"), field, "x")
    if not failed_whole(deed, scene):
        assert contradictions(scene.store) == []


@pytest.mark.parametrize(
    ("name", "counter"),
    [
        ("register", "sends"),
        ("register", "mailbox"),
        ("resend", "sends"),
        ("resend", "mailbox"),
        ("verify", "tries"),
        ("guess", "tries"),
        ("count", "limits"),
        ("refuse", "limits"),
    ],
)
@pytest.mark.parametrize("value", ["x", ""])
def test_a_counter_that_is_no_number_stops_a_script_whole(
    scene: Scene, name: str, counter: str, value: str
) -> None:
    """Nobody is let through because a count cannot be read."""
    scene.store.set(scene.key(counter), value, keepttl=True)
    assert failed_whole(SCRIPTS[name], scene)


@pytest.mark.parametrize("fault", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("deed", SCRIPTS.values(), ids=SCRIPTS)
def test_a_redis_that_refuses_writes_stops_a_script_whole(
    scene: Scene, valkey_server: Valkey, deed: Deed, fault: Fault
) -> None:
    """Or lets it through whole: under OOM only what deletes, an erasure, goes on."""
    with fault(valkey_server, scene.store):
        if not failed_whole(deed, scene):
            assert contradictions(scene.store) == []
