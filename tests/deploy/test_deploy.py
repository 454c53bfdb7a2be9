"""What is shipped for deployment passes the tools that it is made for, and never starts open."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.support.servers import ROOT, Gunicorn, MailServer, Valkey, gunicorn

BIN = Path(sys.executable).parent
MANIFESTS = ROOT / "deploy/kubernetes"
OVERLAYS = ("small", "cluster")
DOCKERFILE, COMPOSE = (ROOT / "Dockerfile").read_text(), (ROOT / "compose.yaml").read_text()


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
def served(folder: Path, environment: Mapping[str, str], project: Path = ROOT) -> Iterator[Gunicorn]:
    """The service on a Valkey and a mail server of its own."""
    (folder / "valkey").mkdir()
    valkey, mail_server = Valkey(folder / "valkey", save=""), MailServer()
    servers = {"REDIS_URL": valkey.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(mail_server.port)}
    with gunicorn(folder, {**servers, **environment}, project=project) as service:
        yield service
    mail_server.stop()
    valkey.stop()


# The container and compose


def test_hadolint_has_nothing_against_the_dockerfile() -> None:
    """Not even a matter of style."""
    found = run(BIN / "hadolint", "--failure-threshold", "style", "Dockerfile")
    assert found.returncode == 0, found.stdout


def test_the_image_holds_what_the_service_needs(tmp_path: Path) -> None:
    """What the Dockerfile copies, as far as .dockerignore lets it through, serves a request."""
    image = tmp_path / "image"
    image.mkdir()
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for name in line.split():
            assert name in allowed
            (image / name).symlink_to(ROOT / name)
    (image / "dev").symlink_to(ROOT / "dev")  # with which the test starts it
    with served(tmp_path, {}, image) as service:
        assert service.register("ada@example.com").status_code == 201


KEYS = {"SECRET_KEY": "s" * 40, "INDEX_KEY": "i" * 40, "API_KEYS": "me:" + "0" * 64, "MAIL_SERVER": "mail"}
"""What compose does not start without."""

FORKED = 0.5
"""Of a container's memory Redis may fill half: rewriting the append-only file can copy all of it."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of the project as compose sees it, without an `.env`."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    shutil.copy(ROOT / "deploy/new-env", tmp_path / "deploy")
    return tmp_path


def compose(project: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` with these lines in `.env`."""
    if settings:
        (project / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return run(BIN / "docker-compose", "--project-directory", project, "config")


def services(project: Path, **settings: str) -> dict[str, Any]:
    found = compose(project, **settings)
    assert found.returncode == 0, found.stderr
    return dict(yaml.safe_load(found.stdout)["services"])


def test_docker_compose_accepts_its_file(project: Path) -> None:
    """Read-only, without capabilities, bounded in memory and processes, and on this machine only."""
    for name, service in services(project, **KEYS).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert 0 < int(service["mem_limit"]) <= 2**30, name
        assert 0 < service["pids_limit"] <= 256, name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


def test_redis_refuses_writes_long_before_the_kernel_kills_it(project: Path) -> None:
    """Its maxmemory leaves as much again for the fork that rewrites the append-only file."""
    valkey = services(project, **KEYS)["valkey"]
    options = dict(zip(valkey["command"][1::2], valkey["command"][2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    most = int(options["--maxmemory"].removesuffix("mb")) * 2**20
    assert most <= FORKED * int(valkey["mem_limit"])


def test_every_worker_has_its_memory(project: Path, built: str) -> None:
    """A container sees all cores of its machine: the number of workers is said, with 256 MB for each."""
    service = services(project, **KEYS)["cedula"]
    assert int(service["mem_limit"]) >= int(service["environment"]["WEB_CONCURRENCY"]) * 256 * 2**20
    (container,) = resource(built, "Deployment")["spec"]["template"]["spec"]["containers"]
    (workers,) = [int(one["value"]) for one in container["env"] if one["name"] == "WEB_CONCURRENCY"]
    assert int(container["resources"]["limits"]["memory"].removesuffix("Mi")) >= workers * 256


def test_every_setting_in_the_file_reaches_the_service(project: Path) -> None:
    """All of docs/settings.md, also those for which compose has a value of its own."""
    table = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    settings = {name: f"value of {name} <@>" for name in table} | KEYS | {"BIND": "0.0.0.0:8000"}
    assert len(settings) > 25
    found = services(project, **settings)["cedula"]["environment"]
    assert {name: found.get(name) for name in settings} == settings


@pytest.mark.parametrize("missing", KEYS)
def test_compose_does_not_start_without_its_keys(project: Path, missing: str) -> None:
    """Neither open nor in clear: unset or empty, it says what to do."""
    for given in ({}, {missing: ""}):
        found = compose(project, **{name: value for name, value in KEYS.items() if name != missing} | given)
        assert found.returncode != 0
        assert f"{missing} is missing a value: make one with deploy/new-env" in found.stderr


def test_compose_does_not_start_without_the_file(project: Path) -> None:
    """Also where the keys stand in the caller's environment, from which nothing else would come."""
    assert ".env" in compose(project).stderr or "new-env" in compose(project).stderr
    assert compose(project).returncode != 0


def new_env(project: Path) -> subprocess.CompletedProcess[str]:
    made = run(project / "deploy/new-env")
    assert made.returncode == 0, made.stderr
    return made


def test_the_keys_for_compose_are_made_in_one_step(project: Path, tmp_path: Path) -> None:
    """For their owner only; with them compose is content, and the service takes the key that was shown."""
    made = new_env(project)
    file = project / ".env"
    assert file.stat().st_mode & 0o077 == 0
    shown = made.stdout.removeprefix("Your API key: ").strip()
    assert shown not in file.read_text()
    found = services(project)["cedula"]["environment"]
    assert found["SECRET_KEY"] != found["INDEX_KEY"]
    kept = {name: found[name] for name in ("SECRET_KEY", "INDEX_KEY", "API_KEYS")}
    with served(tmp_path, kept) as service:
        assert requests.get(f"{service.url}/metrics", timeout=10).status_code == 401
        headers = {"Authorization": f"Bearer {shown}"}
        assert requests.get(f"{service.url}/metrics", headers=headers, timeout=10).ok


def test_what_an_env_has_already_is_kept(project: Path) -> None:
    """A second run changes nothing, and an edited file keeps every line."""
    new_env(project)
    before = (project / ".env").read_text()
    again = new_env(project)
    assert ((project / ".env").read_text(), again.stdout) == (before, "")
    edited = "# mine\nMAIL_SERVER=smtp.example.com\nSECRET_KEY=" + "s" * 40 + "\nAPI_KEYS=\nNUMBER_TTL=600"
    (project / ".env").write_text(edited)
    assert new_env(project).stdout.startswith("Your API key: ")
    assert (project / ".env").read_text().startswith(edited + "\n")
    found = services(project)["cedula"]["environment"]
    assert (found["MAIL_SERVER"], found["NUMBER_TTL"]) == ("smtp.example.com", "600")
    assert "MAIL_PORT" not in found


def test_two_that_make_it_at_once_make_one(project: Path) -> None:
    """Else each adds keys of its own, and the key that the first has shown opens nothing."""
    slow = project / "od"
    slow.write_text(f'#!/bin/sh\nsleep 0.2\nexec {shutil.which("od")} "$@"\n')
    slow.chmod(0o700)

    def make(_: int) -> str:
        made = run(project / "deploy/new-env", PATH=f"{project}:{os.environ['PATH']}")
        assert made.returncode == 0, made.stderr
        return made.stdout

    with ThreadPoolExecutor() as together:
        shown = list(together.map(make, range(2)))
    names = [line.partition("=")[0] for line in (project / ".env").read_text().splitlines() if "=" in line]
    assert sorted(names) == sorted(set(names))
    assert sum(map(bool, shown)) == 1


def test_the_data_of_an_env_without_an_index_key_is_still_found(project: Path) -> None:
    """Its names were made with SECRET_KEY, so INDEX_KEY becomes the same: the start is not refused."""
    (project / ".env").write_text("SECRET_KEY=" + "s" * 40 + "\nAPI_KEYS=me:" + "0" * 64 + "\n")
    new_env(project)
    found = services(project)["cedula"]["environment"]
    assert found["INDEX_KEY"] == found["SECRET_KEY"] == "s" * 40


def test_what_is_built_on_is_named_by_version_and_digest() -> None:
    """A tag moves; a digest does not. Both stages of the image have the same base."""
    named = re.findall(r"^FROM (\S+)|^ +image: (\S+:\S+)", DOCKERFILE + COMPOSE, re.MULTILINE)
    images = {one or other for one, other in named} - {"base"}
    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+[a-z-]*@sha256:[0-9a-f]{64}", image), image


# Kubernetes


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The manifests, with the examples of the secrets as they are."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(MANIFESTS, folder, ignore=shutil.ignore_patterns("secrets.env"))
    for overlay in OVERLAYS:
        shutil.copy(secrets(folder, overlay, ".example"), secrets(folder, overlay))
    return folder


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def built(manifests: Path, overlay: str) -> str:
    """What kustomize makes of an overlay."""
    return build(manifests, overlay)


def build(manifests: Path, overlay: str) -> str:
    found = run(BIN / "kubectl", "kustomize", manifests / "overlays" / overlay)
    assert found.returncode == 0, found.stderr
    return found.stdout


def secrets(manifests: Path, overlay: str, suffix: str = "") -> Path:
    return manifests / f"overlays/{overlay}/secrets.env{suffix}"


def test_kubernetes_accepts_the_manifests(built: str, overlay: str, tmp_path: Path) -> None:
    """Every one, against the strict schema, in the newest version and in the oldest that is supported."""
    path = tmp_path / "built.yaml"
    path.write_text(built)
    for version in ("1.37", "1.31"):
        found = run(BIN / "kubernetes-validate", "--strict", "-k", version, path)
        assert found.returncode == 0, found.stdout + found.stderr
        assert (found.stdout + found.stderr).count("passed for resource") == {"small": 5, "cluster": 6}[
            overlay
        ]


def test_the_manifests_do_not_build_without_secrets(manifests: Path, overlay: str) -> None:
    """There is no default for them."""
    secrets(manifests, overlay).unlink()
    assert "secrets.env" in run(BIN / "kubectl", "kustomize", manifests / "overlays" / overlay).stderr


def test_the_small_one_is_a_pod_with_one_worker(manifests: Path) -> None:
    """No budget that would keep its node from being emptied."""
    built = build(manifests, "small")
    deployment = resource(built, "Deployment")["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    assert deployment["replicas"] == 1
    assert {"name": "WEB_CONCURRENCY", "value": "1"} in container["env"]
    assert "PodDisruptionBudget" not in built


def test_the_cluster_outlives_a_pod_a_node_and_a_master(manifests: Path) -> None:
    """Three pods, apart, one of which may go; a Redis Cluster, where what is acknowledged has a replica."""
    built = build(manifests, "cluster")
    deployment = resource(built, "Deployment")["spec"]
    assert deployment["replicas"] == 3
    apart = [each["topologyKey"] for each in deployment["template"]["spec"]["topologySpreadConstraints"]]
    assert apart == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert resource(built, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert resource(built, "ConfigMap")["data"]["REDIS_WAIT_REPLICAS"] == "1"
    example = secrets(MANIFESTS, "cluster", ".example").read_text()
    assert "REDIS_URL=redis+cluster://" in example


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


def test_the_pods_go_only_where_their_selectors_look(built: str, overlay: str) -> None:
    """Service, budget, spread and network policy mean the pods of the deployment."""
    labels = resource(built, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert resource(built, "Service")["spec"]["selector"] == labels
    assert resource(built, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    if overlay == "cluster":
        pod = resource(built, "Deployment")["spec"]["template"]["spec"]
        looking = [*pod["topologySpreadConstraints"], resource(built, "PodDisruptionBudget")["spec"]]
        selectors = [each.get("labelSelector", each.get("selector")) for each in looking]
        assert [selector["matchLabels"] for selector in selectors] == [labels] * 3


def test_the_service_refuses_secrets_that_nobody_filled_in(built: str, overlay: str, tmp_path: Path) -> None:
    """The example as it is, or emptied: the start fails with a word on both keys, and the API is not open."""
    (container,) = resource(built, "Deployment")["spec"]["template"]["spec"]["containers"]
    names = [entry["name"] for entry in container["env"] if entry["name"].endswith("_FILE")]
    examples = dict(
        line.split("=", 1) for line in secrets(MANIFESTS, overlay, ".example").read_text().splitlines()
    )
    assert {name.removesuffix("_FILE") for name in names} == set(examples)
    for kept in (True, False):
        environment: dict[str, str] = {}
        for name, value in examples.items():
            (tmp_path / name).write_text(value if kept else "")
            environment[f"{name}_FILE"] = str(tmp_path / name)
        found = run(sys.executable, "-c", "import wsgi", **environment)
        assert found.returncode != 0
        assert "API_KEYS:" in found.stderr
        assert "SECRET_KEY:" in found.stderr
        assert "INDEX_KEY:" in found.stderr


def test_the_service_takes_secrets_that_are_filled_in(built: str, tmp_path: Path) -> None:
    """As files; that there is no fallback key says an empty one."""
    (container,) = resource(built, "Deployment")["spec"]["template"]["spec"]["containers"]
    filled = KEYS | {"SECRET_KEY_FALLBACKS": "", "MAIL_USERNAME": "cedula", "MAIL_PASSWORD": "secret"}
    environment: dict[str, str] = {}
    for name in (entry["name"] for entry in container["env"] if entry["name"].endswith("_FILE")):
        secret = name.removesuffix("_FILE")
        if secret != "REDIS_URL":  # a server of the test's own
            (tmp_path / secret).write_text(filled[secret])
            environment[name] = str(tmp_path / secret)
    with served(tmp_path, environment) as service:
        assert requests.get(f"{service.url}/readyz", timeout=10).ok


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
