"""Names: of users, of numbers, and of every key in Redis.

With an index key, a name is a keyed BLAKE2b digest (RFC 7693), so that nothing in Redis can be read or
guessed from it. Without one it is the plain digest: stable, but open to guessing.
"""

import base64
import hashlib
from enum import StrEnum
from functools import lru_cache

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.domain.address import Address
from app.domain.number import SHARDS

NAME_LENGTH = 26
"""Characters of base32: 130 bits, so that no two things ever share a name. In a user id two characters hold
the shard, which leaves 120 bits."""

BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
PAIRS = [first + second for first in BASE32 for second in BASE32]
"""Two characters of base32 (RFC 4648), by the ten bits that they stand for."""

DIGEST_BYTES = 20
SHIFTS = range(8 * DIGEST_BYTES - 10, 8 * DIGEST_BYTES - 5 * NAME_LENGTH - 10, -10)
SHARD_BYTES = 8
MAILBOX_BYTES = 12

NUMBER_DIGEST_BYTES = 8
"""Two numbers with one digest would only mean a second draw."""

NAMES_VERSION = 2
"""Of how users, numbers and keys get their names. Processes with different ones cannot share a Redis."""

RELAY_LOCK = "cedula:relay"
CLIENT_LIMITS = "cedula:limits"
KEY_CHECK = "cedula:keycheck"
READINESS = ("cedula:ready", "cedula:ready:2", "cedula:ready:3")
"""Each in another third of a cluster's slots: with one master away, the service is ready for the others."""
COUNTS = "cedula:counts"
EVENT_RELAY_LOCK = "cedula:event-relay"
RECEIVERS = "cedula:receivers"
EVENTS_WAITING = "cedula:waiting"


def derive_key(secret: str, purpose: str) -> bytes:
    """32 bytes for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), length=32, salt=None, info=f"cedula {purpose} v1".encode()).derive(secret.encode())


class Field(StrEnum):
    """The fields of a user's record. Short: with many users their names are a tenth of the memory."""

    LAYOUT = "v"
    REGISTRATION = "r"
    NUMBER = "n"
    CREATED_MS = "c"
    DELIVERY = "s"
    ATTEMPTS = "a"
    MAILED_MS = "m"
    ERROR = "e"
    EXPIRES_MS = "x"
    SINCE_MS = "t"
    WRONG = "w"
    PROMISED = "p"
    RESENDS = "k"
    REPORTED_MS = "b"
    TOLD = "u"
    HEARD = "h"
    TEST = "z"


SEALED = ("d0", "d1", "d2", "d3")
"""The fields that hold the sealed record, in order; those that a short one does not need are missing."""


class ShardKeys:
    """The keys of one shard (0 to 999). All start with its hash tag, the part in braces, which decides about
    the slot."""

    def __init__(self, shard: int) -> None:
        tag = f"{{{shard:03}}}"
        self.shard = shard
        self.tag = tag
        self.number_prefix = f"{tag}:number:"  # what the key of every number starts with
        self.outbox = f"{tag}:outbox"
        self.schedule = f"{tag}:schedule"  # when the events of its users are due
        self.waiting = f"{tag}:waiting"  # how many events of each service wait
        self.expiries = f"{tag}:expiries"  # when the registrations end whose services want to know


class UserKeys(ShardKeys):
    """The keys of one user, that is, of one address of one service, and those of its shard: all lie in one
    slot. The first two characters of a user id say its shard."""

    def __init__(self, user_id: str) -> None:
        super().__init__(32 * BASE32.find(user_id[:1]) + BASE32.find(user_id[1:2]))
        tag = self.tag
        self.user_id = user_id
        self.user = f"{tag}:user:{user_id}"
        self.sender = f"{tag}:sender:{user_id}"
        self.sends = f"{tag}:sends:{user_id}"
        self.tries = f"{tag}:tries:{user_id}"
        self.verified = f"{tag}:verified:{user_id}"
        self.suppressed = f"{tag}:suppressed:{user_id}"
        self.events = f"{tag}:events:{user_id}"
        self.expiry = f"{tag}:expiry:{user_id}"

    @property
    def mail(self) -> tuple[str, str, str]:
        """What the scripts that mail touch: record, lease and outbox."""
        return self.user, self.sender, self.outbox

    @property
    def announcing(self) -> tuple[str, str, str]:
        """What the scripts that write events touch."""
        return self.events, self.schedule, self.waiting

    @property
    def end(self) -> tuple[str, str]:
        """Where the end of a registration is noted, for the event of it."""
        return self.expiry, self.expiries

    def idempotency(self, digest: str) -> str:
        return f"{self.tag}:idempotency:{digest}"

    def mailbox(self, digest: str) -> str:
        return f"{self.tag}:mailbox:{digest}"


shard_keys = lru_cache(maxsize=SHARDS)(ShardKeys)
keys_of = lru_cache(maxsize=128)(UserKeys)  # from the request to the settling of its mail


class Names:
    """Turns addresses and numbers into the names they have in Redis."""

    def __init__(self, index_key: str | None) -> None:
        self._key = derive_key(index_key, "index") if index_key else b""
        self._mailbox = lru_cache(maxsize=16)(self._digest_of_mailbox)  # asked twice for a registration

    def user(self, service_id: str, address: Address) -> UserKeys:
        """The keys of this address at this service. All users of one mailbox, of all services, lie in one
        shard."""
        mailbox = self._mailbox(address)
        digest = self._digest(f"{service_id}\0{address.identity}", b"cedula user", DIGEST_BYTES)
        shard = int.from_bytes(mailbox[:SHARD_BYTES], "big") % SHARDS
        return keys_of(PAIRS[shard] + _base32(digest)[:-2])

    def mailbox(self, address: Address) -> str:
        """The digest of a mailbox, for its budget."""
        return self._mailbox(address)[SHARD_BYTES:].hex()

    def _digest_of_mailbox(self, address: Address) -> bytes:
        """What its shard and its name are made of."""
        return self._digest(address.mailbox, b"cedula mailbox", SHARD_BYTES + MAILBOX_BYTES)

    def number(self, number: str) -> str:
        """The digest of a number, 11 characters of base64url (RFC 4648)."""
        digest = self._digest(number, b"cedula number", NUMBER_DIGEST_BYTES)
        return base64.urlsafe_b64encode(digest)[:-1].decode()

    def request(self, client: str, user_id: str, key: str) -> str:
        """The digest of one Idempotency-Key of one client for one user."""
        return self._name("\0".join((client, user_id, key)), b"cedula request")

    def fingerprint(self, token: str, locale: str) -> str:
        """What tells a request from another under the same Idempotency-Key."""
        return self._name("\0".join((locale, token)), b"cedula print")

    def verification(self, user_id: str, key: str) -> str:
        """The digest of the Idempotency-Key of a number that is handed in."""
        return self._name("\0".join((user_id, key)), b"cedula verify")

    def event(self, user_id: str, event: str) -> str:
        """The id of an event, the same for each attempt to deliver it (Standard Webhooks: `webhook-id`)."""
        return "evt_" + self._name("\0".join((user_id, event)), b"cedula event")

    def client(self, name: str) -> str:
        """The digest of an API key's name or an IP address, for the limits of clients."""
        return self._name(name, b"cedula client")

    def check_value(self) -> str:
        """A value that tells this index key from every other and tells nothing about it."""
        return self._name("check", b"cedula check")

    def _name(self, text: str, person: bytes) -> str:
        return _base32(self._digest(text, person, DIGEST_BYTES))

    def _digest(self, text: str, person: bytes, size: int) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=size, key=self._key, person=person).digest()


def _base32(digest: bytes) -> str:
    """The first bits of a digest, in half the time that `base64` takes."""
    bits = int.from_bytes(digest, "big")
    return "".join([PAIRS[bits >> shift & 1023] for shift in SHIFTS])


def name_of(member: bytes) -> str:
    """The user id in a key, or of an outbox entry. A member that others wrote gives one that no user has."""
    return member.rpartition(b":")[2].decode(errors="replace")
