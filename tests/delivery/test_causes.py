"""Log lines of a mail name the request that caused it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.servers import Gunicorn, gunicorn
from tests.support.smtp import ScriptedSmtp, say
from tests.support.waiting import wait_until

KEY = "k" * 40


def lines(service: Gunicorn, event: str) -> list[dict[str, Any]]:
    """The log lines of one event."""
    found = (json.loads(line) for line in service.log.splitlines() if line.startswith("{"))
    return [line for line in found if line["event"] == event]


@pytest.mark.parametrize(
    ("reply", "event"),
    [("450 4.2.1 Later", "mail_put_off"), ("550 5.7.1 Relaying denied", "mail_refused_by_server")],
)
@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}], ids=["waits", "async"])
def test_a_senders_line_names_request_and_caller_also_when_the_mail_is_tried_again(
    headers: dict[str, str],
    reply: str,
    event: str,
    tmp_path: Path,
    environment: dict[str, str],
    smtp: ScriptedSmtp,
    store: redis.Redis,
) -> None:
    """The first try beside the request, and the second from the relay."""
    smtp.script["rcpt"] = say(reply)
    own = {
        **environment,
        "MAIL_PORT": str(smtp.port),
        "MAIL_DEFAULT_SENDER": "no-reply@example.com",
        "API_KEYS": f"shop:{hashlib.sha256(KEY.encode()).hexdigest()}",
    }
    with gunicorn(tmp_path, own, "--workers", "1") as service:
        told = {"Authorization": f"Bearer {KEY}", "X-Request-ID": "ada-1", **headers}
        assert service.register("ada@example.com", headers=told).status_code == 202
        wait_until(lambda: len(lines(service, event)) >= 2, 15, "it is tried again")
        for line in lines(service, event):
            assert (line["request_id"], line["caller"]) == ("ada-1", "shop")
        assert "ada@example.com" not in service.log
