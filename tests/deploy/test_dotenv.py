"""One `.env` for gunicorn and `flask` alike: both read it, and for both the environment comes first."""

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis
import requests

from app.directory.directory import digest
from tests.support.servers import ROOT, Gunicorn, MailServer, Valkey, gunicorn
from tests.support.waiting import wait_until

KEY = "cedula_" + "k" * 40


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the application, and no `.env` yet."""
    for path in (*ROOT.glob("*.py"), ROOT / "app", ROOT / "dev"):
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def write(project: Path, **settings: str) -> None:
    (project / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


def flask(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command],
        cwd=project,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def served(project: Path, **environment: str) -> AbstractContextManager[Gunicorn]:
    return gunicorn(project, {"FLASK_SKIP_DOTENV": "", **environment}, project=project)


def test_gunicorn_and_flask_read_the_same_settings(
    project: Path, valkey_server: Valkey, store: redis.Redis, mail_server: MailServer
) -> None:
    """What one registers, the other shows: the same Redis, keys and, for gunicorn, number of workers."""
    write(
        project,
        REDIS_URL=valkey_server.url,
        MAIL_SERVER="127.0.0.1",
        MAIL_PORT=str(mail_server.port),
        MAIL_DEFAULT_SENDER='"Cedula Ñandú <no-reply@example.com>"',
        SECRET_KEY="s" * 40,
        API_KEYS=f"me:{digest(KEY)}",
        WEB_CONCURRENCY="1",
    )
    with served(project) as service:
        assert len(service.workers()) == 1
        assert service.register("ada@example.com").status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        assert service.register("ada@example.com", headers=headers).status_code == 201
    assert "Ñandú" in str(mail_server.box.mails[0].message["From"])
    shown = flask(project, "users", "show", "--json", "ada@example.com")
    assert json.loads(shown.stdout)["email"] == "ada@example.com", shown.stderr


def test_the_environment_comes_first(
    project: Path, valkey_server: Valkey, store: redis.Redis, mail_server: MailServer
) -> None:
    """What is said twice is as the environment says; FLASK_SKIP_DOTENV leaves the file unread."""
    write(project, REDIS_URL="redis://127.0.0.1:1/0", API_KEYS=f"me:{digest(KEY)}", WEB_CONCURRENCY="1")
    given = {"REDIS_URL": valkey_server.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(mail_server.port)}
    with served(project, **given) as service:
        assert requests.get(f"{service.url}/readyz", timeout=10).ok
        assert service.register("ada@example.com").status_code == 401
    with served(project, **given, FLASK_SKIP_DOTENV="1") as service:
        assert service.register("ada@example.com").status_code == 201
    assert flask(project, "users", "show", "ada@example.com", **given).returncode == 0
    assert flask(project, "users", "show", "ada@example.com").returncode == 1


def test_a_reload_reads_the_file_again(
    project: Path, valkey_server: Valkey, store: redis.Redis, mail_server: MailServer
) -> None:
    """SIGHUP: what the file says now, also where it said something else before; the environment still comes
    first."""
    settings = {"REDIS_URL": "redis://127.0.0.1:1/0", "MAIL_SERVER": "127.0.0.1", "WEB_CONCURRENCY": "1"}
    write(project, **settings, API_KEYS=f"me:{digest(KEY)}")
    given = {"REDIS_URL": valkey_server.url, "MAIL_PORT": str(mail_server.port)}
    other = KEY.replace("k", "o")
    with served(project, **given) as service:

        def status(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return service.register("ada@example.com", headers=headers).status_code

        assert (status(KEY), status(other)) == (201, 401)
        before = service.workers()
        write(project, **settings, API_KEYS=f"me:{digest(other)}")
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: (now := service.workers()) and not set(now) & set(before), 40, "a new worker")
        assert (status(KEY), status(other)) == (401, 201)


def test_a_wrong_setting_in_the_file_stops_both(project: Path) -> None:
    """With the same message."""
    write(project, NUMBER_DIGITS="4", WEB_CONCURRENCY="1")
    told = flask(project, "users", "show", "ada@example.com")
    assert "NUMBER_DIGITS:" in told.stderr
    with gunicorn(project, {"FLASK_SKIP_DOTENV": ""}, project=project, ready=False) as refused:
        assert refused.process.wait(40) != 0
        assert "NUMBER_DIGITS:" in refused.log
