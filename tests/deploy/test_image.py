"""`make image`: an image that says what it was built of, and a list of what is in it."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.version import VERSION
from tests.support.servers import ROOT

pytestmark = pytest.mark.slow
"""Each reads all of the locks."""

BIN = Path(sys.executable).parent
NEEDED = ("Dockerfile", "requirements.txt", "requirements-otel.txt", "app/version.py", "deploy/build-image")
PIN = re.compile(r"^([a-z0-9.-]+)==(\S+)", re.MULTILINE)
ENGINE = '#!/bin/sh\nprintf "%s\\n" "$@" >"$ASKED"\n'
"""Stands in for docker: writes down what it was told."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the image is built of, committed, and an engine under the name of docker."""
    folder = tmp_path / "project"
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("dist/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "-m", "All")
    (tmp_path / "docker").write_text(ENGINE)
    (tmp_path / "docker").chmod(0o755)
    return folder


def git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def build(project: Path, *options: str) -> list[str]:
    """What the engine was told."""
    asked = project.parent / "asked"
    done = subprocess.run(
        [project / "deploy/build-image", *options],
        env={"PATH": f"{project.parent}:{BIN}:{os.environ['PATH']}", "ASKED": str(asked)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return asked.read_text().splitlines()


def after(option: str, told: list[str]) -> list[str]:
    """The values of an option that may come several times."""
    return [value for word, value in pairwise(told) if word == option]


def labels(told: list[str]) -> dict[str, str]:
    """Those that are given, without the prefix that all have in common."""
    pairs = (each.removeprefix("org.opencontainers.image.").partition("=") for each in after("--label", told))
    return {name: value for name, _, value in pairs}


def sbom(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / f"dist/cedula-{VERSION}.cdx.json").read_text())
    return found


def test_the_image_is_named_and_labelled_by_what_it_was_built_of(project: Path) -> None:
    """Version, commit and hour reach the labels; further options reach the engine."""
    told = build(project, "--pull")
    assert told[0] == "build"
    assert told[-2:] == ["--pull", "."]
    assert after("--tag", told) == [f"cedula:{VERSION}", "cedula"]
    given = labels(told)
    assert set(given) == {"version", "revision", "created"}
    assert given["version"] == VERSION
    assert given["revision"] == git(project, "rev-parse", "HEAD")
    created = datetime.fromisoformat(given["created"])
    assert timedelta(0) <= datetime.now(UTC) - created < timedelta(minutes=2)


def test_what_is_not_committed_shows_in_the_label(project: Path) -> None:
    """Nobody takes such an image for the commit's."""
    (project / "Dockerfile").write_text("FROM scratch\n")
    assert labels(build(project))["revision"] == git(project, "rev-parse", "HEAD") + "-dirty"


@pytest.mark.parametrize(
    ("options", "lock"), [([], "requirements.txt"), (["--traces"], "requirements-otel.txt")]
)
def test_the_list_of_what_is_in_it_has_every_package_of_the_lock(
    project: Path, options: list[str], lock: str
) -> None:
    """Of that which is installed; by name and version, with hashes. And it is about this release."""
    assert after("--build-arg", build(project, *options)) == [f"LOCK={lock}"]
    found = sbom(project)
    about = found["metadata"]["component"]
    assert (about["name"], about["version"]) == ("cedula", VERSION)
    assert about["licenses"][0]["license"]["id"] == "Apache-2.0"
    listed = {(one["name"], one["version"]) for one in found["components"]}
    assert listed == set(PIN.findall((ROOT / lock).read_text()))
    assert all(reference["hashes"] for one in found["components"] for reference in one["externalReferences"])


def test_the_same_commit_gives_the_same_list(project: Path) -> None:
    """So that two of them can be compared."""
    build(project)
    first = sbom(project)
    build(project)
    assert sbom(project) == first
