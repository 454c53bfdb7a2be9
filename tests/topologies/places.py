"""Where the registrations can lie: one server or several, with TLS and a login; all look alike to tests."""

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from tests.support.authority import Authority
from tests.support.scan import Client
from tests.support.servers import ROOT, Valkey, free_port
from tests.support.topologies import Cluster, SentinelPair, has_replica
from tests.support.waiting import wait_until

USER, PASSWORD = "cedula", "pass:w0rd/?#@"
"""With what a URL has to percent-encode."""

LOGIN = "cedula:pass%3Aw0rd%2F%3F%23%40@"


@dataclass
class Place:
    """`url`: what the service is told. `client`: sees every key. `servers`: one client for each server."""

    url: str
    client: Client
    servers: Callable[[], list[redis.Redis]]
    environment: dict[str, str] = field(default_factory=dict)

    def flush(self) -> None:
        for server in self.servers():
            with contextlib.suppress(redis.ReadOnlyError):
                server.flushall()

    def forget_scripts(self) -> None:
        for server in self.servers():
            server.script_flush("SYNC")


def documented_user(where: str) -> list[str]:
    """The words of the ACL command in docs/redis-keys.md, with our password. `where`: its first comment."""
    page = (ROOT / "docs/redis-keys.md").read_text(encoding="utf-8")
    found = re.search(
        rf'^# {re.escape(where)}\nredis-cli -p "\$PORT" (acl setuser .*?[^\\])\n',
        page,
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, where
    return shlex.split(found[1].replace("PASSWORD", PASSWORD).replace("\\\n", ""))


def with_login(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{LOGIN}{rest}"


def one(server: "Valkey | RedisServer") -> Place:
    client = server.client()
    client.execute_command(*documented_user("one server, or sentinels"))
    return Place(with_login(server.url), client, lambda: [client])


def sentinels(pair: SentinelPair) -> Place:
    def servers() -> list[redis.Redis]:
        return [node.client() for node in (pair.master, pair.replica) if node.alive]

    for server in servers():
        server.execute_command(*documented_user("one server, or sentinels"))
    return Place(with_login(pair.url), pair.client(), servers)


def clustered(cluster: Cluster) -> Place:
    def servers() -> list[redis.Redis]:
        return [node.client() for node in cluster.alive()]

    for server in servers():
        server.execute_command(*documented_user("every node of a cluster"))
    return Place(with_login(cluster.url), cluster.client(), servers)


class RedisServer:
    """Debian's redis-server, which unlike the Valkey of the wheel speaks TLS."""

    def __init__(self, folder: Path, authority: Authority | None = None, name: str = "127.0.0.1") -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self._authority = authority
        plain, tls = (0, self.port) if authority else (self.port, 0)
        settings = [
            "--bind",
            "127.0.0.1",
            "--port",
            plain,
            "--dir",
            folder,
            "--save",
            "",
            "--appendonly",
            "yes",
        ]
        if authority:
            authority.server(name)
            certificate = max(folder.parent.glob("[0-9]*.pem"), key=os.path.getmtime)
            settings += ["--tls-port", tls, "--tls-cert-file", certificate, "--tls-key-file", certificate]
            settings += ["--tls-ca-cert-file", authority.ca_file, "--tls-auth-clients", "no"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["redis-server", *map(str, settings)], stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until(self._answers, 30, "redis-server answers")
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        if self._authority is None:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self._authority.ca_file}"

    def client(self) -> redis.Redis:
        options: dict[str, Any] = {"ssl": True, "ssl_cert_reqs": "none"} if self._authority else {}
        return redis.Redis(port=self.port, **options)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False


def is_master(node: Valkey) -> bool:
    with contextlib.suppress(redis.ConnectionError), node.client() as client:
        return bool(client.info("replication")["role"] == "master")
    return False


def masters(cluster: Cluster) -> list[Valkey]:
    """Whoever is one now."""
    return [node for node in cluster.alive() if is_master(node)]


def whole(cluster: Cluster) -> bool:
    """Three masters with a replica that has all of it, and every node knows."""
    found = masters(cluster)
    if len(found) != len(cluster.nodes) // 2 or not all(has_replica(master) for master in found):
        return False
    return all(
        node.client().execute_command("CLUSTER INFO")["cluster_state"] == "ok" for node in cluster.nodes
    )
