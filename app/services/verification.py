"""Handing in the number: whoever can say it has read the mailbox, and gets the token, once."""

import re

from app.domain.address import Address
from app.domain.budget import Budget
from app.domain.number import is_well_formed
from app.domain.registration import Draft
from app.errors import MistypedNumber
from app.repositories.guard import Guard
from app.repositories.users import Users

SEPARATORS = re.compile(r"[ -]")


class VerificationService:
    """Compares numbers with the live ones."""

    def __init__(self, users: Users, guard: Guard, digits: int, budget: Budget) -> None:
        self._users = users
        self._guard = guard
        self._digits = digits
        self._budget = budget

    def verify(self, address: Address, typed: str) -> tuple[str, Draft]:
        """Consumes the registration of the address and returns its user id and what was registered.

        `typed`: the number as the person typed it; spaces and hyphens do not count. Raises MistypedNumber
        (costs no try), VerificationFailed, TooManyAttempts, StorageUnavailable.
        """
        number = SEPARATORS.sub("", typed)
        if not is_well_formed(number, self._digits):
            raise MistypedNumber("A wrong length or check digit")
        self._guard.check()
        return self._users.verify(address, number, self._budget)
