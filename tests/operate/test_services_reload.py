"""SERVICES_FILE under gunicorn: what is in force after a start, a reload and the death of a worker.

A key that is in force is answered 404 (there is no such user), any other 401.
"""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from app.directory.directory import digest
from tests.support.metrics import at_work, folders_of
from tests.support.servers import Gunicorn, Valkey, gunicorn
from tests.support.waiting import wait_until

PRELOAD = [(), pytest.param(("--preload",), marks=pytest.mark.slow)]
IDS = ["", "preload"]

WITHOUT_CAPABILITIES = (shutil.which("setpriv") or "", "--bounding-set", "-dac_override,-dac_read_search")
MERE_OWNER = WITHOUT_CAPABILITIES if os.geteuid() == 0 else ()
"""Without what lets root read every file."""

NOBODY = "/api/users/" + "a" * 26
WORKERS = 2


def table(name: str, more: str = "") -> str:
    return f'[{name}]\nkeys = ["{digest(name)}"]\nname = "{name}"\n{more}\n'


class Served:
    """A service with its file. Each table's key is the name of the table."""

    def __init__(self, service: Gunicorn, file: Path, workers: int) -> None:
        self.service, self.file, self.workers = service, file, workers

    @property
    def templates(self) -> Path:
        return self.file.parent / "mails"

    def write(self, *names: str) -> None:
        """The file that is right, with templates, whatever stood there."""
        if self.file.is_symlink():
            self.file.unlink()
        with contextlib.suppress(FileNotFoundError):
            self.file.chmod(0o600)
        self.templates.mkdir(exist_ok=True)
        (self.templates / "en.toml").write_text("")
        self.file.write_text("".join(table(name, 'templates = "mails"') for name in names))

    def replaced_workers(self, act: Callable[[], None]) -> None:
        """Does what makes gunicorn replace its workers, and waits until it has."""
        before = set(self.service.workers())
        act()
        wait_until(lambda: self._are_new(before), 60, "all workers are new")
        self.wait_for_workers()

    def wait_for_workers(self) -> None:
        """Until each serves: gunicorn loses a SIGTERM to a worker that is still starting."""
        wait_until(self.service.answers_again, 30, "it answers again")
        wait_until(self._all_are_at_work, 30, "all are at work")

    def _all_are_at_work(self) -> bool:
        workers = set(self.service.workers())
        return all(workers <= at_work(folder) for folder in folders_of(self.service))

    def _are_new(self, before: set[int]) -> bool:
        now = set(self.service.workers())
        return len(now) == self.workers and not now & before

    def reload(self) -> None:
        self.replaced_workers(lambda: self.service.process.send_signal(signal.SIGHUP))

    def statuses(self, key: str) -> set[int]:
        """What the workers answer: connections of their own reach all of them."""
        headers = {"Authorization": f"Bearer {key}"}
        return {
            requests.get(self.service.url + NOBODY, headers=headers, timeout=20).status_code
            for _ in range(8 * self.workers)
        }

    def in_force(self, *names: str) -> list[str]:
        """Which of these every worker knows; AssertionError where they differ."""
        found = {name: self.statuses(name) for name in names}
        assert all(statuses in ({404}, {401}) for statuses in found.values()), found
        return [name for name, statuses in found.items() if statuses == {404}]


@pytest.fixture(scope="module", params=PRELOAD, ids=IDS)
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: Valkey,
    shared_environment: dict[str, str],
) -> Iterator[Served]:
    """Two workers, and a file without services."""
    with contextlib.closing(valkey_server.client()) as client:
        client.flushall()  # of what was sealed there with another key
    folder = tmp_path_factory.mktemp("services")
    file = folder / "services.toml"
    file.write_text("")
    settings = shared_environment | {"SERVICES_FILE": str(file), "WEB_CONCURRENCY": str(WORKERS)}
    with gunicorn(folder, settings, *request.param, prefix=MERE_OWNER) as service:
        found = Served(service, file, WORKERS)
        found.wait_for_workers()
        yield found


def test_without_services_and_keys_nobody_is_let_in(served: Served) -> None:
    """A file that is empty opens nothing, /metrics neither."""
    served.file.write_text("")
    served.reload()
    assert requests.get(served.service.url + NOBODY, timeout=20).status_code == 401
    assert requests.get(f"{served.service.url}/metrics", timeout=20).status_code == 401
    assert served.in_force("shop") == []


def test_a_reload_puts_the_file_in_force_in_every_worker(served: Served) -> None:
    """What was added may call, what was removed may not."""
    served.write("shop")
    with served.file.open("a") as file:
        file.write(table("bank"))
    served.reload()
    assert served.in_force("shop", "bank", "club") == ["shop", "bank"]
    served.write("bank", "club")
    assert served.in_force("shop", "bank", "club") == ["shop", "bank"], "not before the reload"
    served.reload()
    assert served.in_force("shop", "bank", "club") == ["bank", "club"]


def half_written(served: Served) -> None:
    served.file.write_text(table("shop")[:-20])


def wrong_edit(served: Served) -> None:
    served.file.write_text(table("bank", "colour = 1"))


def removed(served: Served) -> None:
    served.file.unlink()


def permission_lost(served: Served) -> None:
    served.file.chmod(0)


def in_a_circle(served: Served) -> None:
    served.file.unlink()
    served.file.symlink_to(served.file)


def templates_removed(served: Served) -> None:
    (served.templates / "en.toml").unlink()
    served.templates.rmdir()


TROUBLES: dict[Callable[[Served], None], str] = {
    half_written: "Is no TOML",
    wrong_edit: "[bank] colour, line 4",
    removed: "no such file or directory",
    permission_lost: "permission denied",
    in_a_circle: "too many levels of symbolic links",
    templates_removed: "[shop] templates, line 4",
}
QUICK = (half_written,)


@pytest.mark.parametrize(
    "trouble",
    [pytest.param(act, marks=() if act in QUICK else pytest.mark.slow, id=act.__name__) for act in TROUBLES],
)
def test_a_wrong_file_changes_nothing_and_is_told(served: Served, trouble: Callable[[Served], None]) -> None:
    """What was in force stays so, in every worker, also in those that take the place of dead ones."""
    served.write("shop")
    served.reload()
    assert served.in_force("shop", "bank") == ["shop"]
    before = len(served.service.log)
    trouble(served)
    served.reload()
    assert served.in_force("shop", "bank") == ["shop"]
    logged = served.service.log[before:]
    errors = [line for line in logged.splitlines() if '"services_wrong"' in line]
    assert errors
    assert all(TROUBLES[trouble] in line and '"level":"error"' in line for line in errors)
    assert digest("shop") not in served.service.log
    served.replaced_workers(served.service.kill_workers)
    assert served.in_force("shop", "bank") == ["shop"]
    assert served.service.process.poll() is None


def test_a_worker_that_takes_another_s_place_does_not_run_ahead(served: Served) -> None:
    """The file was edited, rightly or not, and not put in force: no worker differs from the others."""
    served.write("shop")
    served.reload()
    for text in (table("bank"), "[bank"):
        served.file.write_text(text)
        victim = served.service.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(partial(replaced, served.service, victim), 30, "a new worker")
        served.wait_for_workers()
        assert served.in_force("shop", "bank") == ["shop"]


def test_workers_agree_whatever_is_written_while_they_start(served: Served) -> None:
    """An editor that writes in place, again and again: whole files, halves, nothing."""
    served.write("shop")
    served.reload()
    done = threading.Event()

    def scribble() -> None:
        texts = [table("bank"), table("club"), table("bank")[:30], ""]
        while not done.is_set():
            for text in texts:
                served.file.write_text(text)

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        for _ in range(2):
            served.reload()
            assert len(served.in_force("shop", "bank", "club")) <= 1
    finally:
        done.set()
        writer.join()
    served.write("bank")
    served.reload()
    assert served.in_force("shop", "bank", "club") == ["bank"]


@pytest.mark.slow
def test_what_is_in_force_outlives_the_folder(tmp_path: Path, environment: dict[str, str]) -> None:
    """systemd removes what a person has in /dev/shm when that person logs out (RemoveIPC)."""
    file = tmp_path / "services.toml"
    file.write_text(table("shop"))
    with gunicorn(tmp_path, environment | {"SERVICES_FILE": str(file)}) as service:
        served = Served(service, file, 1)
        (folder,) = folders_of(service)
        wait_until(lambda: at_work(folder) == {*service.workers()}, 30, "it is at work")
        shutil.rmtree(folder)
        half_written(served)
        wait_until(lambda: [*folder.glob("services-*")], 30, "they are there again")
        for act in (service.kill_workers, partial(service.process.send_signal, signal.SIGHUP)):
            before = {*service.workers()}
            act()
            wait_until(lambda: not before & {*service.workers()}, 60, "another worker")  # noqa: B023
            wait_until(service.answers_again, 30, "it answers again")
            assert served.in_force("shop", "bank") == ["shop"]


def replaced(service: Gunicorn, victim: int) -> bool:
    return len(service.workers()) == WORKERS and victim not in service.workers()


@pytest.mark.parametrize("arguments", PRELOAD, ids=IDS)
def test_a_wrong_file_stops_the_first_start(
    tmp_path: Path, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """Exit status 3, after one message with every error."""
    file = tmp_path / "services.toml"
    file.write_text(table("Shop") + "[bank]\nname = 3")
    with gunicorn(tmp_path, environment | {"SERVICES_FILE": str(file)}, *arguments, ready=False) as service:
        assert service.process.wait(60) == 3
        for says in ("[Shop], line 1: ", "[bank] keys, line 5: ", "[bank] name, line 6: "):
            assert f"  SERVICES_FILE {says}" in service.log


@pytest.mark.parametrize("arguments", PRELOAD, ids=IDS)
def test_without_a_folder_for_the_workers_only_a_master_that_preloads_remembers(
    tmp_path: Path, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """gunicorn with another configuration: there a wrong file at a reload is like any other wrong setting."""
    file = tmp_path / "services.toml"
    file.write_text(table("shop"))
    settings = environment | {"SERVICES_FILE": str(file)}
    with gunicorn(tmp_path, settings, "-w", "1", *arguments, own_configuration=False) as service:
        served = Served(service, file, 1)
        assert served.in_force("shop") == ["shop"]
        file.write_text(table("bank"))
        served.reload()
        assert served.in_force("shop", "bank") == ["bank"]
        file.write_text("[bank")
        if arguments:
            served.reload()
            assert served.in_force("shop", "bank") == ["shop"]
        else:
            service.process.send_signal(signal.SIGHUP)
            assert service.process.wait(60) == 3
        assert '"services_wrong"' in service.log or "cedula cannot start" in service.log
