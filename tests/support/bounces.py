"""Reports as a mail server hands them in, and a Postfix that makes them."""

import os
import shutil
import smtplib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import ROOT, free_port
from tests.support.waiting import wait_until

BOUNCE_ADDRESS = "bounce@acme.example"
INDEX = "the index key of the tests of bounces"


def read_by_command(
    environment: Mapping[str, str], message: bytes, *words: str
) -> "subprocess.CompletedProcess[bytes]":
    """`flask bounces read`, or another command, with a message on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *(words or ("bounces", "read"))],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        input=message,
        capture_output=True,
        timeout=60,
    )


MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.acme.example
mydestination = acme.example, example.com
mynetworks = 127.0.0.0/8
local_recipient_maps =
alias_maps =
alias_database =
recipient_delimiter = +
transport_maps = inline:{{ bounce@acme.example=cedula: }}
default_transport = error:nothing leaves this machine
queue_run_delay = 1s
minimal_backoff_time = 1s
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
local unix - n n - - local
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
tlsmgr unix - - n 1000? 1 tlsmgr
cedula unix - n n - - pipe user=nobody argv={folder}/pipe
"""

PIPE = """#!/bin/sh
# Hands the message to the command, which runs beside, and ends with its exit code.
cd {folder}/box && cat > $$.part && mv $$.part $$.new || exit 75
until [ -f $$.code ]; do sleep 0.02; done
exit "$(cat $$.code)"
"""


class Postfix:
    """A Postfix with a configuration, queue and log of its own. It takes mail for every user of example.com,
    finds that there is none, and pipes what comes back for BOUNCE_ADDRESS into `flask bounces read`.

    Postfix runs no pipe as root, and the tests' Python may lie where only root can read: so the command runs
    in this process's name. `codes`: what it ended with, one after the other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.codes = folder, free_port(), list[int]()
        self._ended = threading.Event()
        for name in ("etc", "queue", "data", "box"):
            (folder / name).mkdir()
        folder.chmod(0o755)
        shutil.chown(folder / "data", "postfix")
        shutil.chown(folder / "box", "nobody")
        for path, text in (("etc/main.cf", MAIN), ("etc/master.cf", MASTER), ("pipe", PIPE)):
            (folder / path).write_text(text.format(folder=folder, port=self.port))
        (folder / "pipe").chmod(0o755)
        self._thread: threading.Thread | None = None

    @property
    def log(self) -> str:
        return (self.folder / "mail.log").read_text()

    def start(self, environment: Mapping[str, str]) -> None:
        """`environment`: of the command."""
        self._postfix("start")
        self._thread = threading.Thread(target=self._serve, args=(environment,))
        self._thread.start()
        wait_until(self._greets, 30, "Postfix greets")

    def stop(self) -> None:
        if self._thread is not None:
            self._postfix("stop")
            self._ended.set()
            self._thread.join()

    def _postfix(self, command: str) -> None:
        found = subprocess.run(
            ["/usr/sbin/postfix", "-c", str(self.folder / "etc"), command], capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr

    def _greets(self) -> bool:
        try:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=5):
                return True
        except OSError:
            return False

    def _serve(self, environment: Mapping[str, str]) -> None:
        while not self._ended.wait(0.02):
            for message in (self.folder / "box").glob("*.new"):
                found = read_by_command(environment, message.read_bytes())
                self.codes.append(found.returncode)
                message.unlink()
                half = message.with_suffix(".half")
                half.write_text(str(found.returncode))
                half.rename(message.with_suffix(".code"))


@contextmanager
def postfix() -> Iterator[Postfix]:
    """One that is not started yet, in a folder that all its users can reach."""
    folder = Path(tempfile.mkdtemp(prefix="cedula-postfix-"))
    server = Postfix(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
