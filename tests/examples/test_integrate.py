"""docs/integrate.md: its commands work and its excerpts are what the suite runs."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import Settings
from app.directory.reading import read_disk
from app.errors import PROBLEMS
from tests.support.servers import ROOT

PAGE = (ROOT / "docs/integrate.md").read_text(encoding="utf-8")
PYTHON = (ROOT / "examples/python/signup.py").read_text(encoding="utf-8")
TYPESCRIPT = (ROOT / "examples/typescript/signup.ts").read_text(encoding="utf-8")
START = "make run SERVICES_FILE=instance/signup.toml\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("excerpt", [*blocks("python"), *blocks("html")])
def test_an_excerpt_is_the_example_s(excerpt: str) -> None:
    """Word by word."""
    assert excerpt.strip() in PYTHON


def test_the_commands_make_a_service_with_events_and_the_settings_of_the_page(tmp_path: Path) -> None:
    """As they are printed; only the folder is another one."""
    made, used = blocks("sh")
    before, started, after = made.partition(START)
    assert (bool(started), after) == (True, "")
    exports = "".join(line for line in used.splitlines(keepends=True) if line.startswith("export"))
    commands = (before + exports + "printenv CEDULA_KEY CEDULA_EVENTS_SECRET").replace(
        "instance", str(tmp_path)
    )
    commands = commands.replace(".venv/bin/flask", f"{sys.executable} -m flask")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=ROOT,
        env=os.environ | {"FLASK_SKIP_DOTENV": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    key, secret = done.stdout.split()
    assert key.startswith("cedula_")
    found = read_disk(Settings(services_file=str(tmp_path / "signup.toml")))
    assert found.wrong == []
    (events,) = (service.events for service in found.services if service.id == "signup")
    assert events is not None
    assert (events.url, events.secrets) == ("http://127.0.0.1:5000/hooks/cedula", (secret,))


def test_the_page_and_both_examples_know_the_same_problems() -> None:
    """And each of them exists."""
    told = set(re.findall(r"^\| `([a-z-]+)`", PAGE, re.MULTILINE))
    assert told <= set(PROBLEMS)
    for source in (PYTHON, TYPESCRIPT):
        known = set(re.findall(r'^ +"([a-z-]+)": "', source, re.MULTILINE))
        assert known & set(PROBLEMS) == told
