"""Who serves the playground, with what restrictions, and what it tells of a request's times."""

import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from tests.support.dev_run import Run
from tests.support.servers import ROOT, Gunicorn
from tests.support.waiting import wait_until

TIMED = {"Cedula-Playground": "1"}
STEPS = ("checked", "drawn", "asked", "prepared", "looked", "tried", "stored", "returned", "handed", "mailed")


def register(url: str, email: str, headers: Mapping[str, str] = TIMED) -> requests.Response:
    body = {"email": email, "token": "a-secret-token"}
    return requests.post(f"{url}/api/users", json=body, headers=headers, timeout=20)


def verify(url: str, email: str, number: str) -> requests.Response:
    body = {"email": email, "number": number}
    return requests.post(f"{url}/api/users/verify", json=body, headers=TIMED, timeout=20)


def times(answer: requests.Response) -> dict[str, float]:
    """Milliseconds of each step, as the answer tells them."""
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", timing(answer))}


def timing(answer: requests.Response) -> str:
    return answer.headers.get("Server-Timing", "")


def number_in_newest_mail(run: Run) -> str:
    found = re.search(r"^ +(\d[\d ]+)\r$", run.mails()[0]["text"], re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_deployed_service_serves_no_playground(service: Gunicorn) -> None:
    """`wsgi:app` leads from `/` to the documentation, has none of the page's files, and times nothing."""
    home = requests.get(f"{service.url}/", allow_redirects=False, timeout=10)
    assert (home.status_code, home.headers["Location"]) == (302, "/docs")
    for path in ("/playground/", "/playground/messages.json", "/playground/static/playground.js"):
        assert requests.get(f"{service.url}{path}", timeout=10).status_code == 404
    answer = register(service.url, "ada@example.com")
    assert (answer.status_code, timing(answer)) == (201, "")


def test_the_image_holds_no_playground() -> None:
    """The container is made of what .dockerignore lets through, and dev/ is not in it."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert not [line for line in lines if line.startswith("!dev")]
    assert "dev" not in re.findall(r"^COPY (?!--)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", ["/", "/playground/mails"])
def test_the_page_may_load_and_run_nothing_but_its_own_files(url: str, path: str) -> None:
    """The policy names only 'self', the page holds no inline script or style, and its files are all there."""
    page = requests.get(f"{url}{path}", timeout=10)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert set(re.findall(r"'[^']+'", policy)) == {"'none'", "'self'"}
    assert not re.search(r"<style|style=|<script(?![^>]* src=)|\son\w+=", page.text)
    files = re.findall(r'(?:src|href)="(/playground/[^"]+)"', page.text)
    assert len(files) >= 3
    for file in files:
        assert requests.get(f"{url}{file}", timeout=10).status_code == 200, file


def test_a_mail_is_shown_in_a_frame_that_runs_and_loads_nothing(run: Run, url: str) -> None:
    """The HTML part comes with a sandbox of its own; a name that is no mail's is not found."""
    assert register(url, "frame@example.com").status_code == 201
    [mail] = requests.get(f"{url}/playground/messages.json?limit=1", timeout=10).json()
    part = requests.get(f"{url}/playground/messages/{mail['name']}/html", timeout=10)
    assert part.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert mail["language"] == "en"
    for name in ("none", "..%2f..%2fsecret_key"):
        assert requests.get(f"{url}/playground/messages/{name}/html", timeout=10).status_code == 404


@pytest.mark.parametrize("path", ["/", "/playground/messages.json", "/playground/mails.json"])
def test_the_playground_answers_no_other_site(url: str, path: str) -> None:
    """A page elsewhere that points its own name at 127.0.0.1 must not read the mails."""
    answer = requests.get(f"{url}{path}", headers={"Host": "attacker.example"}, timeout=10)
    assert answer.status_code == 400


def test_a_preview_is_shown_in_a_frame_that_runs_nothing(url: str) -> None:
    """In either scheme, with a sandbox of its own; what is no service, language or scheme is not found."""
    for scheme in ("light", "dark"):
        part = requests.get(f"{url}/playground/mails/shop/ar/{scheme}", timeout=30)
        policy = part.headers["Content-Security-Policy"]
        assert policy.startswith("sandbox; default-src 'none'")
        assert "script" not in policy
        assert 'dir="rtl"' in part.text
    for path in ("club/es/light", "shop/xx/light", "shop/es/blue"):
        assert requests.get(f"{url}/playground/mails/{path}", timeout=30).status_code == 404, path


def test_the_steps_of_a_registration_add_up_to_the_whole(url: str) -> None:
    """Every step of the diagram was measured; none is negative, and together they are the total."""
    found = times(register(url, "sum@example.com"))
    total = found.pop("total")
    assert set(STEPS) <= set(found)
    assert all(ms >= 0 for ms in found.values())
    assert sum(found.values()) == pytest.approx(total, abs=0.001 * len(found))


def test_old_data_is_deleted_only_where_there_was_some(url: str) -> None:
    """The step in the diagram's alternative has a time in the second registration of an address alone."""
    assert "deleted" not in times(register(url, "twice@example.com"))
    assert times(register(url, "twice@example.com"))["deleted"] > 0


def test_a_refused_request_has_only_the_steps_that_were_done(run: Run, url: str) -> None:
    """Verifying is timed as well; a mistyped number never gets as far as Redis."""
    assert set(times(register(url, "no address"))) == {"answered", "total"}
    register(url, "steps@example.com")
    number = number_in_newest_mail(run)
    mistyped = verify(url, "steps@example.com", "1234")
    assert (mistyped.status_code, set(times(mistyped))) == (422, {"checked", "answered", "total"})
    right = verify(url, "steps@example.com", number)
    assert right.status_code == 200
    assert {"checked", "asked", "compared", "returned", "answered"} <= set(times(right))
    again = verify(url, "steps@example.com", number)
    assert (again.status_code, "returned" in times(again)) == (403, False)


def test_the_times_tell_no_secret_and_only_who_asks_gets_them(run: Run, url: str) -> None:
    """Neither number, token nor address is in the header; a request like any other's has no such header."""
    answer = register(url, "quiet@example.com")
    assert re.fullmatch(
        r'[a-z]+;dur=[\d.]+(;desc="[A-Z ]+")?(, |$)' * (timing(answer).count(",") + 1), timing(answer)
    )
    assert timing(register(url, "quiet@example.com", headers={})) == ""


def test_a_redis_that_does_not_answer_is_told_as_it_is(run: Run, url: str) -> None:
    """Timing does not get into the way of the service's own 503."""
    valkey = run.children()["valkey-server"]
    os.kill(valkey, signal.SIGSTOP)
    try:
        answer = register(url, "away@example.com")
    finally:
        os.kill(valkey, signal.SIGCONT)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/storage-unavailable")
    assert {"checked", "answered"} <= set(times(answer))
    wait_until(lambda: requests.get(f"{url}/readyz", timeout=10).status_code == 200, what="ready again")


def test_the_run_says_where_the_playground_is(run: Run, url: str) -> None:
    """In the printed lines, above all else."""
    assert run.output.index(f"{url}/   (the playground)") < run.output.index("Mails arrive at:")
    assert Path(run.instance / "mail").is_dir()


def test_every_language_of_the_page_says_the_same_things(url: str) -> None:
    """No text is forgotten in one: the three files have the same names in the same order. And the
    number has one name."""
    names = {}
    for language in ("en", "es", "pt"):
        text = requests.get(f"{url}/playground/static/texts/{language}.js", timeout=10).text
        names[language] = re.findall(r'^ +"?([\w-]+)"?:', text, re.MULTILINE)
        assert not re.search("identity number|número de identida", text)
    assert len(names["en"]) > 100
    assert names["es"] == names["en"]
    assert names["pt"] == names["en"]
