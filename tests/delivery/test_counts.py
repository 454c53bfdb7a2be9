"""Which mails count as given up for their service."""

import redis

from app.domain import service as services
from app.domain.address import Address
from app.domain.registration import Cause, Draft, Stored
from app.repositories.keys import Field, keys_of
from app.repositories.scripts import GIVE_UP_MAIL_MS
from app.services.delivery.breaker import FAILURES_TO_OPEN
from app.services.messaging import SendPlan
from tests.delivery.conftest import Serve, Service
from tests.delivery.faults import ADA
from tests.support.smtp import ScriptedSmtp, say
from tests.support.values import there
from tests.support.waiting import wait_until


def counted(service: Service, *key: str) -> float:
    return service.container.metrics.series()[key][0]


def failed(service: Service) -> float:
    return counted(service, "cedula_service_registrations", "default", "failed")


def test_a_refusal_counts_as_failed_where_its_registration_stays(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """Not where the caller is told 422, and nothing stays."""
    service = serve(smtp)
    smtp.script["rcpt"] = say("550 5.1.1 No such user")
    assert service.register(ADA)[0].status_code == 422
    assert failed(service) == 0
    service.register(ADA, headers={"Prefer": "respond-async"})
    wait_until(lambda: failed(service) == 1, 15, "it is counted")
    assert counted(service, "cedula_deliveries", "refused") == 2


def test_a_mail_that_is_too_old_to_be_tried_counts_as_failed(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """The mail server was away for a day: nobody settles it, since nobody tries it again."""
    service = serve(smtp)
    smtp.script["rcpt"] = say("450 4.2.1 Later")
    assert service.register(ADA)[0].status_code == 202
    keys = service.records.keys(ADA)
    record = there(service.container.users.find(keys.user_id))
    store.hset(keys.user, Field.CREATED_MS, record.created_ms - GIVE_UP_MAIL_MS)
    service.wait_for_delivery(ADA, "failed")
    wait_until(lambda: failed(service) == 1, 5, "it is counted")
    assert counted(service, "cedula_deliveries", "given_up") == 1


def test_a_mail_that_is_given_up_while_the_mail_server_is_away_counts_as_failed(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """No sender takes it then: the sweep gives it up."""
    service = serve(smtp, mail_timeout_s=1.0)
    smtp.stop()
    for _ in range(FAILURES_TO_OPEN + 1):
        assert service.register(ADA)[0].status_code == 202
    keys = service.records.keys(ADA)
    record = there(service.container.users.find(keys.user_id))
    long_ago_ms = record.created_ms - GIVE_UP_MAIL_MS - 1000
    store.hset(keys.user, Field.CREATED_MS, long_ago_ms)
    store.zadd(keys.outbox, {keys.user_id: long_ago_ms})
    service.wait_for_delivery(ADA, "failed")
    wait_until(lambda: counted(service, "cedula_deliveries", "given_up") == 1, 5, "it is counted")
    assert failed(service) == 1


def test_a_mail_of_a_removed_service_is_no_attempt_that_failed(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """A hundred that wait for it would tell CedulaDeliveryStopped that the mail server takes no mails."""
    service = serve(smtp)
    stored = service.container.registration.store(
        Draft(Address.parse(ADA), "t0ken", "en", services.Service(id="removed")), 0
    )
    assert isinstance(stored, Stored)
    service.container.messaging.send(stored, SendPlan(0), Cause())
    user = keys_of(stored.registration.user_id).user
    wait_until(lambda: int(store.hget(user, Field.ATTEMPTS) or 0) > 1, 15, "the first look was reported, too")
    assert store.hget(user, Field.ERROR) == b"service not configured"
    assert counted(service, "cedula_deliveries", "put_off") == 0
    assert sum(service.container.metrics.series()[("cedula_mail_duration_seconds",)]) == 0
