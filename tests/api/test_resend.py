"""Mailing the live number again."""

import pytest

from tests.api.conftest import Api
from tests.support.servers import MailServer
from tests.support.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}


def test_the_same_number_comes_in_a_new_mail(api: Api, email: str, mail: MailServer) -> None:
    """The answer is that of a look-up; the end of the number stays."""
    registered = api.register(email)
    user_id, number = registered.json()["id"], api.number_of(email)
    answer = api.call("POST", f"/api/users/{user_id}/resend")
    assert answer.status_code == 200
    first, second = mail.box.to(email)
    assert second.number == first.number == number
    assert second.message_id != first.message_id
    body = answer.json()
    assert body == api.call("GET", f"/api/users/{user_id}").json()
    assert body["delivery"] == "sent"
    assert body["mail_attempts"] == 2
    assert body["expires_at"] == registered.json()["expires_at"]
    assert api.verify(email, number).json()["token"] == "t0ken"


def test_who_prefers_not_to_wait_need_not(api: Api, email: str, mail: MailServer) -> None:
    """202, and the mail goes out."""
    user_id = api.register(email).json()["id"]
    answer = api.call("POST", f"/api/users/{user_id}/resend", headers=ASYNC)
    assert (answer.status_code, answer.json()["delivery"]) == (202, "pending")
    assert answer.headers["Preference-Applied"] == "respond-async"
    wait_until(lambda: len(mail.box.to(email)) == 2, 20, "the mail is there")


def test_nothing_is_mailed_where_nothing_is_live(api: Api, email: str, mail: MailServer) -> None:
    """Used, erased, or never there."""
    user_id = api.register(email).json()["id"]
    api.verify(email, api.number_of(email))
    for each in (user_id, "a" * 26):
        answer = api.call("POST", f"/api/users/{each}/resend")
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
    assert len(mail.box.to(email)) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_mails(api: Api, email: str, method: str) -> None:
    """A GET never does anything."""
    user_id = api.register(email).json()["id"]
    assert api.call(method, f"/api/users/{user_id}/resend").status_code == 405


def test_resends_use_up_the_address_limit(keyed: Api, email: str, mail: MailServer) -> None:
    """Ten an hour, registrations among them."""
    user_id = keyed.register(email).json()["id"]
    for _ in range(9):
        assert keyed.call("POST", f"/api/users/{user_id}/resend").status_code == 200
    answer = keyed.call("POST", f"/api/users/{user_id}/resend")
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/too-many-registrations")
    assert int(answer.headers["Retry-After"]) > 3500
    assert keyed.register(email).status_code == 429
    assert len(mail.box.to(email)) == 10
    assert keyed.verify(email, keyed.number_of(email)).status_code == 200
