"""`doctor` says why Redis refuses, in the words of whoever has to mend it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from app.cli.doctor import store
from app.cli.doctor.findings import Finding, Level
from app.config import Settings
from tests.support.faults.redis import REFUSALS
from tests.support.servers import Valkey

SAID = {
    "OOM": ("memory is full up to maxmemory", "Raise maxmemory"),
    "MISCONF": ("cannot write to its disk", "the disk is full"),
    "READONLY": ("this is a replica", "redis+sentinel://"),
    "NOREPLICAS": ("fewer replicas are connected", "min-replicas-to-write"),
}
"""What is wrong and what to do, by the code word of Redis."""


def problems(url: str) -> list[Finding]:
    found = store.examine(Settings(redis_url=url, redis_timeout_s=1.0))
    return [finding for finding in found if finding.level is Level.PROBLEM]


@pytest.mark.parametrize("word", REFUSALS)
def test_each_refusal_has_a_cure(valkey: Valkey, word: str) -> None:
    """A full disk above all: PING itself is refused then, so it looked like a Redis that cannot be used."""
    says, cure = SAID[word]
    with closing(valkey.client()) as client:
        client.set("a", "b")
        with REFUSALS[word](valkey, client):
            found = problems(valkey.url)
    assert any(says in one.says and cure in one.cure for one in found), found


def test_a_database_that_does_not_exist_is_named(valkey: Valkey) -> None:
    """Redis has sixteen, and the URL says which."""
    (found,) = problems(valkey.url.replace("/0", "/99"))
    assert "no such database" in found.says
    assert "/0" in found.cure


@contextmanager
def answering(line: bytes) -> Iterator[int]:
    """A server that has one answer to everything, and its port."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while commands := connection.recv(65536).count(b"*"):
                connection.sendall(line * commands)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_redis_that_still_reads_its_data_is_waited_for() -> None:
    """LOADING: nothing is wrong, it takes a while."""
    with answering(b"-LOADING Redis is loading the dataset in memory\r\n") as port:
        (found,) = problems(f"redis://127.0.0.1:{port}/0")
    assert "still loading its data" in found.says
    assert "Wait" in found.cure
