"""The operator's commands, in one place: `flask --app wsgi --help`. None of them starts the relay."""

from app.commands.doctor import doctor
from app.commands.keys import keys
from app.commands.numbers import numbers
from app.commands.outbox import outbox
from app.commands.users import users

COMMANDS = (doctor, keys, numbers, outbox, users)
