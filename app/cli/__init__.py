"""The operator's commands, in one place: `flask --app wsgi --help`.

Promise: they work beside the running service; none of them starts the relay or sends a mail. Those that
use Redis do so within `told_in_words`: one that is away, or another key's, is a sentence; the others need
none. May import every other room; only `create_app` and `wsgi.py` import this one.
"""

from app.cli.bounces import bounces
from app.cli.doctor.command import doctor
from app.cli.keys import keys
from app.cli.mail import mail
from app.cli.numbers import numbers
from app.cli.outbox import outbox
from app.cli.services import services
from app.cli.suppressions import suppressions
from app.cli.users import users
from app.cli.version import version

COMMANDS = (bounces, doctor, keys, mail, numbers, outbox, services, suppressions, users, version)
