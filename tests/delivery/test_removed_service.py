"""A service that is taken out of SERVICES_FILE: what it had waits, ends in its time, and is found again."""

from pathlib import Path
from typing import Any

import pytest
import redis

from app.repositories.keys import Field, UserKeys
from tests.api.conftest import Api, named
from tests.support.records import Records
from tests.support.reloading import reload
from tests.support.scan import contradictions
from tests.support.servers import Valkey, gunicorn
from tests.support.smtp import ScriptedSmtp, say
from tests.support.tenants import digest_of, key_of, services_file
from tests.support.values import text
from tests.support.waiting import wait_until

SENDERS = {name: f"no-reply@{name}.example" for name in ("shop", "bank")}
TABLES: dict[str, dict[str, Any]] = {name: {"sender": sender} for name, sender in SENDERS.items()}
OWED, SENT, ENDS = "owed@example.com", "sent@example.com", "ends@example.com"
EVERYBODY = (OWED, SENT, ENDS)
LATER = say("451 4.3.0 Later")


def settings_of(folder: Path, valkey: Valkey, smtp: ScriptedSmtp) -> dict[str, str]:
    """For a service with both tables."""
    return {
        "REDIS_URL": valkey.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(smtp.port),
        "SERVICES_FILE": str(services_file(folder, **TABLES)),
    }


def number_of(store: redis.Redis, keys: UserKeys) -> str:
    """The key of the live number."""
    return keys.number_prefix + text(store.hget(keys.user, Field.NUMBER))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_a_removed_service_had_waits_for_its_return(
    tmp_path: Path, valkey_server: Valkey, store: redis.Redis, smtp: ScriptedSmtp
) -> None:
    """Its keys are refused, its mails wait, its numbers end as they would; the other service goes on."""
    settings = settings_of(tmp_path, valkey_server, smtp) | {"MAIL_TIMEOUT": "1"}
    records = Records(store, service="bank")
    keys = {email: records.keys(email) for email in EVERYBODY}
    with gunicorn(tmp_path, settings) as server:
        shop, bank = Api(server, key=key_of("shop")), Api(server, key=key_of("bank"))
        first = bank.register(SENT, "bank's", headers=named("order-1"))
        assert first.status_code == 201
        smtp.script["rcpt"] = LATER
        assert {bank.register(email, "bank's").status_code for email in (OWED, ENDS)} == {202}
        ends = {email: store.pexpiretime(keys[email].user) for email in EVERYBODY}

        services_file(tmp_path, shop=TABLES["shop"])
        reload(server)
        smtp.script.clear()
        assert refused(bank)
        fall_due(store, keys[OWED], keys[ENDS])
        wait_until(lambda: waits(store, keys[OWED]) and waits(store, keys[ENDS]), 40, "both mails wait")
        assert store.zscore(keys[OWED].outbox, keys[OWED].user_id) is not None
        assert shop.register(OWED, "shop's").status_code == 201
        for email in EVERYBODY:
            number = number_of(store, keys[email])
            assert store.pexpiretime(keys[email].user) == store.pexpiretime(number) == ends[email] > 0
        store.delete(number_of(store, keys[ENDS]), keys[ENDS].user)  # as Redis does at the end of NUMBER_TTL
        fall_due(store, keys[ENDS])
        dropped = lambda: store.zscore(keys[ENDS].outbox, keys[ENDS].user_id) is None  # noqa: E731
        wait_until(dropped, 40, "nothing is owed for what has ended")
        assert {mail.recipient for mail in smtp.mails if mail.sender == SENDERS["bank"]} == {SENT}

        services_file(tmp_path, **TABLES)
        reload(server)
        fall_due(store, keys[OWED])
        wait_until(lambda: bank.call("GET", path(keys[OWED])).json()["delivery"] == "sent", 60, "it is sent")
        assert bank.register(SENT, "bank's", headers=named("order-1")).content == first.content
        for email in (OWED, SENT):
            (mail,) = [mail for mail in smtp.to(email) if mail.sender == SENDERS["bank"]]
            assert bank.verify(email, mail.number).json()["token"] == "bank's"
        assert bank.call("GET", path(keys[ENDS])).status_code == 404
        assert shop.verify(OWED, smtp.to(OWED)[0].number).json()["token"] == "shop's"
    assert smtp.to(ENDS) == []
    assert contradictions(store) == []


@pytest.mark.timeout(120)
def test_another_table_is_another_service(
    tmp_path: Path, valkey_server: Valkey, store: redis.Redis, smtp: ScriptedSmtp
) -> None:
    """Also with the same keys and looks: it finds nothing of what the first one registered."""
    with gunicorn(tmp_path, settings_of(tmp_path, valkey_server, smtp)) as server:
        bank = Api(server, key=key_of("bank"))
        user_id = bank.register(SENT).json()["id"]
        services_file(tmp_path, renamed={**TABLES["bank"], "keys": [digest_of("bank")], "name": "Bank"})
        reload(server)
        for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/resend")):
            assert bank.call(method, f"/api/users/{user_id}{more}").status_code == 404
        assert bank.verify(SENT, smtp.to(SENT)[0].number).status_code == 403
        assert bank.register(SENT).json()["id"] != user_id


def path(keys: UserKeys) -> str:
    return f"/api/users/{keys.user_id}"


def refused(api: Api) -> bool:
    """Whatever it asks for."""
    answers = [
        api.register(OWED),
        api.verify(OWED, "4821093755"),
        *(
            api.call(method, f"/api/users/{'a' * 26}{more}")
            for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/resend"), ("GET", "/mail"))
        ),
    ]
    return {answer.status_code for answer in answers} == {401}


def fall_due(store: redis.Redis, *those: UserKeys) -> None:
    """Their mails, as if the wait for the next try were over."""
    for keys in those:
        store.zadd(keys.outbox, {keys.user_id: 0}, xx=True)


def waits(store: redis.Redis, keys: UserKeys) -> bool:
    """A mail of it was tried, and found no service."""
    return store.hget(keys.user, Field.ERROR) == b"service not configured"
