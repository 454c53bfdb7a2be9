"""What is shipped for deployment passes the tools that it is made for, and never starts open."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.support.servers import ROOT, Gunicorn, MailServer, Valkey, gunicorn

BIN = Path(sys.executable).parent
MANIFESTS = ROOT / "deploy/kubernetes"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One of the tools, with nothing of the caller's environment but the path."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def served(folder: Path, **environment: str) -> Iterator[Gunicorn]:
    """The service on a Valkey and a mail server of its own."""
    (folder / "valkey").mkdir()
    valkey, mail_server = Valkey(folder / "valkey", save=""), MailServer()
    servers = {"REDIS_URL": valkey.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(mail_server.port)}
    with gunicorn(folder, {**servers, **environment}) as service:
        yield service
    mail_server.stop()
    valkey.stop()


# The container and compose


def test_hadolint_has_nothing_against_the_dockerfile() -> None:
    """Not even a matter of style."""
    found = run(BIN / "hadolint", "--failure-threshold", "style", "Dockerfile")
    assert found.returncode == 0, found.stdout


def compose(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(BIN / "docker-compose", "--env-file", "/dev/null", *arguments, "config", **environment)


def test_docker_compose_accepts_its_file() -> None:
    """With the secrets given, every service is complete, read-only and without capabilities."""
    found = compose(SECRET_KEY="s" * 40, API_KEYS="me:" + "0" * 64)
    assert found.returncode == 0, found.stderr
    for name, service in yaml.safe_load(found.stdout)["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


@pytest.mark.parametrize("missing", ["SECRET_KEY", "API_KEYS"])
def test_compose_does_not_start_without_its_secrets(missing: str) -> None:
    """Neither open nor in clear: unset or empty, it says what to do."""
    secrets = {"SECRET_KEY": "s" * 40, "API_KEYS": "me:" + "0" * 64}
    for given in ({}, {missing: ""}):
        found = compose(**{name: value for name, value in secrets.items() if name != missing} | given)
        assert found.returncode != 0
        assert f"{missing} is missing a value: make one with deploy/new-env" in found.stderr


def test_the_secrets_for_compose_are_made_in_one_step(tmp_path: Path) -> None:
    """For their owner only, never twice; with them compose is content and the service takes the shown key."""
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(ROOT / "deploy/new-env", tmp_path / "deploy/new-env")
    made = run(script)
    assert made.returncode == 0, made.stderr
    secrets = tmp_path / ".env"
    assert secrets.stat().st_mode & 0o077 == 0
    shown = made.stdout.removeprefix("Your API key: ").strip()
    assert shown not in secrets.read_text()
    found = run(BIN / "docker-compose", "--env-file", secrets, "config")
    settings = yaml.safe_load(found.stdout)["services"]["cedula"]["environment"]
    with served(tmp_path, SECRET_KEY=settings["SECRET_KEY"], API_KEYS=settings["API_KEYS"]) as service:
        assert requests.get(f"{service.url}/metrics", timeout=10).status_code == 401
        headers = {"Authorization": f"Bearer {shown}"}
        assert requests.get(f"{service.url}/metrics", headers=headers, timeout=10).ok
    assert run(script).returncode == 1


# Kubernetes


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The manifests, with the example of the secrets as it is."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(MANIFESTS, folder, ignore=shutil.ignore_patterns("secrets.env"))
    shutil.copy(folder / "secrets.env.example", folder / "secrets.env")
    return folder


@pytest.fixture
def built(manifests: Path) -> str:
    """What kustomize makes of them."""
    found = run(BIN / "kubectl", "kustomize", manifests)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_kubernetes_accepts_the_manifests(built: str, tmp_path: Path) -> None:
    """Every one, against the strict schema, in the newest version and in the oldest that is supported."""
    path = tmp_path / "built.yaml"
    path.write_text(built)
    for version in ("1.37", "1.31"):
        found = run(BIN / "kubernetes-validate", "--strict", "-k", version, path)
        assert found.returncode == 0, found.stdout + found.stderr
        assert (found.stdout + found.stderr).count("passed for resource") == 6


def test_the_manifests_do_not_build_without_secrets(manifests: Path) -> None:
    """There is no default for them."""
    (manifests / "secrets.env").unlink()
    assert "secrets.env" in run(BIN / "kubectl", "kustomize", manifests).stderr


def test_the_pod_may_do_nothing_that_it_need_not(built: str) -> None:
    """No root, no capability, no write, no privilege, no token; bounded; three probes."""
    pod = resource(built, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    probes = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_the_pods_go_only_where_their_selectors_look(built: str) -> None:
    """Service, budget and network policy mean the pods of the deployment."""
    labels = resource(built, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert resource(built, "Service")["spec"]["selector"] == labels
    assert resource(built, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert resource(built, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels


def test_the_service_refuses_secrets_that_nobody_filled_in(built: str, tmp_path: Path) -> None:
    """The example as it is, or emptied: the start fails with a word on both keys, and the API is not open."""
    (container,) = resource(built, "Deployment")["spec"]["template"]["spec"]["containers"]
    names = [entry["name"] for entry in container["env"] if entry["name"].endswith("_FILE")]
    examples = dict(
        line.split("=", 1) for line in (MANIFESTS / "secrets.env.example").read_text().splitlines()
    )
    assert {name.removesuffix("_FILE") for name in names} == set(examples)
    for kept in (True, False):
        environment = {}
        for name, value in examples.items():
            (tmp_path / name).write_text(value if kept else "")
            environment[f"{name}_FILE"] = str(tmp_path / name)
        found = run(sys.executable, "-c", "import wsgi", **environment)
        assert found.returncode != 0
        assert "API_KEYS:" in found.stderr
        assert "SECRET_KEY:" in found.stderr


def resource(built: str, kind: str) -> dict[str, Any]:
    (found,) = [one for one in yaml.safe_load_all(built) if one["kind"] == kind]
    return dict(found)


# What is looked at


def test_the_dashboard_is_json_that_grafana_can_import() -> None:
    """Every panel has an id and a place of its own, and asks the data source that the viewer chose."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
