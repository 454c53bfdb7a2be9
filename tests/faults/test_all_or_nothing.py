"""A script changes all or nothing: whatever it trips over, it trips over before its first write.

A new script is one line in SCRIPTS.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
import redis

from app.domain.registration import Delivery, Registration
from app.domain.report import ReportKind
from app.domain.service import Budget
from app.errors import CedulaError, StorageUnavailable
from app.repositories.client_limits import ClientLimits
from app.repositories.events import Claim, Queue
from app.repositories.keys import RELAY_LOCK, Field, Names
from app.repositories.outbox import Outbox
from tests.api.conftest import wrong
from tests.support.faults.redis import REFUSALS, Fault, everything
from tests.support.people import KEY, Process, ada, age_mark
from tests.support.scan import contradictions
from tests.support.servers import Valkey
from tests.support.stores import own_valkey
from tests.support.values import text, there


@dataclass
class Scene:
    """One registration whose mail is under way, with counters and a mark."""

    process: Process
    store: redis.Redis
    owner: str
    registration: Registration
    number: str
    claim: Claim | None = None

    def key(self, kind: str) -> str:
        """The key of that kind; `number` is the live one, which no script can declare."""
        keys = self.process.keys(ada())
        if kind == "lock":
            return RELAY_LOCK
        if kind == "number":
            return self.number
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

    @property
    def queue(self) -> Queue:
        return Queue(self.process.name, self.registration.user_id)

    def claim_event(self) -> None:
        self.claim = self.process.events.claim(self.queue)

    def settle_event(self, wait_ms: int | None = None) -> None:
        assert self.claim is not None
        self.process.events.settle(self.queue, self.claim, wait_ms)

    def end(self) -> None:
        """The registration has reached its end."""
        keys = self.process.keys(ada())
        self.store.delete(keys.user, self.number)
        self.store.zrem(keys.outbox, keys.user_id)


@dataclass(frozen=True)
class Deed:
    """One call of a script, and the kinds of key that it reads. `telling`: those that it reads besides where
    the service wants events. `first`: what comes before it."""

    act: Callable[[Scene], object]
    reads: str
    telling: str = ""
    first: Callable[[Scene], object] = lambda _: None


@dataclass(frozen=True)
class Case:
    """One deed in one scene. `listens`: its service wants events."""

    deed: Deed
    listens: bool
    scene: Scene

    @property
    def reads(self) -> list[str]:
        return f"{self.deed.reads} {self.deed.telling if self.listens else ''}".split()


ANNOUNCING, END = "events", "expiry"
TELLING = f"{ANNOUNCING} {END}"
"""Not what the users of a shard share for their events: see tests/faults/test_shared_by_a_shard.py."""

SCRIPTS = {
    "register": Deed(
        lambda at: at.process.outcome(ada()),
        f"user number sender outbox sends mailbox suppressed {END}",
        ANNOUNCING,
    ),
    "replay": Deed(
        lambda at: at.process.outcome(ada(), key=KEY),
        f"user number sender outbox sends mailbox suppressed idempotency {END}",
        ANNOUNCING,
    ),
    "answer": Deed(lambda at: at.process.answered(ada(), at.registration, Delivery.SENT), "idempotency"),
    "forget": Deed(lambda at: at.process.answered(ada(), at.registration, None), "idempotency"),
    "resend": Deed(lambda at: at.process.resent(ada()), "user sender outbox sends mailbox suppressed"),
    "bounce": Deed(
        lambda at: at.report(ReportKind.BOUNCED), "user outbox", ANNOUNCING
    ),  # what is no suppression it replaces
    "soft bounce": Deed(lambda at: at.report(ReportKind.SOFT), "user outbox", ANNOUNCING),
    "verify": Deed(lambda at: at.verify(at.registration.number), "user number outbox tries", TELLING),
    "verify with a key": Deed(
        lambda at: at.verify(at.registration.number, KEY), "user number outbox tries verified", TELLING
    ),
    "guess with a key": Deed(
        lambda at: at.verify(wrong(at.registration.number), KEY), "user number outbox tries verified", TELLING
    ),
    "guess": Deed(lambda at: at.verify(wrong(at.registration.number)), "user number outbox tries", TELLING),
    "erase": Deed(lambda at: at.process.users.erase(at.registration.user_id), f"user number outbox {END}"),
    "claim": Deed(
        lambda at: at.process.outbox.claim(at.registration.user_id, at.owner),
        "user sender outbox",
        ANNOUNCING,
    ),
    "renew": Deed(lambda at: at.outbox.renew(at.registration.user_id, at.owner), "sender outbox"),
    "sent": Deed(lambda at: at.settle(Delivery.SENT), "user number sender outbox", TELLING),
    "failed": Deed(lambda at: at.settle(Delivery.FAILED), "user number sender outbox", TELLING),
    "put off": Deed(lambda at: at.settle(Delivery.PENDING), "user number sender outbox", TELLING),
    "refused": Deed(lambda at: at.settle(Delivery.REFUSED), "user number sender outbox", TELLING),
    "retry": Deed(lambda at: at.outbox.retry(at.registration.user_id), "user sender outbox"),
    "drop": Deed(lambda at: at.outbox.drop(at.registration.user_id), "user sender outbox", ANNOUNCING),
    "hold": Deed(lambda at: at.outbox.hold_relay(at.owner, 1000), ""),  # what is no lock it removes
    "count": Deed(lambda at: at.count(), "limits"),
    "refuse": Deed(lambda at: at.count(1), "limits"),
}
SCRIPTS_OF_EVENTS = {
    "register after an end": Deed(
        lambda at: at.process.outcome(ada()),
        "user sender outbox sends mailbox suppressed",
        TELLING,
        Scene.end,
    ),
    "tell an end": Deed(
        lambda at: at.process.events.note_expiry(at.registration.user_id), "user", TELLING, Scene.end
    ),
    "tell an end too early": Deed(
        lambda at: at.process.events.note_expiry(at.registration.user_id), "user", f"{TELLING} expiries"
    ),
    "claim an event": Deed(Scene.claim_event, "events schedule"),
    "an event is taken": Deed(Scene.settle_event, "events schedule", first=Scene.claim_event),
    "an event is not taken": Deed(
        lambda at: at.settle_event(1000), "events schedule", first=Scene.claim_event
    ),
    "drop events": Deed(lambda at: at.process.events.drop(at.queue), "events schedule"),
    "wake events": Deed(
        lambda at: at.process.events.wake([at.process.name], range(1000)), ""
    ),  # it goes on with others
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
    "events",
    "schedule",
    "waiting",
    "expiry",
    "expiries",
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
    Field.HEARD,
)

CASES = {
    **{name: (deed, False) for name, deed in SCRIPTS.items()},
    **{f"{name}, told": (deed, True) for name, deed in (SCRIPTS | SCRIPTS_OF_EVENTS).items()},
}
"""Each script, for a service that wants no events and for one that does."""


valkey_server = own_valkey("module")


@pytest.fixture(
    params=[
        pytest.param(case, id=name, marks=() if case[1] else pytest.mark.slow)  # told scripts touch all
        for name, case in CASES.items()
    ]
)
def case(request: pytest.FixtureRequest, valkey_server: Valkey, store: redis.Redis) -> Iterator[Case]:
    deed, listens = request.param
    with closing(Process(valkey_server.url, mailbox_limit=9, listens=listens)) as process:
        yield Case(deed, listens, built(process, store))
    store.flushall()


def built(process: Process, store: redis.Redis) -> Scene:
    """A registration before this one has left an event, where the service wants any."""
    first = process.registered(ada())
    process.outbox.settle(
        first.registration.user_id, first.registration.mail_id, there(first.owner), Delivery.SENT
    )
    stored = process.registered(ada(), key=KEY)
    keys = process.keys(ada())
    number = keys.number_prefix + text(store.hget(keys.user, Field.NUMBER))
    found = Scene(process, store, there(stored.owner), stored.registration, number)
    age_mark(store, 60)  # so that a replay writes
    with pytest.raises(CedulaError):
        found.verify(wrong(stored.registration.number))
    process.outbox.hold_relay(found.owner, 60_000)
    found.count()
    found.fill_window()
    return found


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
def test_a_key_of_the_wrong_type_stops_a_script_whole(case: Case, kind: str) -> None:
    """Something stands where something else should: whoever reads it changes nothing; others do not care."""
    case.deed.first(case.scene)
    key, store = case.scene.key(kind), case.scene.store
    store.delete(key)
    if kind == "events":
        store.set(key, "no list", px=60_000)
    else:
        store.rpush(key, "a list")
    assert failed_whole(case.deed, case.scene) == (kind in case.reads)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_number_that_cannot_be_read_stops_a_script_whole(case: Case, field: Field) -> None:
    """Or the script needs it for nothing, and does all it has to."""
    case.scene.store.hset(case.scene.key("user"), field, "x")
    case.deed.first(case.scene)
    if not failed_whole(case.deed, case.scene):
        assert contradictions(case.scene.store) == []


@pytest.fixture
def scene(valkey_server: Valkey, store: redis.Redis) -> Iterator[Scene]:
    with closing(Process(valkey_server.url, mailbox_limit=9)) as process:
        yield built(process, store)
    store.flushall()


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
def test_a_redis_that_refuses_writes_stops_a_script_whole(
    case: Case, valkey_server: Valkey, fault: Fault
) -> None:
    """Or lets it through whole: under OOM only what deletes, an erasure, goes on."""
    case.deed.first(case.scene)
    with fault(valkey_server, case.scene.store):
        if not failed_whole(case.deed, case.scene):
            assert contradictions(case.scene.store) == []
