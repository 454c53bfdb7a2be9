"""The stored form of a registration: the version of its layout, and what is sealed in it."""

import structlog

from app.domain.address import Address
from app.domain.registration import Contents, Draft
from app.errors import InvalidAddress, NewerRecord, RecordUnreadable
from app.repositories.sealing import Sealer

log = structlog.get_logger()

LAYOUT_VERSION = 2
"""Of the record's fields and of what is sealed in it. A process leaves a newer record to a newer process."""

NEWER = b"newer"
"""What a script says of a record with a higher version than it was told."""


def told(error: RecordUnreadable) -> RecordUnreadable:
    """The error, which is also logged: an operator has to act."""
    log.error("record_unreadable", reason=str(error))
    return error


def checked(answer: bytes) -> str:
    """What a script answered. Raises NewerRecord."""
    if answer == NEWER:
        raise told(NewerRecord())
    return answer.decode()


TEST = " test"
"""Behind the service's id: the registration was made by a test service, and stays a test."""


class RecordSeal:
    """What is sealed in a record: service, locale, number, address and token, one a line (the token may be
    more)."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.readable = sealer.readable

    def seal(self, draft: Draft, number: str, user_id: str) -> bytes:
        service = draft.service.id + TEST if draft.service.test else draft.service.id
        text = "\n".join((service, draft.locale, number, draft.address.email, draft.token))
        return self._sealer.seal(text.encode(), user_id)

    def open(self, sealed: bytes, user_id: str) -> Contents:
        """Raises SealBroken, RecordUnreadable."""
        text = self._sealer.open(sealed, user_id)
        try:
            service, locale, number, email, token = text.decode().split("\n", 4)
            test = service.endswith(TEST)
            return Contents(service.removesuffix(TEST), test, locale, number, Address.known(email), token)
        except (ValueError, InvalidAddress):
            raise damaged() from None  # the error could quote the record


def damaged() -> RecordUnreadable:
    """For a record of a version that we know and that does not hold what it should."""
    return RecordUnreadable("The record does not hold what it should: it can only be replaced or erased.")
