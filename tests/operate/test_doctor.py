"""`doctor` as an operator runs it, and what it says of the settings alone."""

import itertools
import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.cli.doctor import services, settings
from app.cli.doctor.findings import Level
from app.config import ApiKey, Settings
from app.directory.directory import digest
from app.directory.reading import Reading, read_disk
from app.domain.service import Budget
from app.mail.messages import faults
from tests.operate.doctor import SECRET, SENDER, assert_found, smtp, worst
from tests.support.servers import ROOT, Valkey


def test_a_file_that_stops_the_start_is_found(tmp_path: Path) -> None:
    """Certificates that are none, a template that is none: each with its cure; the built-in ones are well."""
    assert list(settings.unusable(Settings(mail_default_sender=SENDER))) == []
    template = tmp_path / "number.txt"
    template.write_text("{{ number ")
    named = Settings(mail_default_sender=SENDER, mail_templates=str(tmp_path))
    found = services.wrong(read_disk(named, faults))
    assert_found(found, Level.PROBLEM, "MAIL_TEMPLATES is wrong", "number.txt, line 1")
    found = settings.unusable(Settings(mail_default_sender=SENDER, mail_ca_file=str(template)))
    assert_found(found, Level.PROBLEM, "MAIL_CA_FILE holds no certificates", "unset MAIL_CA_FILE")


def read(text: str, folder: Path, **more: Any) -> Reading:
    """What is read of a file with this text."""
    file = folder / "services.toml"
    file.write_text(text)
    return read_disk(Settings(mail_default_sender=SENDER, services_file=str(file), **more))


def table(name: str, more: str = "") -> str:
    return f'[{name}]\nkeys = ["{digest(name)}"]\nname = "Acme"\n{more}\n'


def test_what_is_wrong_with_services_is_found(tmp_path: Path) -> None:
    """Each with its place; a file without a fault is well."""
    found = services.wrong(read(table("shop", "test = 1"), tmp_path))
    assert_found(
        found, Level.PROBLEM, "SERVICES_FILE [shop] test, line 4, is wrong", "Must be true or false."
    )
    well = read(table("shop", 'support = "help@example.com"'), tmp_path)
    assert list(services.wrong(well)) == []
    assert [finding.level for finding in services.examine(well)] == [Level.OK]


@pytest.mark.parametrize(
    ("line", "level", "says", "cure"),
    [
        ('verify_limit = ""', Level.WARNING, "not limited in time for: shop", "`verify_limit`"),
        ('address_limit = ""', Level.WARNING, "flooded by: shop", "`address_limit`"),
        ("test = true", Level.NOTE, "Nothing is mailed for test services: shop", "without `test`"),
        ("", Level.NOTE, "nobody to ask for: shop", "SERVICE_SUPPORT"),
    ],
)
def test_what_is_allowed_and_seldom_wanted_of_a_service_is_found(
    tmp_path: Path, line: str, level: Level, says: str, cure: str
) -> None:
    """By the names of the services."""
    more = {"service_support": "help@example.com"} if line else {}
    (found,) = list(services.examine(read(table("shop", line), tmp_path, **more)))[1:]
    assert (found.level, says in found.says, cure in found.cure) == (level, True, True), found


def test_of_many_services_some_are_named(tmp_path: Path) -> None:
    """A finding is a sentence, not a list."""
    (found, *_) = services.examine(read("".join(table(f"s{turn}") for turn in range(9)), tmp_path))
    assert found.says.endswith("s0, s1, s2, s3, s4 and 4 more.")


def test_the_domains_of_all_who_mail_are_looked_at(tmp_path: Path) -> None:
    """Not of test services, nor of the environment where nobody may call in its name."""
    text = (
        table("shop", 'sender = "a@shop.example"')
        + table("club", 'sender = "b@shop.example"')
        + table("trial", 'sender = "c@trial.example"\ntest = true')
    )
    assert services.senders(read(text, tmp_path)) == ["Acme <a@shop.example>", "Acme <b@shop.example>"]
    keys = (ApiKey("me", "a" * 64),)
    assert services.senders(read(text, tmp_path, api_keys=keys))[0] == SENDER
    assert services.senders(read_disk(Settings(mail_default_sender=SENDER))) == [SENDER]


def test_what_is_allowed_and_seldom_wanted_is_found() -> None:
    """An open API, a store in clear, guesses and mails without a limit."""
    careless = Settings(verify_limit=Budget(), address_limit=Budget())
    cures = [finding.cure for finding in worst(settings.examine(careless))]
    names = ("API_KEYS", "SECRET_KEY", "VERIFY_LIMIT", "ADDRESS_LIMIT")
    assert all(name in cure for name, cure in zip(names, cures, strict=True))


def doctor(
    environment: dict[str, str], *arguments: str, module: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs the command as an operator does."""
    command = ["-m", "app.cli.doctor"] if module else ["-m", "flask", "--app", "wsgi", "doctor"]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("module", [False, True], ids=["flask", "python -m"])
def test_wrong_settings_are_told_although_they_stop_the_service(module: bool) -> None:
    """Each with its cure, and no value; exit code 2."""
    found = doctor({"NUMBER_DIGITS": "3", "SECRET_KEY": "sh0rt"}, module=module)
    assert found.returncode == 2
    assert "NUMBER_DIGITS is wrong" in found.stdout
    assert "Must be at least 32 characters long" in found.stdout
    assert "sh0rt" not in found.stdout + found.stderr


def test_a_wrong_index_key_is_told_although_it_stops_the_service(valkey: Valkey) -> None:
    """The doctor comes where the service does not start."""
    with closing(valkey.client()) as client:
        client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:sealed:2")
    found = doctor({"REDIS_URL": valkey.url, "SECRET_KEY": SECRET}, "--no-dns")
    assert found.returncode == 2
    assert "Set INDEX_KEY to the one of the data" in found.stdout


def test_the_exit_code_and_json_are_for_scripts(valkey: Valkey) -> None:
    """0 when all is well, 1 with a warning; stdout is one JSON object; nothing was stored."""
    digest = "0" * 64
    with smtp() as mail_settings:
        environment = {
            "REDIS_URL": valkey.url,
            "SECRET_KEY": SECRET,
            "API_KEYS": f"shop:{digest}",
            "MAIL_SERVER": "localhost",
            "MAIL_PORT": str(mail_settings.mail_port),
            "MAIL_DEFAULT_SENDER": SENDER,
            "BOUNCE_ADDRESS": "bounce@acme.example",
        }
        well = doctor(environment, "--json", "--no-dns")
        warned = doctor({**environment, "API_KEYS": ""}, "--json", "--no-dns")
    assert (well.returncode, json.loads(well.stdout)["exit_code"]) == (0, 0), well.stdout
    areas = {finding["area"] for finding in json.loads(well.stdout)["findings"]}
    assert areas == {"settings", "redis", "clock", "outbox", "smtp", "domain", "bounces"}
    assert (warned.returncode, json.loads(warned.stdout)["exit_code"]) == (1, 1), warned.stdout
    with closing(valkey.client()) as client:
        assert client.dbsize() == 0


def test_what_was_found_is_told_before_what_follows_is_examined() -> None:
    """Something that does not answer may hold up what comes after it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        away = {"REDIS_URL": "redis://127.0.0.1:1/0", "MAIL_SERVER": "127.0.0.1", "MAIL_TIMEOUT": "50"}
        with subprocess.Popen(
            [sys.executable, "-m", "app.cli.doctor", "--no-dns"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "MAIL_PORT": str(silent.getsockname()[1]), **away},
            stdout=subprocess.PIPE,
            text=True,
        ) as doctor:
            assert doctor.stdout is not None
            told = itertools.takewhile(lambda line: "Nothing listens at the host" not in line, doctor.stdout)
            assert "Every setting can be read." in "".join(told)
            assert doctor.poll() is None  # it waits for the mail server
            doctor.kill()
