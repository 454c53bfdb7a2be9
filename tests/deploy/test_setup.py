"""Set-up keeps working whatever is released: a lock is installed, never resolved."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.servers import ROOT

LOCKS = sorted(path.name for path in ROOT.glob("requirements*.txt"))
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(\[[^\]]+\])?==([^\s;\\]+)( ;[^\\]*)?", re.MULTILINE)
NEWER = "99.0"
OLDEST_PIP = "23.0.1"
"""What Debian 12 brings."""

INSTALLS = re.compile(r"pip install(?! standardwebhooks| -r examples/)[^\n]*|INSTALL = [^\n]*")
"""But for what a reader of a page installs for a program of their own, which is no lock."""

CONTAINER_PYTHON = re.search(r"^FROM python:(\d+\.\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


@dataclass(frozen=True)
class Pin:
    """One line of a lock."""

    name: str
    version: str
    marker: str

    @property
    def asks_for(self) -> list[str]:
        """What the real package depends on; nothing where it is not installed here."""
        try:
            return metadata.requires(self.name) or []
        except metadata.PackageNotFoundError:
            return []


def pins(lock: str) -> list[Pin]:
    text = (ROOT / lock).read_text()
    return [Pin(found[1], found[3], (found[4] or "").strip()) for found in PINNED.finditer(text)]


def wheel(folder: Path, name: str, version: str, requires: list[str]) -> str:
    """Writes an empty package into an index, which is a folder; returns its SHA-256 in hexadecimal."""
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    extras = sorted({extra for text in requires for extra in re.findall(r"extra == ['\"]([\w-]+)", text)})
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    head += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {text}" for text in requires]
    files = {
        f"{stem}.dist-info/METADATA": "\n".join(head) + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        record = []
        for file, text in files.items():
            archive.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{file},sha256={digest},{len(text)}")
        archive.writestr(f"{stem}.dist-info/RECORD", "\n".join([*record, f"{stem}.dist-info/RECORD,,", ""]))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def asked_with_extras(packages: list[Pin]) -> set[str]:
    """What some package of the lock asks for with an extra: here pip 23's resolver stumbles."""
    asked = (Requirement(text) for pin in packages for text in pin.asks_for)
    return {canonicalize_name(requirement.name) for requirement in asked if requirement.extras}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Makefile and the locks, of packages that hold nothing, in an index that holds newer ones too."""
    folder = tmp_path_factory.mktemp("project")
    index = folder / "index"
    index.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    digests: dict[tuple[str, str], str] = {}
    for lock in LOCKS:
        packages, lines = pins(lock), []
        assert len(packages) > 20
        for pin in packages:
            if (pin.name, pin.version) not in digests:
                digests[pin.name, pin.version] = wheel(index, pin.name, pin.version, pin.asks_for)
                wheel(index, pin.name, NEWER, pin.asks_for)
            lines.append(
                f"{pin.name}=={pin.version} {pin.marker} --hash=sha256:{digests[pin.name, pin.version]}"
            )
        (folder / lock).write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module", params=[OLDEST_PIP, pytest.param("newest", marks=pytest.mark.slow)])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python with nothing but this pip."""
    folder = tmp_path_factory.mktemp("python")
    exact = "" if request.param == "newest" else f"=={request.param}"
    subprocess.run(
        [
            sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-config",
            "--target", folder / "site", f"pip{exact}",
        ],
        check=True,
        timeout=100,
    )  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    site = next((folder / ".venv/lib").glob("python*/site-packages"))
    for item in (folder / "site").iterdir():
        shutil.move(item, site)
    yield folder / ".venv"
    shutil.rmtree(folder)


def offline(project: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(project / "index"),
        "PIP_CONFIG_FILE": os.devnull,
    }


def make(project: Path, python: Path, target: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", f"VENV={python}", f"PYTHON={sys.executable}", f"{python}/{target}"],
        cwd=project,
        env=offline(project),
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def prepared(python: Path) -> Path:
    """The virtual environment in which make finds a pip, and nothing installed yet."""
    pip = python / "bin/pip"
    if not pip.exists():
        pip.symlink_to("python")
    for mark in (".runnable", ".installed"):
        (python / mark).unlink(missing_ok=True)
    return python


def test_the_locks_hold_what_an_older_pip_stumbles_over(project: Path) -> None:
    """Otherwise what follows shows nothing."""
    for lock in LOCKS:
        names = {canonicalize_name(pin.name) for pin in pins(lock)}
        assert asked_with_extras(pins(lock)) & names, lock


@pytest.mark.slow
@pytest.mark.parametrize("target", [".runnable", ".installed"])
def test_make_installs_beside_newer_releases(project: Path, prepared: Path, target: str) -> None:
    """`make run` and `make test` take what is locked, though everything has a newer release."""
    made = make(project, prepared, target)
    assert made.returncode == 0, made.stdout + made.stderr
    listed = subprocess.run(
        [prepared / "bin/python", "-m", "pip", "list", "--format=freeze"],
        env=offline(project),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.lower()
    assert f"=={NEWER}" not in listed
    assert "flask-smorest==" in listed


def test_a_package_that_an_installation_was_stopped_in_is_installed_anew(
    project: Path, prepared: Path
) -> None:
    """After Ctrl-C pip takes it for installed, though its commands, such as `flask`, are missing."""
    assert make(project, prepared, ".runnable").returncode == 0
    (folder,) = (prepared / "lib").glob("python*/site-packages/flask-[0-9]*.dist-info")
    (prepared / ".runnable").unlink()
    (folder / "INSTALLER").unlink()  # which pip writes when the rest is there
    made = make(project, prepared, ".runnable")
    assert made.returncode == 0, made.stdout + made.stderr
    assert (folder / "INSTALLER").exists()


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-otel.txt", "requirements-bench.txt"])
def test_the_other_locks_install_beside_newer_releases(project: Path, python: Path, lock: str) -> None:
    """Those that make does not install for these two, with the options that README and Dockerfile give."""
    command: list[str | Path] = [
        python / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "-r",
        lock,
    ]
    installed = subprocess.run(
        command, cwd=project, env=offline(project), capture_output=True, text=True, timeout=100
    )
    assert installed.returncode == 0, installed.stderr


def test_a_lock_is_never_resolved() -> None:
    """Every command of the repository that installs a lock says --no-deps and --require-hashes."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    files = [
        ROOT / name for name in tracked if name.endswith((".md", "Makefile", "Dockerfile", ".yaml", "run"))
    ]
    commands = [
        (file.name, found[0])
        for file in files
        for found in INSTALLS.finditer(file.read_text().replace("\\\n", " "))
    ]
    assert {"Makefile", "Dockerfile", "README.md", "README.es.md"} <= {name for name, _ in commands}
    for name, command in commands:
        assert "--no-deps" in command, f"{name}: {command}"
        assert "--require-hashes" in command, f"{name}: {command}"


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-otel.txt"])
@pytest.mark.parametrize("version", ["3.11", CONTAINER_PYTHON[1] if CONTAINER_PYTHON else ""])
def test_every_locked_package_has_a_wheel_for_the_supported_pythons(
    tmp_path: Path, version: str, lock: str
) -> None:
    """The oldest Python and the container's: nothing has to be compiled. Asks the registry."""
    asked = subprocess.run(
        [
            sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-deps", "--require-hashes",
            "--only-binary", ":all:", "--python-version", version,
            "--python-platform", "x86_64-manylinux_2_28", "--target", tmp_path, "-r", lock,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
