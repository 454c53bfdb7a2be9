"""`doctor` finds faults that were planted in real servers, and names the cure for each."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from app.cli.doctor import domain, mail, settings, store
from app.cli.doctor.findings import Finding, Level
from app.config import Settings
from app.domain.registration import Budget
from tests.support.certificates import Certificate
from tests.support.faults.redis import cannot_save
from tests.support.names import NameServer, Zone
from tests.support.servers import ROOT, MailServer, Valkey, free_port

SECRET = "s" * 40
SENDER = "Cedula <no-reply@mail.example.com>"


def worst(findings: Iterable[Finding]) -> list[Finding]:
    """The warnings and problems."""
    return [finding for finding in findings if finding.level in (Level.WARNING, Level.PROBLEM)]


def assert_found(findings: Iterable[Finding], level: Level, says: str, cure: str) -> None:
    """Exactly one warning or problem, which says what is wrong and what to do."""
    (found,) = worst(findings)
    assert (found.level, says in found.says, cure in found.cure) == (level, True, True), found


# The settings


def test_a_file_that_stops_the_start_is_found(tmp_path: Path) -> None:
    """Certificates that are none, a template that is none: each with its cure; the built-in ones are well."""
    assert list(settings.unusable(Settings(mail_default_sender=SENDER))) == []
    template = tmp_path / "number" / "es" / "body.txt"
    template.parent.mkdir(parents=True)
    template.write_text("{{ number ")
    found = settings.unusable(Settings(mail_default_sender=SENDER, mail_templates=str(tmp_path)))
    assert_found(found, Level.PROBLEM, "number/es/body.txt", "MAIL_TEMPLATES")
    found = settings.unusable(Settings(mail_default_sender=SENDER, mail_ca_file=str(template)))
    assert_found(found, Level.PROBLEM, "MAIL_CA_FILE holds no certificates", "unset MAIL_CA_FILE")


# Redis


def test_a_redis_as_it_should_be_has_nothing_to_complain_about(valkey: Valkey) -> None:
    """All is well, and what was written to find out is gone."""
    assert worst(store.examine(Settings(redis_url=valkey.url))) == []
    with closing(valkey.client()) as client:
        assert client.dbsize() == 0


Plant = Callable[[redis.Redis], Any]

REDIS_FAULTS: list[tuple[Plant, Level, str, str]] = [
    (
        lambda client: client.config_set("appendonly", "no"),
        Level.PROBLEM,
        "a restart of Redis forgets every registration",
        "appendonly yes",
    ),
    (
        lambda client: (client.config_set("appendonly", "no"), client.config_set("save", "3600 1")),
        Level.WARNING,
        "Only snapshots are kept",
        "appendonly yes",
    ),
    (
        lambda client: client.config_set("appendfsync", "no"),
        Level.WARNING,
        "appendfsync is no",
        "appendfsync everysec",
    ),
    (
        lambda client: (
            client.config_set("maxmemory", "1gb"),
            client.config_set("maxmemory-policy", "allkeys-lru"),
        ),
        Level.PROBLEM,
        "maxmemory-policy is allkeys-lru",
        "maxmemory-policy noeviction",
    ),
    (
        lambda client: client.config_set("maxmemory-policy", "volatile-ttl"),
        Level.WARNING,
        "maxmemory-policy is volatile-ttl",
        "maxmemory-policy noeviction",
    ),
    (
        lambda client: client.config_set("min-replicas-to-write", "1"),
        Level.PROBLEM,
        "fewer replicas are connected",
        "min-replicas-to-write",
    ),
    (
        lambda client: client.config_set("requirepass", "wanted"),
        Level.PROBLEM,
        "asks for a password",
        "redis://user:password@host",
    ),
    (
        lambda client: client.execute_command("ACL", "SETUSER", "default", "-eval", "-zadd"),
        Level.PROBLEM,
        "forbids 2 of the commands",
        "+zadd +eval",
    ),
    (
        lambda client: client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~other:*"),
        Level.PROBLEM,
        "keeps us from our keys",
        "~cedula:*",
    ),
    (
        lambda client: client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:sealed"),
        Level.PROBLEM,
        "SECRET_KEY is not set",
        "Set SECRET_KEY",
    ),
    (
        lambda client: client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:clear"),
        Level.PROBLEM,
        "another index key",
        "Set INDEX_KEY",
    ),
]


@pytest.mark.parametrize(("plant", "level", "says", "cure"), REDIS_FAULTS, ids=[f[2] for f in REDIS_FAULTS])
def test_a_fault_planted_in_redis_is_found(
    valkey: Valkey, plant: Plant, level: Level, says: str, cure: str
) -> None:
    """One fault, one finding, with its cure."""
    with closing(valkey.client()) as client:
        plant(client)
    assert_found(store.examine(Settings(redis_url=valkey.url)), level, says, cure)


def test_what_cannot_be_deleted_ends_by_itself(valkey: Valkey) -> None:
    """Where a command is forbidden the others still run, and no probe is without an end."""
    with closing(valkey.client()) as client:
        client.execute_command("ACL", "SETUSER", "default", "-del", "-hdel", "-zrem", "-pexpireat")
        found = store.examine(Settings(redis_url=valkey.url))
        assert_found(found, Level.PROBLEM, "forbids 4 of the commands", "+hdel +pexpireat +zrem +del")
        left = client.keys()
        assert len(left) == 4
        assert all(0 < client.pttl(key) <= store.PROBE_MS for key in left)


def test_a_full_memory_is_found(valkey: Valkey) -> None:
    """Once as nearly full, once as the reason why writes are refused."""
    with closing(valkey.client()) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) // 2)
    nearly, refused = worst(store.examine(Settings(redis_url=valkey.url)))
    assert nearly.says.endswith("when it is full, writes are refused.")
    assert "memory is full" in refused.says
    assert "Raise maxmemory" in refused.cure


def test_a_full_disk_is_found(valkey: Valkey) -> None:
    """MISCONF: told as the disk, with a look at it as the cure."""
    with closing(valkey.client()) as client, cannot_save(valkey, client):
        found = worst(store.examine(Settings(redis_url=valkey.url)))
    assert all("disk" in finding.says for finding in found)
    assert "Writes are refused" in found[-1].says
    assert "disk is full" in found[-1].cure


def test_a_database_that_is_not_there_is_found(valkey: Valkey) -> None:
    """Valkey has 16 of them unless it is told otherwise."""
    found = store.examine(Settings(redis_url=valkey.url.replace("/0", "/16")))
    assert_found(found, Level.PROBLEM, "no such database", "raise `databases`")


def test_a_replica_is_found(valkey: Valkey, tmp_path: Path) -> None:
    """By its role, and because it refuses to write."""
    (tmp_path / "replica").mkdir()
    replica = Valkey(tmp_path / "replica", save="", appendonly="yes")
    with closing(replica.client()) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(valkey.port))
    found = worst(store.examine(Settings(redis_url=replica.url)))
    replica.stop()
    assert [finding.level for finding in found] == [Level.PROBLEM, Level.PROBLEM]
    assert all("redis+sentinel://" in finding.cure for finding in found)


def test_missing_replicas_are_found(valkey: Valkey) -> None:
    """REDIS_WAIT_REPLICAS that nobody can fulfil."""
    found = store.examine(Settings(redis_url=valkey.url, redis_wait_replicas=1))
    assert_found(
        found, Level.PROBLEM, "asks for 1 replicas, and 0 are connected", "lower REDIS_WAIT_REPLICAS"
    )


def test_data_in_clear_is_found_where_a_secret_key_is_set(valkey: Valkey) -> None:
    """The service would not start; nor would it read the data."""
    with closing(valkey.client()) as client:
        client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:clear")
    found = store.examine(Settings(redis_url=valkey.url, secret_key=SECRET, index_key=SECRET))
    assert_found(found, Level.PROBLEM, "lies in clear", "Unset SECRET_KEY")


def test_a_wrong_password_is_found(valkey: Valkey) -> None:
    """As such, and without saying it."""
    with closing(valkey.client()) as client:
        client.config_set("requirepass", "wanted")
    url = valkey.url.replace("://", "://:gu3ssed@")
    findings = list(store.examine(Settings(redis_url=url)))
    assert_found(findings, Level.PROBLEM, "refuses the user name or the password", "ACL LIST")
    assert "gu3ssed" not in str(findings)


def test_a_redis_that_cannot_be_reached_is_found(valkey: Valkey) -> None:
    """Not there, an unknown host, no TLS at that port, no cluster: each has its own cure."""
    for url, says, cure in (
        (f"redis://127.0.0.1:{free_port()}/0", "Nothing listens", "Start Redis"),
        ("redis://redis.invalid/0", "host name in REDIS_URL is unknown", "DNS"),
        (valkey.url.replace("redis:", "rediss:"), "does not speak TLS", "redis:// in a network"),
        (
            valkey.url.replace("redis:", "redis+cluster:").removesuffix("/0"),
            "no cluster answers",
            "Use redis://",
        ),
    ):
        settings = Settings(redis_url=url, redis_timeout_s=0.3)
        assert_found(store.examine(settings), Level.PROBLEM, says, cure)


def test_a_redis_that_says_nothing_is_found() -> None:
    """A port that takes connections and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        found = list(store.examine(Settings(redis_url=url, redis_timeout_s=0.2)))
    assert_found(found, Level.PROBLEM, "did not answer in time", "REDIS_TIMEOUT")


def test_what_may_not_be_asked_is_a_note(valkey: Valkey) -> None:
    """Managed servers forbid INFO and CONFIG; that is no fault of the service."""
    with closing(valkey.client()) as client:
        client.execute_command("ACL", "SETUSER", "default", "-info", "-config")
    findings = list(store.examine(Settings(redis_url=valkey.url)))
    assert worst(findings) == []
    assert [finding.level for finding in findings].count(Level.NOTE) == 1


def test_a_clock_that_is_wrong_is_found(valkey: Valkey) -> None:
    """Ours is a minute ahead."""
    found = store.examine(Settings(redis_url=valkey.url), clock=lambda: time.time() + 60)
    assert_found(found, Level.WARNING, "60 s ahead", "NTP")


# The mail server


class Particular:
    """aiosmtpd's handler of a server that refuses the sender with a reply of its own."""

    def __init__(self, reply: str) -> None:
        self._reply = reply

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        return self._reply


def only_ada(*login: Any) -> AuthResult:
    """Lets in ada with her password."""
    given = login[-1]
    return AuthResult(success=isinstance(given, LoginPassword) and given.password == b"right", handled=False)


@contextmanager
def smtp(handler: Any = None, **options: Any) -> Iterator[Settings]:
    """The settings for a mail server that is there as long as the block."""
    server = MailServer(handler, **options)
    yield Settings(
        mail_server="localhost", mail_port=server.port, mail_default_sender=SENDER, mail_timeout_s=2.0
    )
    server.stop()


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


def test_a_mail_server_as_it_should_be_has_nothing_to_complain_about(certificate: Certificate) -> None:
    """STARTTLS with a trusted certificate, a login, our sender: all is well, and no mail was sent."""
    with smtp(
        tls_context=certificate.server_context(), authenticator=only_ada, auth_required=True
    ) as settings:
        found = list(
            mail.examine(
                replace(
                    settings,
                    mail_use_tls=True,
                    mail_ca_file=str(certificate.path),
                    mail_username="ada",
                    mail_password="right",
                )
            )
        )
    assert worst(found) == []
    assert "PIPELINING" in next(finding.says for finding in found if finding.level is Level.NOTE)


def test_starttls_that_is_offered_and_unused_is_found(certificate: Certificate) -> None:
    """Numbers would travel in clear, for want of one setting."""
    with smtp(tls_context=certificate.server_context()) as settings:
        assert_found(
            mail.examine(settings), Level.WARNING, "STARTTLS and we do not use it", "MAIL_USE_TLS=true"
        )


def test_starttls_that_is_not_offered_is_found() -> None:
    """MAIL_USE_TLS against a port without it."""
    with smtp() as settings:
        found = mail.examine(replace(settings, mail_use_tls=True))
        assert_found(found, Level.PROBLEM, "does not offer STARTTLS", "587")


CERTIFICATE_FAULTS: list[tuple[dict[str, Any], bool, str, str]] = [
    ({}, False, "is not trusted", "MAIL_CA_FILE"),
    ({"lives": timedelta(days=-1)}, True, "has expired", "renewed"),
    ({"name": "mail.example.net"}, True, "for another name", "Set MAIL_SERVER"),
]


@pytest.mark.parametrize("at_once", [False, True], ids=["STARTTLS", "TLS at once"])
@pytest.mark.parametrize(
    ("made", "trusted", "says", "cure"), CERTIFICATE_FAULTS, ids=["unknown", "old", "name"]
)
def test_a_bad_certificate_is_found(
    tmp_path: Path, made: dict[str, Any], trusted: bool, says: str, cure: str, at_once: bool
) -> None:
    """Not trusted, expired, for another name: on port 587 and on port 465."""
    bad = Certificate(tmp_path, **made)
    context = bad.server_context()
    options = {"ssl_context": context} if at_once else {"tls_context": context}
    with tls_smtp(at_once, options) as settings:
        ca_file = str(bad.path) if trusted else ""
        found = list(mail.examine(replace(settings, mail_ca_file=ca_file)))
    assert_found(found, Level.PROBLEM, says, cure)


def tls_smtp(at_once: bool, options: dict[str, Any]) -> AbstractContextManager[Settings]:
    @contextmanager
    def server() -> Iterator[Settings]:
        if at_once:
            with tls_listener(options["ssl_context"]) as port:
                yield Settings(
                    mail_server="localhost",
                    mail_port=port,
                    mail_use_ssl=True,
                    mail_default_sender=SENDER,
                    mail_timeout_s=2.0,
                )
        else:
            with smtp(**options) as settings:
                yield replace(settings, mail_use_tls=True)

    return server()


@contextmanager
def tls_listener(context: ssl.SSLContext) -> Iterator[int]:
    """A port that wants TLS at once; what comes after it does not matter to those who refuse it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            try:
                connection, _ = listener.accept()
                with context.wrap_socket(connection, server_side=True):
                    return
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_certificate_that_ends_soon_is_found(tmp_path: Path) -> None:
    """Before it is too late."""
    soon = Certificate(tmp_path, lives=timedelta(days=3, hours=1))
    with smtp(tls_context=soon.server_context()) as settings:
        found = mail.examine(replace(settings, mail_use_tls=True, mail_ca_file=str(soon.path)))
        assert_found(found, Level.WARNING, "ends in 3 days", "renewed")


def test_a_refused_login_is_found(certificate: Certificate) -> None:
    """With the reply's code, and without the password."""
    with smtp(tls_context=certificate.server_context(), authenticator=only_ada) as settings:
        findings = list(
            mail.examine(
                replace(
                    settings,
                    mail_use_tls=True,
                    mail_ca_file=str(certificate.path),
                    mail_username="ada",
                    mail_password="wr0ng-one",
                )
            )
        )
    assert_found(findings, Level.PROBLEM, "refuses the login (535)", "MAIL_PASSWORD")
    assert "wr0ng-one" not in str(findings)


def test_a_login_that_is_not_offered_or_not_given_is_found(certificate: Certificate) -> None:
    """Most servers offer it only after TLS, and take no mail without it."""
    with smtp(tls_context=certificate.server_context(), authenticator=only_ada) as settings:
        found = list(mail.examine(replace(settings, mail_username="ada", mail_password="right")))
        assert "offers no login here" in found[-1].says
        assert "MAIL_USE_TLS=true" in found[-1].cure
    with smtp(Particular("530 5.7.0 Authentication required")) as settings:
        assert_found(mail.examine(settings), Level.PROBLEM, "no mail without a login", "MAIL_USERNAME")


def test_a_password_that_cannot_be_sent_is_found() -> None:
    """Without a traceback, which would show it."""
    with smtp(authenticator=only_ada, auth_require_tls=False) as settings:
        found = list(mail.examine(replace(settings, mail_username="ada", mail_password="contraseña")))
    assert (found[-1].level, "outside ASCII" in found[-1].says) == (Level.PROBLEM, True)
    assert "contrase" not in str(found)


def test_a_password_in_clear_is_found() -> None:
    """The login works; it should not work like that."""
    with smtp(authenticator=only_ada, auth_require_tls=False) as settings:
        found = mail.examine(replace(settings, mail_username="ada", mail_password="right"))
        assert_found(
            found, Level.WARNING, "password of the mail server is sent in clear", "MAIL_USE_TLS=true"
        )


@pytest.mark.parametrize(
    ("reply", "level", "says", "cure"),
    [
        ("550 5.7.1 Not you", Level.PROBLEM, "refuses our sender (550)", "MAIL_DEFAULT_SENDER"),
        ("451 4.7.1 Later", Level.WARNING, "puts our sender off (451)", "Ask again"),
    ],
)
def test_a_refused_sender_is_found(reply: str, level: Level, says: str, cure: str) -> None:
    """Before the first person waits for a mail."""
    with smtp(Particular(reply)) as settings:
        assert_found(mail.examine(settings), level, says, cure)


def test_a_mail_server_that_cannot_be_reached_is_found() -> None:
    """Not there, an unknown name, TLS at a port without it, silence: each has its own cure."""
    nothing = Settings(mail_server="127.0.0.1", mail_port=free_port(), mail_default_sender=SENDER)
    assert_found(mail.examine(nothing), Level.PROBLEM, "Nothing listens", "587 and 465")
    unknown = replace(nothing, mail_server="mail.invalid")
    assert_found(mail.examine(unknown), Level.PROBLEM, "name in MAIL_SERVER is unknown", "DNS")
    misspelt = replace(nothing, mail_server="mail..example.com")
    assert_found(mail.examine(misspelt), Level.PROBLEM, "name in MAIL_SERVER is unknown", "DNS")
    with smtp() as settings:
        found = mail.examine(replace(settings, mail_use_ssl=True))
        assert_found(
            found, Level.PROBLEM, "TLS handshake with the mail server fails", "MAIL_USE_SSL is for port 465"
        )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = mail.examine(replace(nothing, mail_port=port, mail_timeout_s=0.2))
        assert_found(found, Level.PROBLEM, "does not answer in time", "firewall")


# The sender's domain

GOOD: Zone = {
    "mail.example.com": {"MX": ["10 mx.example.com."], "TXT": ['"other"', '"v=spf1 include:x.example -all"']},
    "_dmarc.example.com": {"TXT": ['"v=DMARC1; p=reject"']},
}


def looked_up(zone: Zone, sender: str = SENDER) -> list[Finding]:
    server = NameServer(zone)
    found = list(domain.examine(Settings(mail_default_sender=sender), server.resolver()))
    server.stop()
    return found


def test_a_domain_as_it_should_be_has_nothing_to_complain_about() -> None:
    """SPF of its own, DMARC of the domain above; that DKIM cannot be known is said."""
    found = looked_up(GOOD)
    assert worst(found) == []
    assert "DKIM" in found[-1].says


DOMAIN_FAULTS: list[tuple[Zone, Level, str, str]] = [
    (
        {
            "mail.example.com": {"MX": ["10 mx.example.com."]},
            "_dmarc.example.com": GOOD["_dmarc.example.com"],
        },
        Level.WARNING,
        "has no SPF record",
        "v=spf1",
    ),
    (
        {**GOOD, "mail.example.com": {"A": ["192.0.2.1"], "TXT": ['"v=spf1 a -all"', '"v=spf1 mx -all"']}},
        Level.PROBLEM,
        "2 SPF records",
        "Join them",
    ),
    (
        {**GOOD, "mail.example.com": {"A": ["192.0.2.1"], "TXT": ['"v=spf1 +all"']}},
        Level.WARNING,
        "lets everybody send",
        "-all",
    ),
    (
        {"mail.example.com": GOOD["mail.example.com"]},
        Level.WARNING,
        "has no DMARC record",
        "_dmarc.mail.example.com",
    ),
    (
        {**GOOD, "mail.example.com": {**GOOD["mail.example.com"], "MX": ["0 ."]}},
        Level.PROBLEM,
        "takes no mail",
        "MX record",
    ),
    (
        {**GOOD, "mail.example.com": {"TXT": GOOD["mail.example.com"]["TXT"]}},
        Level.WARNING,
        "bounces are lost",
        "MX record",
    ),
    ({}, Level.PROBLEM, "does not exist", "MAIL_DEFAULT_SENDER"),
]


@pytest.mark.parametrize(("zone", "level", "says", "cure"), DOMAIN_FAULTS, ids=[f[2] for f in DOMAIN_FAULTS])
def test_a_fault_planted_in_the_dns_is_found(zone: Zone, level: Level, says: str, cure: str) -> None:
    """One fault, one finding, with its cure."""
    assert_found(looked_up(zone), level, says, cure)


def test_a_sender_without_a_domain_is_found() -> None:
    """What the default comes to on a machine that nobody named."""
    assert_found(
        looked_up(GOOD, "no-reply@localhost"), Level.WARNING, "which is no domain", "Set MAIL_DEFAULT_SENDER"
    )


def test_a_dns_that_does_not_answer_is_a_note() -> None:
    """A container without DNS is no fault of the domain."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = NameServer({}).resolver()
        resolver.port, resolver.lifetime = silent.getsockname()[1], 0.2
        found = list(domain.examine(Settings(mail_default_sender=SENDER), resolver))
    assert [finding.level for finding in found] == [Level.NOTE]
    assert [f.level for f in domain.examine(Settings(mail_default_sender=SENDER), None)] == [Level.NOTE]


# Settings, and the command as a whole


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
        client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:sealed")
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
        }
        well = doctor(environment, "--json", "--no-dns")
        warned = doctor({**environment, "API_KEYS": ""}, "--json", "--no-dns")
    assert (well.returncode, json.loads(well.stdout)["exit_code"]) == (0, 0), well.stdout
    assert (warned.returncode, json.loads(warned.stdout)["exit_code"]) == (1, 1), warned.stdout
    with closing(valkey.client()) as client:
        assert client.dbsize() == 0
