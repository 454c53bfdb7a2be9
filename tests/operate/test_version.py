"""The version stands in one place, and everything that tells it tells the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

import requests
import yaml

from app.version import VERSION
from tests.support.metrics import read
from tests.support.servers import ROOT, gunicorn


def test_a_running_service_tells_its_version(tmp_path: Path, environment: dict[str, str]) -> None:
    """To a probe, to Prometheus and in its document; without a key."""
    with gunicorn(tmp_path, environment) as service:
        assert requests.get(f"{service.url}/healthz", timeout=20).json() == {
            "status": "ok",
            "version": VERSION,
        }
        assert requests.get(f"{service.url}/openapi.json", timeout=20).json()["info"]["version"] == VERSION
        metrics = read(requests.get(f"{service.url}/metrics", timeout=20).text)
        assert metrics[f'cedula_build_info{{version="{VERSION}"}}'] == 1


def test_the_command_line_tells_the_version_whatever_the_settings_are() -> None:
    """A service that cannot start is still known by it."""
    told = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "version"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "FLASK_SKIP_DOTENV": "1", "NUMBER_DIGITS": "wrong"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (told.stdout, told.stderr, told.returncode) == (f"{VERSION}\n", "", 0)


def test_a_release_is_in_the_changes_and_is_the_one_that_kubernetes_runs() -> None:
    """Files that no program fills in follow by hand."""
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text("CHANGELOG.md"), re.MULTILINE)
    assert released[0] == VERSION
    for overlay in ("small", "cluster"):
        (image,) = yaml.safe_load(text(f"deploy/kubernetes/overlays/{overlay}/kustomization.yaml"))["images"]
        assert image["newTag"] == VERSION


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
