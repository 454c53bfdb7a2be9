"""Events wherever they lie: everything that is done with them, with the documented ACL user."""

from contextlib import closing

import pytest

from app.domain.address import Address
from app.repositories.events import Left
from app.repositories.scripts import LONGEST_EVENT_WAIT_MS
from tests.support.people import Process
from tests.support.scan import contradictions
from tests.support.telling import Person
from tests.topologies.places import Place

PEOPLE = 12
"""In shards of all masters."""


@pytest.fixture
def people(place: Place) -> list[Person]:
    process = Process(place.url, limit=0, listens=True)
    addresses = (Address.parse(f"person{number}@example.com") for number in range(PEOPLE))
    return [Person(process, place.client, address) for address in addresses]


def test_events_are_written_found_and_delivered(place: Place, people: list[Person]) -> None:
    """Each to its end: verified, expired, dropped."""
    with closing(people[0].process) as process:
        events = process.events
        for person in people:
            stored = person.sent()
            claim = person.claimed()
            assert events.settle(person.queue, claim, LONGEST_EVENT_WAIT_MS) is Left.WAITS
            if person is people[0]:
                person.ended()
            else:
                person.verified(stored)
        queues = {person.queue for person in people}
        assert events.due(range(1000)) == events.due_never(range(1000)) == []
        assert set(events.queues_of("default")) == queues
        assert [user_id for user_id in events.expired(range(1000)) if events.note_expiry(user_id)] == [
            people[0].user_id
        ]
        assert events.count().waiting == {"default": 2 * PEOPLE}
        events.publish(events.count().waiting)
        assert events.published() == {"default": 2 * PEOPLE}
        events.wake(["default"], range(1000))
        assert set(events.due(range(1000))) == queues
        events.put_off([people[1].queue], 60_000)
        assert set(events.due(range(1000))) == queues - {people[1].queue}
        assert events.drop(people[1].queue) == 2
        assert people[0].delivered() == ["sent", "expired"]
        for person in people[2:]:
            place.forget_scripts()
            assert person.delivered() == ["sent", "verified"]
        assert events.count() == ({}, {})
    assert contradictions(place.client) == []


def test_what_is_known_of_all_is_kept(people: list[Person]) -> None:
    """Of receivers, of the sweep, and that too many events wait."""
    with closing(people[0].process) as process:
        events = process.events
        events.note_receiver("default", "failing")
        events.keep_receivers()
        assert events.receivers() == {"default": "failing"}
        events.forget_receivers(["default", "shop"])
        assert events.receivers() == {}
        assert events.hold_relay("me", 1000)
        assert not events.hold_relay("another", 1000)
        events.leave_out("default")
        for person in people:
            person.sent()
        assert events.count() == ({}, {"default": PEOPLE})
        events.put_off_end(people[0].user_id)
