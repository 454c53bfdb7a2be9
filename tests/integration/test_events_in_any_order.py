"""Whatever happens to two people, in whatever order: their service is told what a small model says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.address import Address
from app.domain.registration import Delivery, EventKind, Registration, Stored, mail_id
from app.domain.report import ReportKind
from app.errors import VerificationFailed
from app.repositories.events import Left
from tests.api.conftest import wrong
from tests.support.people import Process
from tests.support.scan import contradictions
from tests.support.servers import Valkey
from tests.support.telling import Person
from tests.support.values import there

Event = tuple[EventKind, int]
"""Of which kind, and when its registration was made."""


@dataclass
class Live:
    """What the model knows of a live registration. `told`: the last mail whose acceptance is an event."""

    registration: Registration
    told: int = -1
    resends: int = 0
    state: str = "pending"
    reported: bool = False

    @property
    def owed(self) -> str:
        """The mail that is asked for."""
        return mail_id(self.registration.registration_id, self.resends)

    @property
    def created_ms(self) -> int:
        return self.registration.asked_for_ms


@dataclass
class Model:
    """One address: its registration, who is mailing it, and all that its service is to be told."""

    person: Person
    live: Live | None = None
    ended: int | None = None
    sending: Stored | None = None
    accepted: Stored | None = None
    expected: list[Event] = field(default_factory=list)
    delivered: list[Event] = field(default_factory=list)

    def happened(self, kind: EventKind, created_ms: int) -> None:
        self.expected.append((kind, created_ms))

    def end_is_told(self) -> None:
        if self.ended is not None:
            self.happened(EventKind.EXPIRED, self.ended)
        self.ended = None

    def accept(self, mail: Registration) -> None:
        """Its mail server has taken it."""
        live = self.live
        if live and mail.registration_id == live.registration.registration_id and mail.resends > live.told:
            live.told = mail.resends
            self.happened(EventKind.SENT, live.created_ms)

    def settle(self, mail: Registration, delivery: Delivery) -> None:
        """The mail is settled by whoever may."""
        if delivery is Delivery.SENT:
            self.accept(mail)
        if self.live is None or mail.mail_id != self.live.owed:
            return
        if delivery is Delivery.REFUSED:
            self.live = None
        elif not self.live.reported:
            self.live.state = str(delivery)
            if delivery is Delivery.FAILED:
                self.happened(EventKind.FAILED, self.live.created_ms)


class World:
    """Two people of one service, and what can happen to them. What cannot happen just now does nothing."""

    def __init__(self, process: Process, store: redis.Redis) -> None:
        store.flushall()
        self.process, self.store = process, store
        addresses = (Address.parse("ada@example.com"), Address.parse("eve@example.com"))
        self.models = [Model(Person(process, store, address)) for address in addresses]

    def register(self, at: Model, ttl_s: int) -> None:
        self.process.ttl_s = ttl_s
        stored = at.person.registered()
        at.end_is_told()
        at.live = Live(stored.registration)
        at.sending = stored if stored.owner else at.sending

    def resend(self, at: Model) -> None:
        if at.live is not None:
            stored = there(self.process.resent(at.person.address))
            at.live.resends, at.live.state, at.live.reported = at.live.resends + 1, "pending", False
            at.sending = stored if stored.owner else at.sending

    def claim_a_mail(self, at: Model) -> None:
        """What a relay does; the address may be owed nothing."""
        if at.sending is None:
            claim = self.process.outbox.claim(at.person.user_id, "relay")
            if claim.registration is not None:
                at.sending = Stored(claim.registration, "relay")

    def settle(self, at: Model, delivery: Delivery) -> None:
        if at.sending is not None:
            at.person.settled(at.sending, delivery)
            at.settle(at.sending.registration, delivery)
            at.accepted = at.sending if delivery is Delivery.SENT else None
            at.sending = None

    def settle_again(self, at: Model) -> None:
        """The answer to the first settling was lost."""
        if at.accepted is not None and not at.person.settled(at.accepted).lost:
            at.settle(at.accepted.registration, Delivery.SENT)

    def report(self, at: Model, kind: ReportKind) -> None:
        """Of the mail that is under way, which was accepted then, or of one before it."""
        if at.live is None:
            return
        mail = max(at.live.told, 0)
        sending = at.sending.registration if at.sending else None
        if sending and sending.registration_id == at.live.registration.registration_id:
            mail = sending.resends
        at.person.reported(kind, mail)
        at.accept(at.live.registration._replace(resends=mail))
        if at.live.state not in (kind, ReportKind.COMPLAINED):
            at.happened(EventKind(kind.value), at.live.created_ms)
            at.live.state = str(kind)
        at.live.reported = True

    def verify(self, at: Model) -> None:
        if at.live is not None:
            at.person.verified(Stored(at.live.registration, None))
            if at.live.told < 0:
                at.happened(EventKind.SENT, at.live.created_ms)
            at.happened(EventKind.VERIFIED, at.live.created_ms)
            at.live = None

    def guess(self, at: Model) -> None:
        if at.live is not None:
            with pytest.raises(VerificationFailed):
                self.process.verify(at.person.address, wrong(at.live.registration.number))

    def erase(self, at: Model) -> None:
        assert self.process.users.erase(at.person.user_id) == (at.live is not None)
        at.live = None

    def end(self, at: Model) -> None:
        if at.live is not None and self.store.exists(self.process.keys(at.person.address).expiry):
            at.person.ended()
            at.ended = at.live.created_ms
            at.live = None

    def sweep(self, at: Model) -> None:
        assert at.person.swept() == (at.ended is not None)
        at.end_is_told()

    def deliver(self, at: Model, *, fails: bool = False) -> None:
        claim = self.process.events.claim(at.person.queue)
        assert (claim is None) == (len(at.delivered) == len(at.expected))
        if claim is None:
            return
        left = self.process.events.settle(at.person.queue, claim, wait_ms=0 if fails else None)
        if fails:
            assert left is Left.WAITS
            return
        at.delivered.append((claim.event.kind, claim.event.created_ms))
        assert left is (Left.MORE if len(at.delivered) < len(at.expected) else Left.EMPTY)

    def lose_scripts(self, _: Model) -> None:
        self.store.script_flush()

    def finish(self) -> None:
        """Every end is told, and every event delivered."""
        for at in self.models:
            self.settle_again(at)
            self.sweep(at)
            while len(at.delivered) < len(at.expected):
                self.deliver(at)
            self.deliver(at)
            assert at.delivered == at.expected


MOVES: dict[str, Callable[[World, Model], None]] = {
    "register": lambda world, at: world.register(at, 3600),
    "register without an end": lambda world, at: world.register(at, 0),
    "resend": World.resend,
    "claim a mail": World.claim_a_mail,
    "it is sent": lambda world, at: world.settle(at, Delivery.SENT),
    "it is put off": lambda world, at: world.settle(at, Delivery.PENDING),
    "it failed": lambda world, at: world.settle(at, Delivery.FAILED),
    "it is refused": lambda world, at: world.settle(at, Delivery.REFUSED),
    "settle again": World.settle_again,
    "it bounced": lambda world, at: world.report(at, ReportKind.BOUNCED),
    "it is unwanted": lambda world, at: world.report(at, ReportKind.COMPLAINED),
    "verify": World.verify,
    "guess": World.guess,
    "erase": World.erase,
    "end": World.end,
    "sweep": World.sweep,
    "deliver": World.deliver,
    "deliver in vain": lambda world, at: world.deliver(at, fails=True),
    "lose scripts": World.lose_scripts,
}
OFTEN = ("register", "resend", "it is sent")
STEPS = st.lists(st.tuples(st.sampled_from((*MOVES, *OFTEN)), st.integers(0, 1)), min_size=40, max_size=80)


@pytest.fixture
def process(valkey_server: Valkey, store: redis.Redis) -> Iterator[Process]:
    found = Process(valkey_server.url, limit=0, listens=True)
    yield found
    found.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runs", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_what_is_delivered_is_what_the_model_says(process: Process, store: redis.Redis, runs: int) -> None:
    """All of it, once, in its order; any difference is shrunk to the shortest."""

    @settings(max_examples=runs, database=None, suppress_health_check=list(HealthCheck))
    @given(STEPS)
    def live(steps: list[tuple[str, int]]) -> None:
        world = World(process, store)
        for move, who in steps:
            MOVES[move](world, world.models[who])
        world.finish()
        assert contradictions(store) == []

    live()
