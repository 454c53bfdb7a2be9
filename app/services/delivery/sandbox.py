"""Stands in for the mail server of test services: it mails nothing, and some addresses fail as real ones may.

`refused@…` does not exist, `deferred@…` is never accepted, `slow@…` is accepted after the request has given
up waiting, and every other address is accepted at once.
"""

from app.domain.address import Address
from app.mail.smtp import Blame, MailFault

REFUSED = MailFault(Blame.ADDRESS, "recipient 550 5.1.1")
DEFERRED = MailFault(Blame.MOMENT, "recipient 451 4.3.0")


def fault_of(address: Address) -> MailFault | None:
    """What becomes of a mail to this address: None when it is accepted."""
    return {"refused": REFUSED, "deferred": DEFERRED}.get(_name(address))


def is_slow(address: Address) -> bool:
    """Accepted only after MAIL_TIMEOUT."""
    return _name(address) == "slow"


def _name(address: Address) -> str:
    return address.identity.partition("@")[0]
