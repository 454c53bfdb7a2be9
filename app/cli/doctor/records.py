"""A sample of the records: which keys they need, and whether this version can read them."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from app.cli.doctor.findings import Area, Finding
from app.cli.doctor.server import connected
from app.config import Settings
from app.errors import StorageUnavailable
from app.repositories.records import Sealer
from app.repositories.seals import SealedRecord, Seals, Verdict

RECORDS = Area("records")

SAMPLE: Final = 1000
"""Records, read in ten round trips. What one record in 300 needs is missed by one examination in 30."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yields nothing where Redis is empty or does not answer; `store` reports that."""
    secrets = [key for key in (settings.secret_key, *settings.secret_key_fallbacks) if key]
    try:
        with connected(settings) as storage:
            seals = Seals(storage, Sealer(secrets))
            sample = seals.sample(SAMPLE)
    except StorageUnavailable as error:
        if error.code == "NOPERM":
            yield RECORDS.note(
                "We may not read the records, so they were not examined.",
                "Allow it: ACL SETUSER <user> ~{*}:* +scan +hmget",
            )
        return
    needed = [(record, seals.key_needed(record)) for record in sample]
    troubles = [(record, need) for record, need in needed if isinstance(need, Verdict)]
    yield from _unreadable(troubles, len(sample))
    places = Counter(need for _, need in needed if not isinstance(need, Verdict))
    if places:
        yield _readable(places, len(sample), keys=len(secrets))


def _readable(places: Counter[int], total: int, *, keys: int) -> Finding:
    """The records that open, by the place of their key among the secrets."""
    fallbacks = {place: count for place, count in sorted(places.items()) if place}
    if fallbacks:
        each = ", ".join(f"{count} the {_ordinal(place)}" for place, count in fallbacks.items())
        return RECORDS.note(
            f"{sum(fallbacks.values())} of {total} records looked at need a fallback key ({each}).",
            "`flask --app wsgi keys reseal` seals them anew; then the fallback can go.",
        )
    how = ("in clear, as SECRET_KEY is not set", "with SECRET_KEY")[keys > 0]
    also = "; none needs a fallback" if keys > 1 else ""
    return RECORDS.ok(f"{places[0]} records looked at open {how}{also}.")


TROUBLES: Final = {
    Verdict.NO_KEY: (
        RECORDS.problem,
        "were sealed with {keys} not configured here: looking them up, verifying and mailing them fails.",
        (
            "Put the SECRET_KEY of that time into SECRET_KEY_FALLBACKS and restart; then "
            "`flask --app wsgi keys reseal`. If it is lost, erase them or let the people register again."
        ),
    ),
    Verdict.CLEAR: (
        RECORDS.problem,
        "lie in clear, and a process with SECRET_KEY opens none of them.",
        "Some process writes here without SECRET_KEY: find and stop it. Erase these records.",
    ),
    Verdict.DAMAGED: (
        RECORDS.problem,
        "are damaged, or belong to another user: they do not open with their own key.",
        "Find out who else writes to this Redis. The people can register again.",
    ),
    Verdict.NEWER: (
        RECORDS.warning,
        "were written by a newer version: requests for them are answered 503.",
        "During a roll-out this passes. After a roll-back, deploy the newer version, or let them end.",
    ),
}
"""By why records do not open: how bad it is, what is wrong, and the cure."""


def _unreadable(troubles: list[tuple[SealedRecord, Verdict]], total: int) -> Iterator[Finding]:
    """A finding for each reason why records do not open."""
    counts = Counter(trouble for _, trouble in troubles)
    unknown = {record.sealed[:1] for record, trouble in troubles if trouble is Verdict.NO_KEY}
    keys = "a key" if len(unknown) == 1 else f"{len(unknown)} keys"
    for trouble, (found, says, cure) in TROUBLES.items():
        if counts[trouble]:
            yield found(f"{counts[trouble]} of {total} records looked at {says.format(keys=keys)}", cure)


def _ordinal(place: int) -> str:
    return f"{place}{({1: 'st', 2: 'nd', 3: 'rd'}).get(place, 'th')}"
