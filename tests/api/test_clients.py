"""Clients that generators make from /openapi.json: they register, verify and read a problem by its type."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.conftest import SHOP, Api, wrong
from tests.support import npm
from tests.support.servers import INHERITED, ROOT

EXAMPLES = ROOT / "examples/clients"
BIN = Path(sys.executable).parent


@contextmanager
def playing(*command: str | Path, folder: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """The story of an example, which talks over pipes."""
    known = {name: os.environ[name] for name in INHERITED if name in os.environ}
    told = subprocess.Popen(
        command,
        cwd=folder,
        env=known | {"CEDULA_KEY": SHOP, "PYTHONUNBUFFERED": "1"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield told
    finally:
        told.kill()
        told.wait()


def plays_the_story(told: "subprocess.Popen[str]", keyed: Api, email: str) -> str:
    """Types a mistyped number, a wrong one and the right one; returns what was said."""
    number = keyed.number_of(email)
    said, _ = told.communicate("".join(f"{typed}\n" for typed in (number[:-1], wrong(number), number)), 60)
    assert told.returncode == 0, said
    return said


def check(said: str) -> None:
    """Every answer was understood by its type."""
    first, *rest = said.replace("The number in the mail: ", "").splitlines()
    assert first.startswith("sent, until 20")
    assert rest == ["Mistyped; it cost no try", "Wrong; tries left: 4", "Confirmed: order 4711"]


def test_a_python_client_is_generated_and_tells_the_story(tmp_path: Path, keyed: Api, email: str) -> None:
    """openapi-python-client has no warning about the document; problems have names."""
    generated = subprocess.run(
        [
            BIN / "openapi-python-client", "generate", "--url", f"{keyed.url}/openapi.json", "--meta", "none",
            "--config", EXAMPLES / "python/config.yaml", "--output-path", tmp_path / "cedulaclient",
            "--fail-on-warning",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert generated.returncode == 0, generated.stdout + generated.stderr
    shutil.copy(EXAMPLES / "python/story.py", tmp_path)
    with playing(sys.executable, "story.py", keyed.url, email, folder=tmp_path) as told:
        check(plays_the_story(told, keyed, email))


@pytest.fixture(scope="module")
def node_modules() -> Path:
    return npm.node_modules(EXAMPLES / "typescript")


@pytest.mark.system
def test_a_typescript_client_is_generated_compiled_and_tells_the_story(
    tmp_path: Path, node_modules: Path, keyed: Api, email: str
) -> None:
    """openapi-typescript makes the types; TypeScript, at its strictest, finds nothing wrong in their use."""
    folder = shutil.copytree(EXAMPLES / "typescript", tmp_path / "story")
    (folder / "node_modules").symlink_to(node_modules)
    made = script(folder, "types", CEDULA_URL=keyed.url)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "warning" not in (made.stdout + made.stderr).lower()
    compiled = script(folder, "build")
    assert compiled.returncode == 0, compiled.stdout
    with playing("node", "story.js", keyed.url, email, folder=folder) as told:
        check(plays_the_story(told, keyed, email))


@pytest.mark.system
def test_typescript_finds_mistakes_in_the_use_of_the_client(
    tmp_path: Path, node_modules: Path, keyed: Api
) -> None:
    """So the types say something: of problems, requests and answers."""
    mistakes = {
        "/problems/mistyped-number": "/problems/mistaken-number",
        'token: "order 4711"': "tokem: 4711",
        "data.token": "data.number",
    }
    folder = shutil.copytree(EXAMPLES / "typescript", tmp_path / "story")
    (folder / "node_modules").symlink_to(node_modules)
    assert script(folder, "types", CEDULA_URL=keyed.url).returncode == 0
    story = (folder / "story.ts").read_text()
    for right, mistake in mistakes.items():
        assert right in story
        story = story.replace(right, mistake)
    (folder / "story.ts").write_text(story)
    found = script(folder, "build").stdout
    assert [mistake in found for mistake in ("mistaken-number", "tokem", "'number'")] == [True] * 3, found


def script(folder: Path, name: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a script of package.json."""
    return subprocess.run(
        ["npm", "run", "--silent", name],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_no_registry_stands_in_the_lock() -> None:
    """Whoever installs takes npm's own, or a mirror of theirs."""
    assert '"resolved"' not in (EXAMPLES / "typescript/package-lock.json").read_text()
