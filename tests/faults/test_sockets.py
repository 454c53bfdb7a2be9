"""Names that hang: who asks is told in time, and others are not held up. Who reads slowly, likewise."""

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.sockets.names import LOOK_UPS, Address, Names
from tests.support.certificates import Certificate
from tests.support.faults.addresses import leading_to
from tests.support.waiting import wait_until


class Resolver:
    """Names that begin with `hangs` hang until they are released, and are unknown then."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        if host.startswith("hangs"):
            self.released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "later")
        return leading_to("127.0.0.1")(host, port)

    def release(self) -> None:
        """Until all look-ups have ended."""
        self.released.set()
        wait_until(lambda: not look_ups())
        self.released.clear()


def look_ups() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "look-up"]


def test_names_that_hang_time_and_again_hold_up_nobody_else() -> None:
    """However many they are: from the second time on they share one place, until they hang no more."""
    resolver = Resolver()
    names = Names(resolver, slow_s=0.05)
    hanging = [f"hangs{number}.example" for number in range(4 * LOOK_UPS)]
    for host in hanging:
        with pytest.raises(TimeoutError):
            names.addresses(host, 443, 0.1)
        resolver.release()
    for host in hanging:
        with pytest.raises(TimeoutError):
            names.addresses(host, 443, 0.01)
    assert len(look_ups()) == 1
    assert names.addresses("well.example", 443, 10)
    resolver.release()
    with pytest.raises(TimeoutError):
        names.addresses("hangs-anew.example", 443, 0.1)
    assert names.addresses("well.example", 443, 10)
    resolver.release()


def test_names_that_hang_every_other_time_hold_up_nobody_else() -> None:
    """One quick look-up in between does not make them quick."""
    resolver = Resolver()
    names = Names(resolver, slow_s=0.01)
    hanging = [f"hangs{number}.example" for number in range(LOOK_UPS)]
    for host in hanging:
        with pytest.raises(TimeoutError):
            names.addresses(host, 443, 0.1)
    resolver.release()
    resolver.released.set()
    for host in hanging:
        with pytest.raises(socket.gaierror):
            names.addresses(host, 443, 10)
    resolver.released.clear()
    for host in hanging:
        with pytest.raises(TimeoutError):
            names.addresses(host, 443, 0.01)
    assert names.addresses("well.example", 443, 10)
    resolver.release()


def test_a_name_that_is_known_to_be_quick_comes_before_those_that_may_hang() -> None:
    """However many they are: it waits for one place, and not for all who were there before."""
    resolver = Resolver()
    names = Names(resolver)
    assert names.addresses("well.example", 443, 10)
    for host in [*(f"hangs{number}.example" for number in range(4 * LOOK_UPS)), "well.example"]:
        with pytest.raises(TimeoutError):
            names.addresses(host, 443, 0.01)
    resolver.release()
    assert resolver.asked[1 + LOOK_UPS] == "well.example"


def test_a_forked_process_has_none_of_its_parents_look_ups() -> None:
    """Nobody would ever end them there: it looks the same name up itself."""
    resolver = Resolver()
    names = Names(resolver)
    with pytest.raises(TimeoutError):
        names.addresses("hangs.example", 25, 0.05)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resolver.released.set()
            names.addresses("hangs.example", 25, 5)
        except socket.gaierror:
            status = 0
        finally:
            os._exit(status)
    resolver.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextmanager
def slow_reader(tls: ssl.SSLContext | None) -> Iterator[int]:
    """The port of a server that reads 5,000 bytes a second."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        gone = threading.Event()

        def serve() -> None:
            client, _ = listener.accept()
            if tls is not None:
                client = socket.socket(fileno=tls.wrap_socket(client, server_side=True).detach())
            with client, suppress(OSError):
                while client.recv(100) and not gone.wait(0.02):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        gone.set()
        thread.join()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_who_reads_slowly_holds_up_no_write_under_gevent(tmp_path: Path, tls: bool) -> None:
    """gevent gives each of the many waits of one write under TLS the whole time-out."""
    certificate = Certificate(tmp_path)
    with slow_reader(certificate.server_context() if tls else None) as port:
        arguments = ["1", str(port), *([str(certificate.path)] if tls else [])]
        run = subprocess.run(
            [sys.executable, "-m", "tests.support.faults.write_under_gevent", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    seconds, outcome = run.stdout.split()
    assert outcome == "timeout"
    assert float(seconds) < 5
