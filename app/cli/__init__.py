"""The operator's commands, in one place: `flask --app wsgi --help`. None of them starts the relay."""

from app.cli.doctor.command import doctor
from app.cli.keys import keys
from app.cli.numbers import numbers
from app.cli.outbox import outbox
from app.cli.users import users

COMMANDS = (doctor, keys, numbers, outbox, users)
