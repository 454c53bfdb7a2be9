"""Services in one Redis: none sees what another does to an address; only a mailbox is one."""

from collections.abc import Callable, Iterator

import pytest
import redis

from app.domain.address import Address
from app.domain.registration import Delivery
from app.errors import TooManyAttempts, TooManyRegistrations, VerificationFailed
from tests.api.conftest import at_once, wrong
from tests.support.people import Process, ada
from tests.support.scan import contradictions
from tests.support.servers import Valkey
from tests.support.values import there

Start = Callable[..., Process]


@pytest.fixture
def start(valkey_server: Valkey, store: redis.Redis) -> Iterator[Start]:
    """Starts a process of the service `name` on the same empty store."""
    started: list[Process] = []

    def begin(name: str, limit: int = 0, mailbox_limit: int = 0, *, test: bool = False) -> Process:
        process = Process(
            valkey_server.url,
            ("k" * 32,),
            "i" * 32,
            limit=limit,
            mailbox_limit=mailbox_limit,
            name=name,
            test=test,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.close()


def test_two_services_register_one_address_and_both_numbers_are_good(
    start: Start, store: redis.Redis
) -> None:
    """They are two users in one shard, with two numbers, and each hands out its own token."""
    shop, bank = start("shop"), start("bank")
    first = shop.registered(ada()).registration
    second = bank.registered(ada()).registration
    assert first.user_id != second.user_id
    assert first.user_id[:2] == second.user_id[:2]
    assert first.number[-4:-1] == second.number[-4:-1]
    assert (first.service, second.service) == ("shop", "bank")
    assert contradictions(store) == []
    with pytest.raises(VerificationFailed):
        bank.verify(ada(), first.number)
    assert bank.verify(ada(), second.number) == "t0ken"
    assert shop.verify(ada(), first.number) == "t0ken"


def test_budgets_of_one_service_are_not_another_s(start: Start) -> None:
    """Registrations and wrong numbers."""
    shop, bank = start("shop", limit=1), start("bank", limit=1)
    number = shop.registered(ada()).registration.number
    with pytest.raises(TooManyRegistrations):
        shop.registered(ada())
    with pytest.raises(VerificationFailed):
        shop.verify(ada(), wrong(number))
    with pytest.raises(TooManyAttempts):
        shop.verify(ada(), number)
    other = bank.registered(ada()).registration.number
    assert bank.verify(ada(), other) == "t0ken"


def test_an_idempotency_key_means_nothing_at_another_service(start: Start) -> None:
    """Both register under the same key."""
    shop, bank = start("shop"), start("bank")
    first = shop.registered(ada(), key="order-1").registration
    second = bank.registered(ada(), key="order-1").registration
    assert first.number != second.number


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ada@example.com", "ada+shop@example.com"),
        ("Ada@Example.com", "ada+1+2@example.com"),
        ("ada.l@gmail.com", "a.d.a.l+x@googlemail.com"),
    ],
)
def test_a_mailbox_has_one_budget_over_all_services(start: Start, first: str, second: str) -> None:
    """Tags do not count, nor the dots of Gmail; the address budgets of the services are not touched."""
    shop, bank = start("shop", 9, mailbox_limit=3), start("bank", 9, mailbox_limit=3)
    shop.registered(Address.parse(first))
    bank.registered(Address.parse(second))
    shop.resent(Address.parse(first))
    for process, email in ((shop, first), (bank, first), (bank, second)):
        with pytest.raises(TooManyRegistrations) as caught:
            process.registered(Address.parse(email))
        assert 3500 < there(caught.value.retry_after_s) <= 3600
    with pytest.raises(TooManyRegistrations):
        bank.resent(Address.parse(second))
    bank.registered(Address.parse("ada@elsewhere.example.com"))


@pytest.mark.parametrize("email", ["a.da@example.com", "+ada@example.com", "+@example.com"])
def test_other_mailboxes_have_budgets_of_their_own(start: Start, email: str) -> None:
    """Dots count where it is not Gmail, and what begins with a plus sign has no tag."""
    shop = start("shop", mailbox_limit=1)
    shop.registered(ada())
    shop.registered(Address.parse(email))


def test_a_test_service_neither_uses_nor_meets_the_mailbox_budget(start: Start, store: redis.Redis) -> None:
    """None of its mails goes out."""
    shop, rehearsal = start("shop", mailbox_limit=1), start("rehearsal", mailbox_limit=1, test=True)
    rehearsal.registered(ada())
    rehearsal.resent(ada())
    assert not list(store.scan_iter("*:mailbox:*"))
    shop.registered(ada())
    rehearsal.registered(ada())


def test_whether_a_resend_counts_for_the_mailbox_is_said_by_the_record(start: Start) -> None:
    """What was registered for real is mailed, and counts, also when its service has become a test; and what
    was a test is not, and does not."""
    real, test = start("shop", mailbox_limit=2), start("shop", mailbox_limit=2, test=True)
    real.registered(ada())
    test.resent(ada())
    with pytest.raises(TooManyRegistrations):
        test.resent(ada())
    test.registered(ada())
    real.resent(ada())


def test_no_race_of_services_overdraws_a_mailbox(start: Start, store: redis.Redis) -> None:
    """Three services ask for one mailbox at once, and the script cache is lost again and again."""
    processes = [start(name, mailbox_limit=10) for name in ("shop", "bank", "school")]
    turns = iter(range(60))

    def ask() -> bool:
        turn = next(turns)
        store.script_flush()
        try:
            processes[turn % 3].registered(Address.parse(f"ada+{turn % 7}@example.com"))
        except TooManyRegistrations:
            return False
        return True

    assert sum(at_once(60, ask)) == 10
    assert contradictions(store) == []


def test_a_refused_address_is_erased_for_its_service_only(start: Start) -> None:
    """The other registration is another's."""
    shop, bank = start("shop"), start("bank")
    first, second = shop.registered(ada()), bank.registered(ada())
    mail = first.registration
    shop.outbox.settle(mail.user_id, mail.mail_id, there(first.owner), Delivery.REFUSED)
    assert shop.users.find(mail.user_id) is None
    assert bank.users.find(second.registration.user_id) is not None


def test_a_record_says_for_ever_whether_it_was_a_test(start: Start) -> None:
    """Whatever the service has become since."""
    rehearsal, real = start("shop", test=True), start("shop")
    rehearsal.registered(ada())
    found = there(real.users.find(real.keys(ada()).user_id))
    assert found.contents.test
    claimed = there(real.outbox.claim(found.user_id, "another").later_ms)
    assert claimed > 0
    real.registered(ada())
    assert not there(real.users.find(found.user_id)).contents.test
