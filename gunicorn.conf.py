"""gunicorn as Cedula is meant to be run. Every value can be overridden on the command line."""

import contextlib
import fcntl
import glob
import itertools
import os
import shutil
import tempfile

from dotenv import find_dotenv, load_dotenv

# The same .env that the `flask` command reads by itself; what the environment says already comes first.
if os.environ.get("FLASK_SKIP_DOTENV", "").lower() in ("", "0", "false", "no"):
    load_dotenv(find_dotenv(usecwd=True))

bind = os.environ.get("BIND") or "0.0.0.0:8000"

# A request waits on the mail server, so cheap waiting decides: one gevent worker a core. Without
# reuse_port the kernel wakes whom it likes, and one worker takes most of the connections.
worker_class = "gunicorn_worker.Worker"  # gevent, with deadlines and bounds
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)
reuse_port = True
worker_connections = 2000
keepalive = 5  # seconds; so long an idle connection can delay a shutdown

# SIGTERM: requests in hand wait for their mail, then senders finish theirs, each for at most MAIL_TIMEOUT;
# after this gunicorn kills what is left. A wrong MAIL_TIMEOUT is for the service to refuse.
try:
    graceful_timeout = max(30, 2 * int(float(os.environ.get("MAIL_TIMEOUT") or 10)) + 10)
except ValueError:
    graceful_timeout = 30
timeout = 60

# Heartbeats are files: on a disk they would block workers, and a read-only root has no other place.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
control_socket_disable = True

# The application writes one JSON line for each request.
accesslog = None
loglevel = "info"

# Metrics: the workers' counts lie in files that they share, so that any worker can answer for all.
SHARED_MEMORY = "/dev/shm"
METRICS_PREFIX = "cedula-metrics-"


def share_metrics():
    """Sets PROMETHEUS_MULTIPROC_DIR to a folder that is empty, before a worker starts.

    A folder of our own lies in memory and carries a lock for as long as a process of ours lives, which
    tells it from the folder of a gunicorn that was killed. A folder that the operator chose is emptied.
    A reload (SIGHUP) comes here again and finds everything done.
    """
    if os.environ.get("CEDULA_METRICS_OF") == str(os.getpid()):
        return
    os.environ["CEDULA_METRICS_OF"] = str(os.getpid())
    chosen = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if chosen:
        os.makedirs(chosen, exist_ok=True)
        for counts in glob.glob(os.path.join(chosen, "*.db")):
            os.remove(counts)
        return
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else tempfile.gettempdir()
    for left in glob.glob(os.path.join(parent, f"{METRICS_PREFIX}*")):
        with contextlib.suppress(OSError):
            lock = lock_folder(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    new = tempfile.mkdtemp(dir=parent, prefix="cedula-new-")
    lock_folder(new)
    folder = os.path.join(parent, METRICS_PREFIX + os.path.basename(new).rpartition("-")[2])
    os.rename(new, folder)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ["CEDULA_METRICS_FOLDER"] = folder


def lock_folder(path):
    """Raises OSError where the folder is another's. The lock ends with the last process that has it open."""
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        raise
    return folder


share_metrics()


def pre_fork(server, worker):
    """Gives the worker the lowest number that none of its siblings has; its files are named by it."""
    taken = {sibling.slot for sibling in server.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count(1) if slot not in taken)
    os.environ["CEDULA_WORKER_SLOT"] = str(worker.slot)
    if os.geteuid() == 0 and "CEDULA_METRICS_FOLDER" in os.environ:  # gunicorn --user
        os.chown(os.environ["CEDULA_METRICS_FOLDER"], server.cfg.uid, server.cfg.gid)


def child_exit(server, worker):
    """What a dead worker said of its present state no longer holds; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.slot)


def on_exit(server):
    folder = os.environ.get("CEDULA_METRICS_FOLDER")
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
