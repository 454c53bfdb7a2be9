"""gunicorn as Cedula is meant to be run. Every value can be overridden on the command line."""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
import time
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any

from dotenv import find_dotenv, load_dotenv

# The same .env that the `flask` command reads by itself; the environment comes first. A reload (SIGHUP) runs
# this file again, and what an earlier run took from .env must not count as the environment's.
FROM_DOTENV = "CEDULA_FROM_DOTENV"
for _name in os.environ.pop(FROM_DOTENV, "").split():
    os.environ.pop(_name, None)
if os.environ.get("FLASK_SKIP_DOTENV", "").lower() in ("", "0", "false", "no"):
    _given = set(os.environ)
    load_dotenv(find_dotenv(usecwd=True))
    os.environ[FROM_DOTENV] = " ".join(set(os.environ) - _given)

bind = os.environ.get("BIND") or "0.0.0.0:8000"

# A request waits on the mail server, so cheap waiting decides: one gevent worker a core. Without
# reuse_port all workers accept from one socket, and one of them takes most of the connections.
worker_class = "gunicorn_worker.Worker"  # gevent, with deadlines and bounds
workers = int(os.environ.get("WEB_CONCURRENCY") or 0) or os.cpu_count() or 1
reuse_port = True
worker_connections = 2000
keepalive = 5  # seconds; so long an idle connection can delay a shutdown


def time_to_end() -> int:
    """Seconds. After SIGTERM requests in hand wait for their mail, then senders finish theirs, each for at
    most MAIL_TIMEOUT; then gunicorn kills what is left. A wrong MAIL_TIMEOUT is reported by the service."""
    path = os.environ.get("MAIL_TIMEOUT_FILE")
    try:
        mail_timeout = os.environ.get("MAIL_TIMEOUT") or "10"
        if path and os.path.isfile(path):  # to open a FIFO would wait for whoever writes into it
            with open(path) as file:
                mail_timeout = file.read()
        return max(30, 2 * int(float(mail_timeout)) + 10)
    except (OSError, ValueError, OverflowError):
        return 30


graceful_timeout = time_to_end()
timeout = 60

# Heartbeats are files: on a disk they would block workers, and a read-only root has no other place.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
control_socket_disable = True

# No header is believed. One that says under which path the service is mounted would let a client get around a
# rule of the proxy; the scheme is used nowhere. So gunicorn need not check who sends such headers.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
forwarded_allow_ips = "*"

# The application writes one JSON line for each request.
accesslog = None
loglevel = "info"

# No thread waits for a slow reader of the log, and none ends with a full disk. The module is loaded by its
# path: the package `app` must not be imported before gevent has patched the worker.
_path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "app/telemetry/lines.py")
_lines = ModuleType("cedula_lines")
SourceFileLoader("cedula_lines", _path).exec_module(_lines)
_lines.install()

# Metrics: the workers share a folder for their snapshots, so that any of them answers for all. There they
# also agree on the services in force: these change for all workers at once, and only when this file is run.
METRICS_PREFIX = "cedula-metrics-"
METRICS_FOLDER = "CEDULA_METRICS_FOLDER"
MASTER = "CEDULA_MASTER"
if os.environ.get(MASTER) != str(os.getpid()):  # with SIGUSR2 one gunicorn starts another
    os.environ.pop(METRICS_FOLDER, None)
os.environ["CEDULA_RELOAD"] = str(time.monotonic_ns())


def on_starting(server: Any) -> None:
    """Makes the folder. Where none can be made, every worker answers with its own counts, and reads
    SERVICES_FILE by itself."""
    os.environ[MASTER] = str(os.getpid())  # not before: with --daemon the master is another process
    share_unix_socket(server)
    parent = worker_tmp_dir or tempfile.gettempdir()
    try:
        os.environ[METRICS_FOLDER] = folder = make_folder(parent)
        if os.geteuid() == 0:  # gunicorn --user
            os.chown(folder, server.cfg.uid, server.cfg.gid)
    except OSError:
        server.log.warning(
            "no folder in %s: workers count for themselves, and a wrong SERVICES_FILE ends a reload", parent
        )


def on_reload(server: Any) -> None:
    share_unix_socket(server)
    if METRICS_FOLDER in os.environ:
        for left in glob.glob(os.path.join(os.environ[METRICS_FOLDER], "started-*")):
            with contextlib.suppress(OSError):
                os.unlink(left)  # of an earlier start or reload: see `started` in gunicorn_worker.py


def share_unix_socket(server: Any) -> None:
    """A Unix socket has no reuse_port: all workers accept from the same one."""
    if any(isinstance(address, str) for address in server.cfg.address):
        server.cfg.set("reuse_port", False)


def make_folder(parent: str) -> str:
    """Returns its path. The folder is locked for as long as a process of ours lives. Folders without a lock
    were left by a gunicorn that was killed, and are removed. Raises OSError."""
    for left in glob.glob(os.path.join(parent, f"{METRICS_PREFIX}*")):
        with contextlib.suppress(OSError):
            lock = lock_folder(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    while True:  # before it is locked, another gunicorn that starts may take it for one that was left
        folder = tempfile.mkdtemp(dir=parent, prefix=METRICS_PREFIX)
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock_folder(folder)
            os.stat(folder)
            return folder


def lock_folder(path: str) -> int:
    """Raises OSError where another gunicorn has it. The lock ends with the last process that has it open."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # no FIFO of that name, whose opening would wait
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        raise
    return folder


def on_exit(server: Any) -> None:
    if METRICS_FOLDER in os.environ:
        shutil.rmtree(os.environ[METRICS_FOLDER], ignore_errors=True)
