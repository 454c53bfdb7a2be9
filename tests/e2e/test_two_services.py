"""Two services in three minutes, with the commands of the README as they are printed there."""

import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dev_run import Run
from tests.support.servers import NUMBER, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
START = "make run SERVICES_FILE=instance/services.toml\n"


def chapter() -> list[str]:
    """The blocks of commands of the chapter: what the operator types, and what a caller does."""
    (found,) = re.findall(r"^## Two services.*?(?=^## )", README, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```sh\n(.*?)^```", found, re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who copies commands from the page; their files are in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def types(self, commands: str) -> str:
        """What the commands print."""
        mine = commands.replace("instance", str(self.folder))
        mine = mine.replace(".venv/bin/flask", f"{sys.executable} -m flask")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", mine], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "files")


@pytest.fixture
def run(reader: Reader, tmp_path: Path) -> Iterator[Run]:
    """`make run` with the file that the commands of the first block have made."""
    made, _ = chapter()
    before, started, after = made.partition(START)
    assert (bool(started), after) == (True, "")
    assert "trial" in reader.types(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in reader.folder.iterdir()} == {0o600}
    file = str(reader.folder / "services.toml")
    run = Run(tmp_path / "instance", tmp_path / "log", SERVICES_FILE=file)
    run.wait_until_ready()
    yield run
    run.clean_up()


def test_two_services_and_one_to_test_with_work_as_they_are_printed(reader: Reader, run: Run) -> None:
    """Two mails in two names; the third is shown and not sent."""
    _, used = chapter()
    answers = reader.types(used.replace(":8000", f":{run.ports['PORT']}")).splitlines()
    shop, club, shown = (json.loads(line) for line in answers if line)
    assert len({shop["id"], club["id"]}) == 2
    mails = run.mails()
    assert sorted(mail["language"] for mail in mails) == ["en", "es"]
    assert ["Club Náutico" in mail["subject"] for mail in mails] == [True, False]
    assert NUMBER.search(shown["text"])
    assert shown["subject"].startswith("Confirm your email address for Acme Shop")
