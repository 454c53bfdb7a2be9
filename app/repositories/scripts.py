"""The calls of our Lua scripts: KEYS and ARGV by name, in the order of `lua/<name>.lua`, which explains them.

A test compares these names with those that each script binds. What is the same for every call is no argument
but a constant, by the same name here and in the scripts.
"""

from importlib.resources import files
from typing import NamedTuple

from app.repositories.records import LAYOUT_VERSION
from app.storage.scripts import Key, Keys, Values, script

# Of registrations

RUNNING_MS = 5_000
"""How long a request that was stored and not answered yet counts as running (Idempotency-Key)."""

# Of numbers that are handed in

WRONG_IN_A_ROW = 100
"""Wrong numbers that erase a registration: the guesser's chance is 100 in 9 x 10^5 at ten digits."""

REPLAY_MS = 120_000
"""How long a handed-in number brings the token again to the request that got it first (Idempotency-Key)."""

OTHER_NUMBERS = 5
"""Other numbers under the key of such a request that end this: a chance of 5 in 9 x 10^5."""

# Of mails

GIVE_UP_MAIL_MS = 24 * 3600 * 1000
"""Age at which a mail that never went out counts as failed: the mail itself says that it is recent."""

LONGEST_LEASE_MS = 105_000
"""Of the longest MAIL_TIMEOUT: 2 x 50 s + 5 s."""

LONGEST_MAIL_WAIT_MS = 15 * 60_000 + LONGEST_LEASE_MS
"""No mail waits longer for its next try. What is due later was written before Redis' clock was set back."""

# Of events

CLAIM_MS = 20_000
"""For one attempt, which takes 10 s at most, and for settling it."""

LONGEST_EVENT_WAIT_MS = 15 * 60_000
"""Between two attempts to deliver one."""

EVENTS_LIVE_MS = 7 * 86_400_000
"""After the last event of a user was written, or somebody worked on it."""

CONSTANTS = f"""\
local LAYOUT_VERSION, RUNNING_MS = {LAYOUT_VERSION}, {RUNNING_MS}
local WRONG_IN_A_ROW, REPLAY_MS, OTHER_NUMBERS = {WRONG_IN_A_ROW}, {REPLAY_MS}, {OTHER_NUMBERS}
local GIVE_UP_MAIL_MS, LONGEST_LEASE_MS = {GIVE_UP_MAIL_MS}, {LONGEST_LEASE_MS}
local LONGEST_MAIL_WAIT_MS = {LONGEST_MAIL_WAIT_MS}
local CLAIM_MS, LONGEST_EVENT_WAIT_MS, EVENTS_LIVE_MS = {CLAIM_MS}, {LONGEST_EVENT_WAIT_MS}, {EVENTS_LIVE_MS}
""".encode()
"""Stands before every script."""


def lua(*names: str) -> bytes:
    """One script of these files, in their order."""
    folder = files("app.repositories").joinpath("lua")
    return CONSTANTS + b"".join(folder.joinpath(f"{name}.lua").read_bytes() for name in names)


@script(
    lua("clock", "record", "budget", "lease", "shared", "events", "expiry", "register"), acknowledged=True
)
class Register(NamedTuple):
    """`numbers`: the candidates' keys; `candidates`: for each of them its digest and its sealed record."""

    user: Key
    sender: Key
    outbox: Key
    events: Key
    schedule: Key
    waiting: Key
    expiry: Key
    expiries: Key
    sends: Key
    mailbox: Key
    mark: Key
    suppressed: Key
    numbers: Keys
    id: str
    registration: str
    lease_ms: int
    life_ms: int
    prefix: str
    limit: int
    window_ms: int
    mailbox_limit: int
    mailbox_window_ms: int
    fingerprint: str
    mark_ms: int
    told: str
    test: int
    candidates: Values


@script(lua("keep_answer"))
class KeepAnswer(NamedTuple):
    mark: Key
    registration: str
    answered: str
    mark_ms: int


@script(lua("clock", "record", "budget", "lease", "resend_mail"), acknowledged=True)
class ResendMail(NamedTuple):
    user: Key
    sender: Key
    outbox: Key
    sends: Key
    mailbox: Key
    suppressed: Key
    id: str
    registration: str
    owner: str
    lease_ms: int
    limit: int
    window_ms: int
    mailbox_limit: int
    mailbox_window_ms: int


@script(lua("clock", "record", "shared", "events", "expiry", "verify_number"), acknowledged=True)
class VerifyNumber(NamedTuple):
    user: Key
    outbox: Key
    tries: Key
    verified: Key
    events: Key
    schedule: Key
    waiting: Key
    expiry: Key
    expiries: Key
    id: str
    number: str
    prefix: str
    limit: int
    window_ms: int
    readable: bytes
    fingerprint: str
    test: int


@script(lua("record", "shared", "expiry", "erase_user"), acknowledged=True)
class EraseUser(NamedTuple):
    user: Key
    outbox: Key
    verified: Key
    expiry: Key
    expiries: Key
    id: str
    prefix: str


@script(lua("clock", "shared", "events", "note_report"), acknowledged=True)
class NoteReport(NamedTuple):
    user: Key
    outbox: Key
    suppressed: Key
    events: Key
    schedule: Key
    waiting: Key
    id: str
    registration: str
    kind: str
    error_code: str
    suppress_ms: int
    mail: int


@script(lua("clock", "record", "shared", "events", "claim_mail"))
class ClaimMail(NamedTuple):
    user: Key
    sender: Key
    outbox: Key
    events: Key
    schedule: Key
    waiting: Key
    id: str
    owner: str
    lease_ms: int


@script(lua("clock", "renew_lease"))
class RenewLease(NamedTuple):
    sender: Key
    outbox: Key
    id: str
    owner: str
    lease_ms: int


@script(lua("clock", "record", "shared", "events", "expiry", "settle_mail"), acknowledged=True)
class SettleMail(NamedTuple):
    user: Key
    sender: Key
    outbox: Key
    events: Key
    schedule: Key
    waiting: Key
    expiry: Key
    expiries: Key
    id: str
    mail: str
    owner: str
    lease_ms: int
    delivery: str
    wait_ms: int
    error_code: str
    go_on: int
    prefix: str


@script(lua("clock", "lease", "retry_mail"))
class RetryMail(NamedTuple):
    user: Key
    sender: Key
    outbox: Key
    id: str


@script(lua("clock", "shared", "events", "drop_mail"))
class DropMail(NamedTuple):
    user: Key
    sender: Key
    outbox: Key
    events: Key
    schedule: Key
    waiting: Key
    id: str
    error_code: str


@script(lua("clock", "shared", "events", "expiry", "note_expiry"))
class NoteExpiry(NamedTuple):
    user: Key
    events: Key
    schedule: Key
    waiting: Key
    expiry: Key
    expiries: Key
    id: str


@script(lua("clock", "shared", "events", "claim_event"))
class ClaimEvent(NamedTuple):
    events: Key
    schedule: Key
    member: str


@script(lua("clock", "shared", "events", "settle_event"))
class SettleEvent(NamedTuple):
    events: Key
    schedule: Key
    waiting: Key
    member: str
    service: str
    claim: bytes
    wait_ms: int


@script(lua("shared", "events", "drop_events"))
class DropEvents(NamedTuple):
    events: Key
    schedule: Key
    waiting: Key
    member: str
    service: str


@script(lua("clock", "shared", "events", "wake_events"))
class WakeEvents(NamedTuple):
    schedule: Key
    services: Values


@script(lua("record", "reseal_record"))
class ResealRecord(NamedTuple):
    """`old`, `new`: seals of the same length."""

    user: Key
    registration: bytes
    old: bytes
    new: bytes


@script(lua("clock", "hold_lock"))
class HoldLock(NamedTuple):
    lock: Key
    owner: str
    ttl_ms: int


@script(lua("clock", "budget", "count_request"))
class CountRequest(NamedTuple):
    """`limits`: for each counter the requests in its window, and the window in ms."""

    counters: Keys
    limits: Values
