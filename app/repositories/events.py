"""The events that services are still to be told of: what waits, for whom, and when it is due.

They are written by the scripts that change a registration (`lua/events.lua`). Here they are handed out,
one at a time for each user, so that the next one waits for this one.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import orjson
import structlog

from app.domain.number import SHARDS
from app.domain.registration import Event, EventKind
from app.errors import StorageUnavailable
from app.repositories import locks
from app.repositories.keys import (
    EVENT_RELAY_LOCK,
    EVENTS_WAITING,
    RECEIVERS,
    Names,
    keys_of,
    shard_keys,
)
from app.repositories.scripts import (
    CLAIM_MS,
    EVENTS_LIVE_MS,
    LONGEST_EVENT_WAIT_MS,
    ClaimEvent,
    DropEvents,
    NoteExpiry,
    SettleEvent,
    WakeEvents,
)
from app.storage.storage import Storage

FULL_MS = 10_000
"""How long a shard goes on to leave out the events of a service with too many: longer than from one count
to the next."""

USERS_A_SHARD = 50
"""Looked at in one sweep: 50,000 users in all."""

CROWD = 5_000
"""Users who are looked at for what is due in shards that have more, of these together. The first of a shard
may all stand in the queue of a process already, and wait there for a receiver that hangs."""

RECEIVERS_LIVE_MS = 25 * 3_600_000
"""Without a sweep, which renews it."""

WAITING_LIVES_MS = 60_000

log = structlog.get_logger()


class Queue(NamedTuple):
    """The events of one user."""

    service: str
    user_id: str


class Claim(NamedTuple):
    """An event to be attempted. `proof`: that it is ours, until another process claims it. `now_ms`: by
    the clock of Redis. `attempts`: with this one."""

    event: Event
    proof: bytes
    now_ms: int
    attempts: int


class Left(StrEnum):
    """What is left of a user's events once an attempt was settled."""

    MORE = "more"  # the next one is due
    EMPTY = "empty"
    WAITS = "waits"  # it is tried again later
    LOST = "lost"  # somebody else has claimed it since, or it is gone: nothing was changed


class Waiting(NamedTuple):
    """Events by service: those that wait, and those that were left out because too many did."""

    waiting: Counter[str]
    dropped: Counter[str]


class Events:
    """The events in Redis. Every method raises StorageUnavailable, having changed nothing or all."""

    def __init__(self, storage: Storage, names: Names) -> None:
        self._storage = storage
        self._names = names

    # Of one user

    def claim(self, queue: Queue) -> Claim | None:
        """The first event of a user. None where none waits or is due yet, where another process delivers it,
        and where only a newer process can read it."""
        keys = keys_of(queue.user_id)
        answer = self._storage.run(ClaimEvent(keys.events, keys.schedule, _member(queue)))
        if answer[0] != b"claimed":
            return None
        _, text, now_ms = answer
        try:
            what, _, attempts = text.decode().rpartition("|")
            kind, at_ms, created_ms, _ = what.split("|")
            name = self._names.event(queue.user_id, what)
            event = Event(name, EventKind(kind), int(at_ms), queue.user_id, int(created_ms))
            return Claim(event, text, now_ms, int(attempts))
        except ValueError:
            log.error("event_unreadable", service=queue.service)
            self.put_off([queue], LONGEST_EVENT_WAIT_MS)
            return None

    def settle(self, queue: Queue, claim: Claim, wait_ms: int | None = None) -> Left:
        """Writes down that an event was taken, or given up; `wait_ms`: that it is tried again then."""
        keys = keys_of(queue.user_id)
        wait = -1 if wait_ms is None else wait_ms
        call = SettleEvent(*keys.announcing, _member(queue), queue.service, claim.proof, wait)
        return Left(self._storage.run(call).decode())

    def drop(self, queue: Queue) -> int:
        """Drops the events of one user, and says how many."""
        call = DropEvents(*keys_of(queue.user_id).announcing, _member(queue), queue.service)
        return int(self._storage.run(call))

    def put_off(self, queues: Collection[Queue], longest_ms: int) -> None:
        """Lets events wait that cannot be attempted now, half as long at least, so that a sweep does not meet
        them again at once. They live on: one that ended would be counted for ever."""
        if not queues:
            return
        now_ms = self._storage.now_ms()
        commands: list[tuple[str, str, *tuple[str | int, ...]]] = []
        for queue in queues:
            keys = keys_of(queue.user_id)
            due_ms = now_ms + random.randint(longest_ms // 2, longest_ms)  # noqa: S311 not for secrets
            commands.append(("ZADD", keys.schedule, "XX", "GT", due_ms, _member(queue)))
            commands.append(("PEXPIRE", keys.events, EVENTS_LIVE_MS))
        schedules = {keys_of(queue.user_id).schedule for queue in queues}
        commands += [("PEXPIRE", schedule, EVENTS_LIVE_MS) for schedule in schedules]
        self._storage.pipeline(commands)

    def put_off_end(self, user_id: str) -> None:
        """Lets the end of a registration wait whose keys cannot be used."""
        due_ms = self._storage.now_ms() + LONGEST_EVENT_WAIT_MS
        self._storage.command("ZADD", keys_of(user_id).expiries, "XX", due_ms, user_id)

    # Of all: what is due, ends or is counted is left out while its master is away

    def due(self, shards: Iterable[int]) -> list[Queue]:
        """Users with an event that is due, at most USERS_A_SHARD a shard; in a few shards, CROWD."""
        now_ms = self._storage.now_ms()
        found = self._scheduled(shards, "-inf", now_ms)
        crowded = [shard for shard, some in found.items() if len(some) == USERS_A_SHARD]
        if crowded:
            at_most = max(USERS_A_SHARD, CROWD // len(crowded))
            found |= self._scheduled(crowded, "-inf", now_ms, at_most)
        return _queues(found)

    def due_never(self, shards: Iterable[int]) -> list[Queue]:
        """Users whose event lies further ahead than any wait: it was written before the clock of Redis was
        set back, and is due."""
        first_ms = self._storage.now_ms() + LONGEST_EVENT_WAIT_MS + CLAIM_MS
        return _queues(self._scheduled(shards, first_ms, "+inf"))

    def expired(self, shards: Iterable[int]) -> list[str]:
        """Users whose registration has reached its end, at most USERS_A_SHARD a shard."""
        first = ("-inf", self._storage.now_ms(), "LIMIT", 0, USERS_A_SHARD)
        found = self._storage.ask_each(
            shards, lambda shard: ("ZRANGEBYSCORE", shard_keys(shard).expiries, *first), partly=True
        )
        return [user.decode(errors="replace") for _, users in found for user in users]

    def note_expiry(self, user_id: str) -> bool:
        """Writes the event of a registration that has reached its end; False where nothing has."""
        keys = keys_of(user_id)
        answer = self._storage.run(NoteExpiry(keys.user, *keys.announcing, *keys.end, user_id))
        return bool(answer == b"expired")

    def wake(self, services: Collection[str], shards: Iterable[int]) -> bool:
        """Makes due what waits for services; events that are being delivered are left alone. False where a
        master is away, so that it has to be done again."""
        for shard in shards:
            try:
                self._storage.run(WakeEvents(shard_keys(shard).schedule, [*services]))
            except StorageUnavailable as error:
                if not error.of_one_key:
                    return False
        return True

    def queues_of(self, service: str) -> list[Queue]:
        """Users with events of one service."""
        found = self._storage.ask_each(
            range(SHARDS), lambda shard: ("ZRANGE", shard_keys(shard).schedule, 0, -1)
        )
        queues = (_queue(member) for _, members in found for member in members)
        return [queue for queue in queues if queue.service == service]

    def count(self) -> Waiting:
        """Counts over all shards. What was left out is told once: it is then taken off."""
        waiting, dropped = Counter[str](), Counter[str]()
        taken_off: list[tuple[str, str, bytes, int]] = []
        found = self._storage.ask_each(
            range(SHARDS), lambda shard: ("HGETALL", shard_keys(shard).waiting), partly=True
        )
        for shard, fields in found:
            for field, value in fields.items():
                service, _, what = field.decode(errors="replace").partition(":")
                count = int(value) if value.isdigit() else 0
                if what == "":
                    waiting[service] += count
                elif what == "dropped" and count:
                    dropped[service] += count
                    taken_off.append(("HINCRBY", shard_keys(shard).waiting, field, -count))
        if taken_off:
            self._storage.pipeline(taken_off)
        return Waiting(waiting, dropped)

    def leave_out(self, service: str) -> None:
        """Lets the scripts leave out the events of a service for FULL_MS."""
        until_ms = self._storage.now_ms() + FULL_MS
        commands: list[tuple[str, str, *tuple[str | int, ...]]] = []
        for key in (shard_keys(shard).waiting for shard in range(SHARDS)):
            commands += [
                ("HSET", key, f"{service}:full", until_ms),
                ("PEXPIRE", key, EVENTS_LIVE_MS),
            ]
        self._storage.refusals(commands)  # one shard's key may be spoiled

    def publish(self, waiting: Counter[str]) -> None:
        """Stores what was counted, for `published` in every process."""
        self._storage.command("SET", EVENTS_WAITING, orjson.dumps(waiting), "PX", WAITING_LIVES_MS)

    def published(self) -> dict[str, int]:
        """What was counted last: the events that wait for each service."""
        found: bytes = self._storage.command("GET", EVENTS_WAITING) or b"{}"
        try:
            return {service: int(count) for service, count in orjson.loads(found).items()}
        except (ValueError, TypeError, AttributeError):  # somebody else wrote it
            return {}

    def hold_relay(self, owner: str, ttl_ms: int) -> bool:
        """Takes or keeps the right to sweep, 0 lets it go; one process has it at a time (see `locks`)."""
        return locks.hold(self._storage, EVENT_RELAY_LOCK, owner, ttl_ms)

    # Of receivers

    def receivers(self) -> dict[str, str]:
        """What all processes know of receivers, by service."""
        try:
            found: dict[bytes, bytes] = self._storage.command("HGETALL", RECEIVERS)
        except StorageUnavailable as error:
            if not error.of_one_key:
                raise
            self._storage.command("DEL", RECEIVERS)  # somebody else's; what we knew is found out again
            return {}
        return {service.decode(): state.decode() for service, state in found.items()}

    def note_receiver(self, service: str, state: str) -> None:
        self._storage.command("HSET", RECEIVERS, service, state)
        self.keep_receivers()

    def keep_receivers(self) -> None:
        """Lets what is known of receivers live on."""
        self._storage.command("PEXPIRE", RECEIVERS, RECEIVERS_LIVE_MS)

    def forget_receivers(self, services: Collection[str]) -> None:
        self._storage.command("HDEL", RECEIVERS, *services)

    def _scheduled(
        self, shards: Iterable[int], first: int | str, last: int | str, at_most: int = USERS_A_SHARD
    ) -> dict[int, list[bytes]]:
        """The first entries of each shard that are due between two times."""
        limits = (first, last, "LIMIT", 0, at_most)
        found = self._storage.ask_each(
            shards, lambda shard: ("ZRANGEBYSCORE", shard_keys(shard).schedule, *limits), partly=True
        )
        return dict(found)


def _member(queue: Queue) -> str:
    """The entry in the schedule."""
    return f"{queue.service}|{queue.user_id}"


def _queues(found: Mapping[int, list[bytes]]) -> list[Queue]:
    return [_queue(member) for members in found.values() for member in members]


def _queue(member: bytes) -> Queue:
    service, _, user_id = member.decode(errors="replace").partition("|")
    return Queue(service, user_id)
