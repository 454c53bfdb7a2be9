"""gunicorn as Cedula is meant to be run. Every value can be overridden on the command line."""

import os

bind = os.environ.get("BIND", "0.0.0.0:8000")

# A request waits on the mail server, so cheap waiting decides: one gevent worker a core. Without
# reuse_port the kernel wakes whom it likes, and one worker takes most of the connections.
worker_class = "gevent"
workers = int(os.environ.get("WEB_CONCURRENCY", os.cpu_count() or 1))
reuse_port = True
worker_connections = 2000
keepalive = 30

# SIGTERM: requests in hand wait for their mail (MAIL_TIMEOUT, 10 s), then senders finish theirs.
graceful_timeout = 30
timeout = 60

# Heartbeats are files: on a disk they would block workers, and a read-only root has no other place.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
control_socket_disable = True

# The application writes one JSON line for each request.
accesslog = None
loglevel = "info"
