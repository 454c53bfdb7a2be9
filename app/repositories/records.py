"""The stored form of a registration: the version of its layout, what is sealed in it, and how.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce; the user id is the associated data, so a record
that was moved to another user does not open. A seal is one byte that tells which key, the nonce, the
ciphertext and the 128-bit tag: 29 bytes more than the text. Byte 0 means stored in clear.
"""

import os
from collections.abc import Sequence

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.domain.address import Address
from app.domain.registration import Contents, Draft
from app.errors import InvalidAddress, NewerRecord, RecordUnreadable, SealBroken
from app.repositories.keys import derive_key

log = structlog.get_logger()

LAYOUT_VERSION = 2
"""Of the record's fields and of what is sealed in it. A process leaves a newer record to a newer process."""

NEWER = b"newer"
"""What a script says of a record with a higher version than LAYOUT_VERSION."""

TEST = " test"
"""Behind the service's id: the registration was made by a test service, and stays a test."""

NONCE_BYTES = 12
CLEAR = b"\0"


def told(error: RecordUnreadable) -> RecordUnreadable:
    """The error, which is also logged: an operator has to act."""
    log.error("record_unreadable", reason=str(error))
    return error


def checked(answer: bytes) -> str:
    """What a script answered. Raises NewerRecord."""
    if answer == NEWER:
        raise told(NewerRecord())
    return answer.decode()


def damaged() -> RecordUnreadable:
    """For a record of a version that we know and that does not hold what it should."""
    return RecordUnreadable(
        "The record does not hold what it should: register the address again, or let the operator erase it."
    )


class Sealer:
    """Seals with the first secret, opens with any of them. Without secrets it stores in clear.

    `seals`: there are secrets. `readable`: the first bytes of all seals that open here.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [(_key_byte(secret), AESGCM(derive_key(secret, "seal"))) for secret in secrets]
        self.seals = bool(self._keys)
        self.readable = b"".join(mark for mark, _ in self._keys) or CLEAR

    def seal_record(self, draft: Draft, number: str, user_id: str) -> bytes:
        """Service, locale, number, address and token, one a line (the token may be more)."""
        service = draft.service.id + TEST if draft.service.test else draft.service.id
        text = "\n".join((service, draft.locale, number, draft.address.email, draft.token))
        return self.seal(text.encode(), user_id)

    def open_record(self, seal: bytes, user_id: str) -> Contents:
        """What `seal_record` has sealed. Raises SealBroken, RecordUnreadable."""
        text = self.open(seal, user_id)
        try:
            service, locale, number, email, token = text.decode().split("\n", 4)
            test = service.endswith(TEST)
            return Contents(service.removesuffix(TEST), test, locale, number, Address.known(email), token)
        except (ValueError, InvalidAddress):
            raise damaged() from None  # the error could quote the record

    def seal(self, text: bytes, user_id: str) -> bytes:
        if not self._keys:
            return CLEAR + text
        mark, key = self._keys[0]
        nonce = os.urandom(NONCE_BYTES)
        return mark + nonce + key.encrypt(nonce, text, user_id.encode())

    def open(self, seal: bytes, user_id: str) -> bytes:
        """The text again. Raises SealBroken; a process with a key opens nothing that lies in clear."""
        return self.opened(seal, user_id)[1]

    def opened(self, seal: bytes, user_id: str) -> tuple[int, bytes]:
        """Which of the secrets opens it (0 = the first, or in clear), and the text. Raises SealBroken."""
        mark, rest = seal[:1], seal[1:]
        if not self._keys and mark == CLEAR:
            return 0, rest
        for place, (candidate, key) in enumerate(self._keys):
            if candidate == mark:
                try:
                    return place, key.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], user_id.encode())
                except (InvalidTag, ValueError):  # ValueError: too short to be a seal
                    continue
        raise SealBroken


def _key_byte(secret: str) -> bytes:
    """One byte from 1 to 255 that tells this key from most others; a clash only costs a second try."""
    return bytes([1 + derive_key(secret, "key byte")[0] % 255])
