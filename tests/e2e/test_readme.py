"""The commands of the README's chapter on the API do what is printed there; ids and numbers are their own."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.dev_run import Run, running
from tests.support.servers import NUMBER, ROOT
from tests.support.waiting import wait_until

README = (ROOT / "README.md").read_text(encoding="utf-8")
OF_A_TEST_SERVICE = "$KEY"
"""Such a command needs what the chapter on services makes, and is run in its test."""


class Printed(NamedTuple):
    """A command of the page, and what it prints there."""

    command: str
    output: str


def printed() -> Iterator[Printed]:
    """All of the chapter but those that set an example's id or number."""
    (chapter,) = re.findall(r"^## The API.*?(?=^### )", README, re.MULTILINE | re.DOTALL)
    for block in re.findall(r"^```console\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.findall(r"\A(?:.*\\\n)*.*\n", part)[0]
            output = part.removeprefix(command)
            if not re.match(r"(ID|NUMBER)=", command) and OF_A_TEST_SERVICE not in command:
                yield Printed(command, output)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with running(tmp_path / "instance", tmp_path / "log") as started:
        yield started


def shape(output: str) -> Any:
    """What stays of an answer: its status, the names of its headers, and its body but for what changes."""
    head, _, body = output.rpartition("\n\n") if output.startswith("HTTP") else ("", "", output)
    lines = [line.strip() for line in (head or output).splitlines() if line.strip()]
    status = lines[0] if output.startswith("HTTP") else ""
    try:
        content = json.loads(body)
    except ValueError:
        return status, re.sub(r"\d", "", body) if not status else ""
    own = {"id", "created_at", "expires_at", "mailed_at", "version"}
    return status, {name: "" if name in own else value for name, value in content.items()}


def test_every_command_of_the_chapter_prints_what_it_says(run: Run) -> None:
    """One after the other, by somebody who sets ID and NUMBER as the page says."""
    commands = list(printed())
    assert len(commands) > 9
    known = {"ID": "", "NUMBER": ""}
    for command, output in commands:
        if "$NUMBER" in command:
            wait_until(run.mails)
            known["NUMBER"] = number_in(run)
        answer = subprocess.run(
            ["bash", "-c", command.replace(":8000", f":{run.ports['PORT']}").replace("curl ", "curl -s ")],
            env={"PATH": "/usr/bin:/bin", **known},
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout.replace("\r", "")
        assert shape(answer) == shape(output), command
        registered = re.search(r"Location: /api/users/(\w+)", answer)
        known["ID"] = registered[1] if registered else known["ID"]


def number_in(run: Run) -> str:
    """That of the newest mail."""
    found = NUMBER.search(run.mails()[0]["text"])
    assert found is not None
    return found[1]
