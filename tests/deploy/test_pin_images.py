"""`deploy/pin-images` asks a registry for the digests of the images, and writes them down."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.servers import ROOT

INDEX = "application/vnd.oci.image.index.v1+json"
TOKEN = "for reading"


class Registry(ThreadingHTTPServer):
    """A registry that gives everybody a token who asks for one, as Docker Hub does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.kind = INDEX
        self.body = b'{"schemaVersion": 2, "manifests": []}'
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.body).hexdigest()


class Answers(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/token":
            assert "service=registry" in query
            assert "pull" in query
            self.answer(200, json.dumps({"token": TOKEN}).encode(), "application/json")
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Bearer realm="{self.server.url}/token",service="registry"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            assert INDEX in self.headers["Accept"]
            self.server.asked.append(path)
            self.answer(200, self.server.body, self.server.kind)

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Says nothing."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("Dockerfile", "compose.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def pin(project: Path, registry: Registry, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            ROOT / "deploy/pin-images",
            "--project",
            project,
            "--registry",
            registry.url,
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_image_gets_the_digest_of_its_tag(project: Path, registry: Registry) -> None:
    """The hash of what the registry sent, for both files; nothing else in them changes."""
    before = [(project / name).read_text() for name in ("Dockerfile", "compose.yaml")]
    done = pin(project, registry)
    assert done.returncode == 0, done.stderr
    text = [(project / name).read_text() for name in ("Dockerfile", "compose.yaml")]
    assert "".join(text).count(registry.digest) == 3
    assert [len(one) for one in text] == [len(one) for one in before]
    assert {path.rsplit("/", 2)[0] for path in registry.asked} == {
        "/v2/library/python",
        "/v2/valkey/valkey",
        "/v2/axllent/mailpit",
    }


def test_another_tag_can_be_named(project: Path, registry: Registry) -> None:
    """A new release of Python: version and digest are written, the other images keep their tags."""
    (project / "Dockerfile").write_text("FROM python:3.13.1-slim AS base\nFROM base\n")
    assert pin(project, registry, "python:3.13.17-slim-bookworm").returncode == 0
    expected = f"FROM python:3.13.17-slim-bookworm@{registry.digest} AS base\nFROM base\n"
    assert (project / "Dockerfile").read_text() == expected


def test_a_check_writes_nothing_and_tells_what_has_moved(project: Path, registry: Registry) -> None:
    """For a job that runs each week."""
    before = (project / "Dockerfile").read_text()
    assert pin(project, registry, "--check").returncode == 1
    assert (project / "Dockerfile").read_text() == before
    assert pin(project, registry).returncode == 0
    assert pin(project, registry, "--check").returncode == 0


def test_an_image_of_one_platform_is_refused(project: Path, registry: Registry) -> None:
    """It could not be pulled on another."""
    registry.kind = "application/vnd.oci.image.manifest.v1+json"
    refused = pin(project, registry)
    assert (refused.returncode, "no index of several platforms" in refused.stderr) == (2, True)


def test_a_registry_that_does_not_answer_is_a_sentence(project: Path, registry: Registry) -> None:
    """Not a traceback, and nothing is written."""
    before = (project / "Dockerfile").read_text()
    registry.shutdown()
    registry.server_close()
    refused = pin(project, registry)
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert (project / "Dockerfile").read_text() == before
