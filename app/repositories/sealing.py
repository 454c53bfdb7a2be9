"""Sealing: what stands in Redis can be read only with the secret key.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce; the user id is the associated data, so a record
that was moved to another user does not open. A seal is one byte that tells which key, the nonce, the
ciphertext and the 128-bit tag: 29 bytes more than the text. Byte 0 means stored in clear.
"""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import SealBroken
from app.repositories.keys import derive_key

NONCE_BYTES = 12
CLEAR = b"\0"


class Sealer:
    """Seals with the first secret, opens with any of them. Without secrets it stores in clear."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [(_key_byte(secret), AESGCM(derive_key(secret, "seal"))) for secret in secrets]

    @property
    def seals(self) -> bool:
        return bool(self._keys)

    @property
    def readable(self) -> bytes:
        """The first bytes of all seals that open here."""
        return b"".join(mark for mark, _ in self._keys) or CLEAR

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
