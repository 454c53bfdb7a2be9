"""Which services are in force: at a start, after a reload, in workers that start later, for whoever calls."""

import os
import shutil
import time
from pathlib import Path

import pytest

from app.config import ApiKey, Settings
from app.directory.directory import Directory, digest
from app.directory.in_force import RELOAD, InForce
from app.directory.reading import Reading
from app.directory.source import Source
from app.domain.service import Service
from app.errors import SettingsError
from app.telemetry.board import FOLDER
from tests.support.tenants import SENDER, file_with_templates, table, told
from tests.support.values import there


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return file_with_templates(tmp_path)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The folder of the workers, at the first start."""
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path / "shared"))
    monkeypatch.setenv(RELOAD, "1")
    return monkeypatch


def directory(file: Path) -> Directory:
    return read_by(in_force(file))


def in_force(file: Path) -> InForce:
    return InForce(Settings(mail_default_sender=SENDER, services_file=str(file)))


def read_by(found: InForce) -> Directory:
    return Directory(found.read())


def test_the_first_start_is_stopped_by_a_wrong_file(file: Path, shared: pytest.MonkeyPatch) -> None:
    """With everything that is wrong."""
    file.write_text("[shop]")
    with pytest.raises(SettingsError, match=r"\[shop\] keys, line 1: Must be set"):
        directory(file)


def test_a_reload_is_a_new_start_for_what_a_master_has_loaded(file: Path, shared: pytest.MonkeyPatch) -> None:
    """Without gunicorn, each process has a start of its own."""
    loaded = in_force(file)
    before = loaded.start
    assert in_force(file).start == before
    shared.setenv(RELOAD, "2")
    assert loaded.start == in_force(file).start != before
    shared.delenv(RELOAD)
    assert loaded.start == loaded.start != in_force(file).start


def test_what_is_in_force_changes_with_a_reload_only(file: Path, shared: pytest.MonkeyPatch) -> None:
    """A worker that takes another's place has what the others have, whatever becomes of the file."""
    assert directory(file).get("shop")
    for name in ("bank", "Wrong"):
        file.write_text(table("", name))
        assert directory(file).get("shop")
    shared.setenv(RELOAD, "2")
    kept = directory(file)
    assert kept.get("shop")
    assert there(kept.get("default")).templates == {}
    file.write_text(table("", "bank"))
    assert directory(file).get("shop"), "the first worker after the reload has decided"
    shared.setenv(RELOAD, "3")
    renewed = directory(file)
    assert [each for each in ("default", "bank", "shop") if renewed.get(each)] == ["default", "bank"]


@pytest.mark.parametrize("reload", [2, 3])
def test_a_worker_that_meets_a_wrong_file_is_overtaken_by_another_and_keeps_what_is_in_force(
    file: Path, shared: pytest.MonkeyPatch, reload: int
) -> None:
    """The other one decides for the same reload or for the next, while this one reads."""
    assert directory(file).get("shop")
    file.write_text(file.read_text() + "[bank]")
    shared.setenv(RELOAD, "2")

    def overtaken(_: Service, __: object) -> list[str]:
        shared.setenv(RELOAD, str(reload))
        assert directory(file).get("shop")
        return []

    slow = InForce(Settings(mail_default_sender=SENDER, services_file=str(file)), overtaken)
    assert read_by(slow).get("shop")


def test_what_is_in_force_is_put_into_a_folder_that_was_made_anew(
    file: Path, shared: pytest.MonkeyPatch
) -> None:
    """Then a wrong file changes nothing still, at a reload or where a worker takes another's place."""
    serving = in_force(file)
    serving.read()
    folder = Path(os.environ[FOLDER])
    shutil.rmtree(folder)
    folder.mkdir()
    serving.share_again()
    file.write_text(file.read_text() + "[bank]")
    assert directory(file).get("shop")
    shared.setenv(RELOAD, "2")
    assert directory(file).get("shop")


def test_templates_are_kept_with_the_file(file: Path, shared: pytest.MonkeyPatch) -> None:
    """The folder is gone, and the file is as it was."""
    assert directory(file).get("shop")
    (file.parent / "acme" / "nl.toml").unlink()
    (file.parent / "acme").rmdir()
    shared.setenv(RELOAD, "2")
    found = directory(file).get("shop")
    assert found
    assert found.templates == {"nl.toml": "greeting = 'Hallo'"}


def test_what_is_kept_is_for_its_owner_and_only_the_newest(file: Path, shared: pytest.MonkeyPatch) -> None:
    """It may hold secrets; and a thousand reloads fill no memory."""
    for turn in range(1, 5):
        shared.setenv(RELOAD, str(turn))
        directory(file)
    kept = list(Path(os.environ[FOLDER]).iterdir())
    assert {each.name for each in kept} == {"services-3", "services-4"}
    assert {each.stat().st_mode & 0o777 for each in kept} == {0o600}


@pytest.mark.parametrize("broken", [b"", b"{", b"[1]", b'{"text": 1}', b'{"text": "", "folders": [1]}'])
def test_a_broken_memory_is_none(file: Path, shared: pytest.MonkeyPatch, broken: bytes) -> None:
    """Then the file is read."""
    (Path(os.environ[FOLDER]) / "services-1").write_bytes(broken)
    assert directory(file).get("shop")


def test_a_folder_that_is_gone_is_done_without(file: Path, shared: pytest.MonkeyPatch) -> None:
    """Each worker then reads for itself."""
    Path(os.environ[FOLDER]).rmdir()
    assert directory(file).get("shop")
    file.write_text("[shop]")
    with pytest.raises(SettingsError):
        directory(file)


def test_a_forked_process_reads_anew_and_keeps_what_it_has(file: Path) -> None:
    """A wrong file changes nothing."""
    process = in_force(file)
    assert read_by(process).get("shop")
    file.write_text(table("", "bank", digest("key")))
    found = read_by(process)
    assert [each for each in ("default", "bank", "shop") if found.get(each)] == ["default", "bank"]
    file.write_text("[shop]")
    caller = read_by(process).caller("key")
    assert caller
    assert caller.key_name == "bank/1"


def test_who_is_let_in() -> None:
    """Everybody where neither file nor keys are set; with a file nobody without a key."""
    empty = Settings(mail_default_sender=SENDER)
    anyone = there(read_by(InForce(empty)).anyone)
    assert (anyone.service.id, anyone.key_name) == ("default", "")
    with_keys = Settings(mail_default_sender=SENDER, api_keys=(ApiKey("me", digest("mine")),))
    assert read_by(InForce(with_keys)).anyone is None
    closed = Directory(Reading(Source("", {}, None), closed=True, services=[Service()]))
    assert closed.anyone is None
    assert closed.caller("") is None


def test_a_thousand_services_are_read_and_found() -> None:
    """And a caller is found as fast among them as among two: by a digest."""
    text = "".join(table(name=f"s{number}", key=digest(str(number))) for number in range(1000))
    began = time.process_time()
    reading = told(text)
    took_s = time.process_time() - began
    print(f"{took_s:.2f} s of CPU for a thousand services")  # noqa: T201
    found = Directory(reading)
    assert {found.caller(str(number)) for number in (0, 999)} == {
        reading.keys[digest(n)] for n in ("0", "999")
    }
    assert len(reading.services) == 1001
