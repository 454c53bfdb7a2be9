"""The folder that workers share for their metrics: who makes it, who removes it, and what hurts it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
import requests

from tests.support.metrics import BREAKER, answers, folders_of, latest, read, ready, scraped, several
from tests.support.servers import ROOT, Gunicorn, MailServer, free_port, gunicorn
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]) -> Iterator[Gunicorn]:
    """A service with two workers."""
    settings = shared_environment | {"WEB_CONCURRENCY": "2"}
    with gunicorn(tmp_path_factory.mktemp("two"), settings) as service:
        yield service


@pytest.mark.parametrize("trouble", ["garbage", "removed"])
def test_a_folder_in_trouble_never_hurts(two: Gunicorn, store: redis.Redis, trouble: str) -> None:
    """It is removed, or what is in it is broken: requests are answered, and the workers share again."""
    (folder,) = folders_of(two)
    wait_until(lambda: len(list(folder.glob("*.json"))) == 2, 30, "two snapshots")
    registered = answers("/api/users", "POST", 201)
    before = latest(two).get(registered, 0.0)
    if trouble == "removed":
        shutil.rmtree(folder)
    for turn in range(10):
        if trouble == "garbage":
            for path in folder.glob("*.json"):
                path.write_bytes((b"", b"{", b"[1]", b'{"pid": 1}')[turn % 4])
        ready(two)
        scraped(two)
        answer = requests.post(
            f"{two.url}/api/users", json={"email": f"ada{turn}@example.com", "token": "t"}, timeout=10
        )
        assert answer.status_code == 201
    wait_until(lambda: all(found.get(registered) == before + 10 for found in several(two)), 30, "both")


def test_a_folder_that_was_made_anew_keeps_the_counts_of_workers_that_die(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """It is removed, then another gunicorn starts on this machine, then one worker after the other is killed:
    nothing that was counted is lost or counted twice, and each worker knows of the other."""
    registered = answers("/api/users", "POST", 201)
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}) as service:

        def all_tell(count: int) -> bool:
            return all(
                found.get(registered) == count and sum(name.startswith(BREAKER) for name in found) == 2
                for found in several(service)
            )

        (folder,) = folders_of(service)
        wait_until(lambda: len(list(folder.glob("*.json"))) == 2, 30, "two snapshots")
        shutil.rmtree(folder)
        for turn in range(10):
            assert service.register(f"ada{turn}@example.com").status_code == 201
        wait_until(lambda: all_tell(10), 30, "both share again")
        shutil.rmtree(make_folder(folder.parent))
        for victim in service.workers():
            os.kill(victim, signal.SIGKILL)
            wait_until(partial(replaced, service, victim), 30, "a new worker")
            wait_until(service.answers_again, 30, "it answers again")
            wait_until(lambda: all_tell(10), 30, "nothing is lost")
        assert len(list(folder.glob("*.json"))) == 2


def replaced(service: Gunicorn, victim: int) -> bool:
    return len(service.workers()) == 2 and victim not in service.workers()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["", "preload"])
def test_a_worker_that_dies_takes_no_counts_with_it(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer, arguments: tuple[str, ...]
) -> None:
    """Its successor goes on with its files: four deaths later the sums stand, and there are no more files."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}, *arguments) as service:
        for turn in range(6):
            requests.post(
                f"{service.url}/api/users",
                json={"email": f"ada{turn}@example.com", "token": "t"},
                timeout=10,
            )
        (folder,) = folders_of(service)
        wait_until(lambda: len(list(folder.glob("*.json"))) == 2, 30, "two snapshots")
        wait_until(
            lambda: all(found.get(answers("/api/users", "POST", 201)) == 6 for found in several(service))
        )
        for _ in range(2):
            before = set(service.workers())
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_until(partial(all_new, service, before), 30, "two new workers")
            wait_until(service.answers_again, 30, "it answers again")
        assert len(list(folder.glob("*.json"))) == 2
        for found in several(service, 4):
            assert found[answers("/api/users", "POST", 201)] == 6


def all_new(service: Gunicorn, before: set[int]) -> bool:
    now = set(service.workers())
    return len(now) == len(before) and not now & before


def healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=20).ok
    except requests.RequestException:
        return False


MAKES_A_FOLDER = """
import os, runpy, signal, sys
if len(sys.argv) > 2:
    sys.addaudithook(lambda event, _: event == sys.argv[2] and os.kill(os.getpid(), signal.SIGKILL))
print(runpy.run_path("gunicorn.conf.py")["make_folder"](sys.argv[1]), flush=True)
"""


def make_folder(parent: Path, killed_at: str = "") -> str:
    """What a start of gunicorn made there. `killed_at`: the audit event at which it is killed."""
    command = [sys.executable, "-c", MAKES_A_FOLDER, str(parent), *([killed_at] if killed_at else [])]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == (-signal.SIGKILL if killed_at else 0), ended.stderr
    return ended.stdout.strip()


def test_a_start_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Whenever it was killed: also between making the folder and locking it."""
    make_folder(tmp_path, killed_at="fcntl.flock")
    assert len(list(tmp_path.iterdir())) == 1
    make_folder(tmp_path)
    folder = make_folder(tmp_path)
    assert [str(path) for path in tmp_path.iterdir()] == [folder]


def test_what_is_no_folder_does_not_hold_up_a_start(tmp_path: Path) -> None:
    """Opening a FIFO waits for whoever writes into it, and anybody may make one in a shared place."""
    os.mkfifo(tmp_path / "cedula-metrics-fifo")
    (tmp_path / "cedula-metrics-file").touch()
    folder = make_folder(tmp_path)
    assert Path(folder).is_dir()
    assert len(list(tmp_path.iterdir())) == 3


IS_RELOADED = """
import os, runpy, sys
from types import SimpleNamespace
from unittest.mock import Mock
read = runpy.run_path("gunicorn.conf.py")
for _ in range(2 * (sys.argv[1] == "--daemon")):  # as gunicorn.util.daemonize does
    if child := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
read["on_starting"](Mock(cfg=SimpleNamespace(address=[], uid=os.getuid(), gid=os.getgid())))
folder = os.environ["CEDULA_METRICS_FOLDER"]
runpy.run_path("gunicorn.conf.py")
read["on_exit"](None)
assert os.environ.get("CEDULA_METRICS_FOLDER") == folder
assert not os.path.exists(folder)
"""


@pytest.mark.parametrize("arguments", ["", "--daemon"])
def test_a_reload_keeps_the_folder_also_of_a_daemon(arguments: str) -> None:
    """gunicorn reads its configuration before it becomes a daemon, which is another process."""
    command = [sys.executable, "-c", IS_RELOADED, arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_a_reload_keeps_the_counts(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """SIGHUP reads the configuration again; the folder and what is in it stay."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "1"}) as service:
        requests.post(f"{service.url}/api/users", json={"email": "ada@example.com", "token": "t"}, timeout=20)
        (folder,), before = folders_of(service), service.workers()
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: (now := service.workers()) and not set(now) & set(before), 40, "a new worker")
        wait_until(service.answers_again, 30, "it answers again")
        assert folders_of(service) == [folder]
        wait_until(lambda: scraped(service)[answers("/api/users", "POST", 201)] == 1, 30, "the count stands")


@pytest.mark.slow
def test_an_end_leaves_nothing_behind(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """The folder goes with gunicorn; that of one that was killed goes at the next start."""
    with gunicorn(tmp_path, environment) as killed:
        (left,) = folders_of(killed)
    assert left.exists()
    with gunicorn(tmp_path, environment) as service:
        assert not left.exists()
        (folder,) = folders_of(service)
        service.stop()
    assert not folder.exists()


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make its root unwritable")
@pytest.mark.parametrize("unwritable", ["/", "/dev/shm"])
def test_one_place_that_can_be_written_is_enough(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer, unwritable: str
) -> None:
    """As in the container: registrations and counts with nothing to write to but /dev/shm. Or without it, as
    `podman run --read-only-tmpfs=false` and hardened machines have it."""
    port = free_port()
    script = f"""
        mount --make-rprivate / || exit 9
        mountpoint -q {unwritable} || mount --bind {unwritable} {unwritable}
        mount -o remount,bind,ro {unwritable} || exit 9
        touch {unwritable}/written && exit 9
        exec {sys.executable} -B -m gunicorn --bind 127.0.0.1:{port} wsgi:app
    """
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "WEB_CONCURRENCY": "2", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or healthy(url), 30, "it answers")
        if process.poll() == 9:
            pytest.skip("mounts are not allowed here")
        body = {"email": "ada@example.com", "token": "t"}
        assert requests.post(f"{url}/api/users", json=body, timeout=20).status_code == 201

        def both_tell() -> bool:
            found = read(requests.get(f"{url}/metrics", timeout=20).text)
            return (
                'cedula_mail_breaker_open{pid="2"}' in found
                and found.get(answers("/api/users", "POST", 201)) == 1
            )

        wait_until(both_tell, 30, "both workers' counts")
    finally:
        process.terminate()
        process.wait(40)
