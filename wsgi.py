"""The WSGI entry point: `gunicorn wsgi:app`. A process that serves also mails; `flask outbox` does not."""

import gc
import os
import sys
import warnings

if "gunicorn.workers.ggevent" in sys.modules:
    from gevent import monkey

    if not monkey.is_module_patched("threading"):
        # gunicorn --preload reads this module before it patches its gevent workers, and locks that are made
        # before that would block the whole worker. Its master must keep its own signals.
        warnings.filterwarnings("ignore", "Patching more than once", monkey.MonkeyPatchWarning)
        monkey.patch_all(os=False, signal=False, subprocess=False)

from app import create_app, start
from app.cli import app_without_a_service, needs_no_service, serves
from app.errors import SettingsError, WrongIndexKey
from app.telemetry import lines

CANNOT_START = 3
"""The status after which gunicorn ends; after any other it would start the worker again, for ever."""

is_command = os.environ.get("FLASK_RUN_FROM_CLI") == "true"
if not is_command:
    lines.install()  # where gunicorn.conf.py has not

try:
    app = app_without_a_service() if is_command and needs_no_service(sys.argv[1:]) else create_app()
    if not is_command or serves(sys.argv[1:]):
        start(app)
except (SettingsError, WrongIndexKey) as error:
    sys.stderr.write(f"cedula cannot start. {error}\n`flask --app wsgi doctor` tells more.\n")
    sys.exit(CANNOT_START)

# What is loaded now stays, so the collector need not look at it again. Each request leaves eight objects in a
# cycle (Werkzeug's routing). Collecting them costs 3 microseconds a request, however often it is done: every
# 2,000 objects it is a pause of half a millisecond and little garbage, every 50,000 one of 14 ms and 5 MB.
gc.collect()
gc.freeze()
gc.set_threshold(2_000, 20, 50)
