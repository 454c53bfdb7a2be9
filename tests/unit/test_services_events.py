"""SERVICES_FILE: where the events of a service go, and with what they are signed."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config import Settings
from app.directory.in_force import RELOAD, InForce
from app.directory.reading import Reading, read, read_disk
from app.directory.source import Source
from app.domain.service import Endpoint
from app.telemetry.board import FOLDER
from tests.support.servers import ROOT
from tests.support.tenants import ENVIRONMENT, SENDER, A, B, table, told

URL = "https://acme.example/hooks/cedula"


def secret(octets: int = 24, fill: bytes = b"x") -> str:
    return f"whsec_{base64.b64encode(fill * octets).decode()}"


def lines(**values: object) -> str:
    """Keys of a table as TOML writes them; what is None is left out."""
    return "\n".join(
        f"events_{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for key, value in values.items()
        if value is not None
    )


def endpoint(**values: object) -> Endpoint | None:
    reading = told(table(lines(**values)))
    assert reading.wrong == []
    return reading.services[1].events


def test_a_service_is_told_of_its_events_where_its_table_says() -> None:
    """And only there: the service of the environment has none, nor has a table without the keys."""
    reading = told(table(lines(url=URL, secrets=[secret()])) + table("", "bank", B))
    assert [service.events for service in reading.services] == [None, Endpoint(URL, (secret(),)), None]


def test_the_documented_file_has_two_services_that_are_told_and_send_in_their_own_names() -> None:
    """docs/services.md, with keys and secrets put in."""
    chapter = (ROOT / "docs/services.md").read_text(encoding="utf-8").partition("## Where events go")[2]
    (file,) = re.findall(r"\A\s*^```toml\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)
    filled = file.replace("<sha256 hex>", A).replace("<sha256 hex of another key>", B)
    secrets = {name: secret() for name in re.findall(r'secrets_file = "(.*)"', filled)}
    reading = read(ENVIRONMENT, Source(filled.replace("whsec_<base64>", secret()), {}, None, secrets))
    assert reading.wrong == []
    _, shop, club = reading.services
    assert len({shop.sender, club.sender, shop.events, club.events} - {None, SENDER}) == 4


def test_two_secrets_sign_and_a_private_address_must_be_wanted() -> None:
    """While a secret rotates, receivers know the old one or the new one."""
    both = [secret(), secret(64)]
    assert endpoint(url=URL, secrets=both, private=True) == Endpoint(URL, (both[0], both[1]), private=True)
    assert endpoint(url=URL, secrets=both[:1], private=False) == Endpoint(URL, (both[0],))


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.example",
        "https://acme.example:8443/hooks?token=a%20b&x=@1",
        "HTTPS://Acme.Example/",
        "https://xn--mller-kva.example/",
        "https://my_app/hooks",
        "https://192.0.2.1/hooks",
        "https://[2001:db8::1]:8443/hooks",
        "http://localhost:3000/hooks",
        "http://127.1.2.3/hooks",
        "http://[::1]:3000/hooks",
    ],
)
def test_events_go_over_tls_or_stay_on_this_machine(url: str) -> None:
    """The URL is kept as it was written."""
    assert endpoint(url=url, secrets=[secret()]) == Endpoint(url, (secret(),))


NO_URL = "Must be https://host/path"

WRONG_URLS = [
    ("http://acme.example/", "plain http:// is for this machine only"),
    ("http://127.0.0.1.example/", "plain http:// is for this machine only"),
    ("http://0.0.0.0/", "plain http:// is for this machine only"),
    ("http://127.1/", "plain http:// is for this machine only"),
    ("ftp://acme.example/", NO_URL),
    ("acme.example/hooks", NO_URL),
    ("https:///hooks", NO_URL),
    ("https://:443/hooks", NO_URL),
    ("https://acme.example:0/", NO_URL),
    ("https://acme.example:65536/", NO_URL),
    ("https://acme.example:http/", NO_URL),
    ("https://acme..example/", NO_URL),
    ("https://acme.example./", NO_URL),
    ("https://-acme.example/", NO_URL),
    (f"https://{'a' * 64}.example/", NO_URL),
    (f"https://{'a.' * 126}example/", NO_URL),
    ("https://[acme]/", NO_URL),
    ("https://[::1/", NO_URL),
    ("https://[::1]x/", NO_URL),
    ("https://[fe80::1%25eth0]/", NO_URL),
    ("https://acme.example\\@evil.example/", "Must hold no login"),
    ("https://ada:letmein@acme.example/", "Must hold no login"),
    ("https://@acme.example/", "Must hold no login"),
    ("https://acme.example/#letmein", "Must hold no fragment"),
    ("https://müller.example/", "write a name in other letters as xn--"),
    ("https://acme.example/a b", "without spaces"),
    ("https://acme.example/\t", "without spaces"),
    ("", "Must be ASCII"),
    (f"https://acme.example/{'x' * 1980}", "at most 2000 characters"),
]


@pytest.mark.parametrize(("url", "says"), WRONG_URLS, ids=[each[0][:30] for each in WRONG_URLS])
def test_a_wrong_url_is_told_with_its_place_and_without_its_text(url: str, says: str) -> None:
    """Its path may be a secret, a login is one. One mistake is one error."""
    text = table(f"events_url = '{url}'\n{lines(secrets=[secret()])}")
    (wrong,) = told(text).wrong
    assert str(wrong).startswith("SERVICES_FILE [shop] events_url, line 4: ")
    assert says in wrong.message
    assert "letmein" not in str(wrong)


WRONG_SECRETS: list[tuple[object, str]] = [
    ([], "1 to 2 secrets"),
    ([secret(), secret(25), secret(26)], "1 to 2 secrets"),
    ([secret(), "letmein"], "Number 2: Must be whsec_"),
    ([secret(23)], "Number 1: Must be whsec_"),
    ([secret(65)], "Number 1: Must be whsec_"),
    (["whsec_"], "Number 1: Must be whsec_"),
    ([secret(32).rstrip("=")], "Number 1: Must be whsec_"),
    ([f"{secret()}\n"], "Number 1: Must be whsec_"),
    ([f"whsec_{'-' * 32}"], "Number 1: Must be whsec_"),
    ([secret().removeprefix("whsec_")], "Number 1: Must be whsec_"),
    ([1], "Number 1: Must be a text"),
    (secret(), "Must be a list of texts"),
]


@pytest.mark.parametrize(("secrets", "says"), WRONG_SECRETS, ids=[each[1] for each in WRONG_SECRETS])
def test_a_wrong_secret_is_told_by_its_place(secrets: object, says: str) -> None:
    """And nothing of it, nor of the good one beside it."""
    written = repr(secrets).replace("'", '"')
    (wrong,) = told(table(f"events_url = '{URL}'\nevents_secrets = {written}")).wrong
    assert str(wrong).startswith("SERVICES_FILE [shop] events_secrets, line 5: ")
    assert says in wrong.message
    assert "letmein" not in str(wrong)
    assert secret()[6:] not in str(wrong)


@pytest.mark.parametrize(
    ("written", "keys", "says"),
    [
        ({"url": URL}, ["events_url"], "Needs events_secrets or events_secrets_file"),
        ({"url": URL, "secrets": [secret()], "secrets_file": "x"}, ["events_secrets_file"], "one of the two"),
        ({"secrets": [secret()]}, ["events_secrets"], "Needs events_url"),
        (
            {"secrets_file": "x", "private": False},
            ["events_secrets_file", "events_private"],
            "Needs events_url",
        ),
        ({"url": "x", "private": 1}, ["events_url", "events_private"], ""),
        ({"url": 1, "secrets": [secret()], "private": 1}, ["events_url", "events_private"], ""),
    ],
)
def test_half_of_what_events_need_is_wrong(written: dict[str, object], keys: list[str], says: str) -> None:
    """What is missing is told beside whatever else is wrong."""
    wrong = told(table(lines(**written))).wrong
    assert [each.where for each in wrong] == [f"SERVICES_FILE [shop] {key}" for key in keys]
    assert all(says in each.message and each.line for each in wrong)


def test_a_wrong_secret_without_a_url_is_told_in_one_line() -> None:
    """marshmallow keeps what is wrong with one of a list apart from what is wrong with the list."""
    (wrong,) = told(table("events_secrets = [1]")).wrong
    assert "Number 1: Must be a text" in wrong.message
    assert "Needs events_url" in wrong.message


# The file with secrets


def read_with(folder: Path, secrets_file: str, content: str | None = None) -> Reading:
    """What is read of a table that names a file with secrets, which holds this."""
    path = folder / "services.toml"
    path.write_text(table(lines(url=URL, secrets_file=secrets_file)))
    if content is not None:
        (folder / secrets_file).write_text(content)
    return read_disk(Settings(mail_default_sender=SENDER, services_file=str(path)))


@pytest.mark.parametrize("absolute", [False, True], ids=["beside", "absolute"])
def test_secrets_may_lie_in_a_file_of_their_own(tmp_path: Path, absolute: bool) -> None:
    """Beside SERVICES_FILE, or where an orchestrator mounts secrets; one a line."""
    for content in (secret(), f"\ufeff{secret()}\r\n\n  {secret(64)}\n"):
        reading = read_with(tmp_path, str(tmp_path / "hooks") if absolute else "hooks", content)
        assert reading.wrong == []
        events = reading.services[1].events
        assert events is not None
        assert list(events.secrets) == [secret(), secret(64)][: len(events.secrets)]
        assert len(events.secrets) == content.count("whsec_")


CONTENTS = [
    ("", "1 to 2 secrets"),
    ("\n".join(secret(octets) for octets in (24, 25, 26)), "1 to 2 secrets"),
    (f"{secret()}\nletmein", "In it, number 2: Must be whsec_"),
    ("letmein" * 1000, "Is larger than 4 KiB"),
]


@pytest.mark.parametrize(("content", "says"), CONTENTS, ids=[each[1] for each in CONTENTS])
def test_what_a_file_with_secrets_may_hold_is_told_without_showing_it(
    tmp_path: Path, content: str, says: str
) -> None:
    """At the key that names it."""
    (wrong,) = read_with(tmp_path, "hooks", content).wrong
    assert str(wrong).startswith("SERVICES_FILE [shop] events_secrets_file, line 5: ")
    assert says in wrong.message
    assert "letmein" not in str(wrong)


MISSING: dict[str, Callable[[Path], object]] = {
    "no such file": lambda path: None,
    "it is a folder": lambda path: path.mkdir(),
    "Is no UTF-8": lambda path: path.write_bytes(b"whsec_\xff"),
}


@pytest.mark.parametrize("says", MISSING)
def test_a_file_with_secrets_that_cannot_be_read_is_told(tmp_path: Path, says: str) -> None:
    """Why, and where it is named."""
    MISSING[says](tmp_path / "hooks")
    (wrong,) = read_with(tmp_path, "hooks").wrong
    assert says in wrong.message
    assert wrong.where == "SERVICES_FILE [shop] events_secrets_file"


@pytest.mark.parametrize("name", ["", " ", "../hooks", "/run/../hooks", "a\\u0000b"])
def test_a_path_that_leads_elsewhere_is_told(name: str) -> None:
    """An absolute one is of the operator's choice, one that climbs is a mistake."""
    text = table(f'events_url = "{URL}"\nevents_secrets_file = "{name}"')
    (wrong,) = told(text).wrong
    assert "beside SERVICES_FILE, or an absolute path" in wrong.message


def test_all_files_with_secrets_together_have_a_bound(tmp_path: Path) -> None:
    """Every worker holds them."""
    source = Source("", {}, tmp_path, {f"{turn}": "x" * 4096 for turn in range(512)})
    (tmp_path / "hooks").write_text(secret())
    with pytest.raises(Exception, match="too large"):
        source.secrets("hooks")


def test_workers_agree_on_secrets_whatever_becomes_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that starts later signs as the others do; a reload reads the file anew."""
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path / "shared"))

    def secrets_of_a_new_worker() -> tuple[str, ...]:
        settings = Settings(mail_default_sender=SENDER, services_file=str(tmp_path / "services.toml"))
        events = InForce(settings).read().services[1].events
        assert events is not None
        return events.secrets

    read_with(tmp_path, "hooks", secret())
    monkeypatch.setenv(RELOAD, "1")
    assert secrets_of_a_new_worker() == (secret(),)
    (tmp_path / "hooks").write_text(secret(64))
    assert secrets_of_a_new_worker() == (secret(),)
    (tmp_path / "hooks").unlink()
    assert secrets_of_a_new_worker() == (secret(),)
    (tmp_path / "hooks").write_text(secret(64))
    monkeypatch.setenv(RELOAD, "2")
    assert secrets_of_a_new_worker() == (secret(64),)


def test_neither_url_nor_secrets_are_in_what_an_endpoint_says_of_itself() -> None:
    """A log line or a traceback might show it."""
    assert secret()[6:] not in repr(endpoint(url=URL, secrets=[secret()]))
