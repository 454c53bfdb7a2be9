"""What the tab of mails reads: services, languages, faults; and that it reads them anew."""

from pathlib import Path

import pytest

from app.config import LANGUAGES, Settings
from app.mail.languages import built_in
from dev.playground.mails import BUILT_IN, EXAMPLE, Mails, files, in_scheme
from dev.run import ROOT

TABLE = f'[club]\nkeys = ["{"0" * 64}"]\nname = "The club"\n'


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of templates."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


@pytest.fixture
def services(tmp_path: Path) -> Path:
    """A services file with one table."""
    file = tmp_path / "services.toml"
    file.write_text(TABLE)
    return file


def faults(mails: Mails, service: str = "default") -> dict[str, list[str]]:
    return {mail["language"]: mail["faults"] for mail in mails.of(service)["mails"] if mail["faults"]}


def test_every_service_of_the_example_has_a_mail_in_every_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown where SERVICES_FILE is not set, and said to be an example."""
    monkeypatch.setenv(EXAMPLE, str(ROOT / "dev" / "services.toml"))
    mails = Mails(Settings())
    found = mails.of("")
    assert (found["service"], found["example"], found["faults"]) == ("default", True, [])
    assert [service["id"] for service in found["services"]] == ["default", "shop", "rehearsal"]
    assert [service["id"] for service in found["services"] if service["test"]] == ["rehearsal"]
    for service in found["services"]:
        shown = mails.of(service["id"])
        assert shown["service"] == service["id"]
        assert [mail["language"] for mail in shown["mails"]] == sorted(LANGUAGES)
        assert all("482 109 3753" in mail["text"] for mail in shown["mails"])


def test_ones_own_services_take_the_place_of_the_example(
    services: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SERVICES_FILE."""
    monkeypatch.setenv(EXAMPLE, str(ROOT / "dev" / "services.toml"))
    found = Mails(Settings(services_file=str(services))).of("club")
    assert ([service["id"] for service in found["services"]], found["example"]) == (
        ["default", "club"],
        False,
    )


def test_a_fault_names_file_line_and_variable(own: Path) -> None:
    """In the place of the mail that has it, and of no other; also where it is looked at alone."""
    mails = Mails(Settings(mail_templates=str(own)))
    (own / "es.toml").write_text('\ntitle = "Hola {nombre}"\n')
    assert faults(mails) == {"es": ["es.toml, line 2: title asks for {nombre}; it may have {service}."]}
    assert "it may have {service}" in (mails.html("default", "es", "light") or "")
    (own / "es.toml").unlink()
    (own / "number.html").write_text("<p>{{ number }}</p>\n<p>{{ numbr }}</p>\n")
    assert faults(mails) == {
        language: ["number.html, line 2: 'numbr' is undefined."] for language in LANGUAGES
    }


def test_a_wrong_table_is_told_and_the_right_services_are_shown(services: Path) -> None:
    """So is a file that is no template."""
    mails = Mails(Settings(services_file=str(services)))
    services.write_text(TABLE + 'color = "green"\n')
    found = mails.of("club")
    assert ([service["id"] for service in found["services"]], len(found["mails"])) == (["default"], 7)
    (fault,) = found["faults"]
    assert fault.startswith("SERVICES_FILE [club] color, line 4:")
    folder = services.parent / "club"
    folder.mkdir()
    (folder / "letter.txt").write_text("Hello")
    services.write_text(TABLE + 'templates = "club"\n')
    assert mails.of("default")["faults"] == []
    found = mails.of("club")
    assert found["faults"] == ["letter.txt: Must be number.html, number.txt or <language tag>.toml."]
    assert found["mails"] == []


def test_all_files_of_a_mail_are_watched(own: Path, services: Path) -> None:
    """The built-in ones, those of MAIL_TEMPLATES, the services file, and the folders that it names."""
    services.write_text(TABLE + 'templates = "club"\n')
    folder = services.parent / "club"
    folder.mkdir()
    for path in (own / "nl.toml", folder / "es.toml"):
        path.write_text("")
    watched = set(files(Settings(mail_templates=str(own), services_file=str(services))))
    assert {
        services,
        own / "nl.toml",
        folder / "es.toml",
        BUILT_IN / "en.toml",
        BUILT_IN / "number.html",
    } <= watched


def test_a_change_is_read_and_gives_another_version(own: Path, services: Path) -> None:
    """Without a change the version stays."""
    mails = Mails(Settings(mail_templates=str(own), services_file=str(services)))
    first = mails.of("club")["version"]
    assert mails.version() == first
    (own / "en.toml").write_text('title = "Welcome to {service}"\n')
    assert mails.version() != first
    assert "Welcome to" in (mails.html("club", "en", "light") or "")


def test_built_in_templates_are_read_anew_too() -> None:
    """At each look, once."""
    mails = Mails(Settings())
    for look in (lambda: mails.of("default"), lambda: mails.html("default", "es", "dark")):
        built_in()
        look()
        assert built_in.cache_info().misses == 1


def test_a_scheme_is_shown_whatever_the_browser_has() -> None:
    """What the page asks is answered; how it asks matters not."""
    page = "<head><style>@media (prefers-color-scheme:dark) and (min-width: 5px) {}</style></head>"
    assert "(min-width: 0) and" in in_scheme(page, "dark")
    assert "(max-width: 0) and" in in_scheme(page, "light")
    assert "color-scheme: dark !important" in in_scheme(page, "dark")
