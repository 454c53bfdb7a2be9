"""Settings: read from the environment, refused all at once, and silent about secrets."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import Settings
from app.domain.service import NO_LIMIT, Budget
from app.errors import SettingsError
from tests.support.servers import ROOT

SECRET = "a secret that is long enough to be one"
OTHER = "another secret that is long enough too"


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any setting; `setting.setenv` adds one."""
    for name in os.environ:
        if name not in ("PATH", "HOME", "TMPDIR", "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)
    return monkeypatch


def refusal() -> str:
    """The message with which the start is refused."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment()
    return str(refused.value)


def test_nothing_has_to_be_set(setting: pytest.MonkeyPatch) -> None:
    """The defaults of the settings table."""
    settings = Settings.from_environment()
    assert settings.redis_url == "redis://localhost:6379/0"
    assert settings.redis_timeout_s == 2
    assert settings.mail_port == 25
    assert settings.mail_timeout_s == 10
    assert settings.mail_connections == 32
    assert settings.mail_default_sender == f"no-reply@{socket.gethostname()}"
    assert settings.number_digits == 10
    assert settings.number_ttl_s == 86_400
    assert settings.mailbox_limit == Budget(20, 3600)
    assert settings.services_file == settings.service_name == ""
    assert settings.default_locale == "en"
    assert settings.docs
    assert settings.secret_key == settings.index_key == ""


def test_the_documentation_is_switched_off_by_a_word(setting: pytest.MonkeyPatch) -> None:
    """The only flag that is set where nothing is said."""
    setting.setenv("DOCS", "")
    assert Settings.from_environment().docs
    setting.setenv("DOCS", "false")
    assert not Settings.from_environment().docs


def test_an_empty_variable_counts_as_unset(setting: pytest.MonkeyPatch) -> None:
    """Compose files and manifests say "not set" that way."""
    for name in ("REDIS_URL", "SECRET_KEY", "MAIL_SERVER", "MAIL_PORT", "NUMBER_DIGITS", "MAIL_USE_TLS"):
        setting.setenv(name, "")
    assert Settings.from_environment().number_digits == 10


def test_every_wrong_setting_is_named_in_one_message(setting: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody should have to start five times to find five errors."""
    wrong = {
        "REDIS_URL": "http://localhost",
        "REDIS_TIMEOUT": "soon",
        "SECRET_KEY": "short",
        "MAIL_PORT": "70000",
        "MAIL_USE_TLS": "perhaps",
        "MAIL_TIMEOUT": "0",
        "MAIL_CONNECTIONS": "none",
        "MAIL_DEFAULT_SENDER": "nobody",
        "MAIL_CA_FILE": str(tmp_path / "missing.pem"),
        "BOUNCE_ADDRESS": "bounces-of-acme@acme.example",
        "SUPPRESS_TTL": "0",
        "DEFAULT_LOCALE": "in French",
        "SERVICE_NAME": "Acme\nShop",
        "SERVICE_SUPPORT": "Acme <help@acme.example>",
        "SERVICE_COLOR": "green",
        "SERVICE_LOGO": "http://acme.example/logo.png",
        "SUBJECT_NUMBER": "perhaps",
        "MAILBOX_LIMIT": "many",
        "NUMBER_DIGITS": "9",
        "NUMBER_TTL": "-1",
        "REDIS_WAIT_REPLICAS": "-1",
        "ADDRESS_LIMIT": "lots",
        "VERIFY_LIMIT": "5 in 15 minutes",
        "CLIENT_LIMIT": "-1/hour",
        "API_KEYS": "partner",
        "TRUSTED_PROXIES": "all",
        "IDEMPOTENCY_TTL": "0",
    }
    for name, value in wrong.items():
        setting.setenv(name, value)
    message = refusal()
    assert [name for name in wrong if f"\n  {name}: " not in message] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", f"http://user:{SECRET}@localhost"),
        ("REDIS_URL", f"redis://user:{SECRET}@localhost:port"),
        ("SECRET_KEY", "hunter2-hunter2"),
        ("SECRET_KEY", f"{SECRET}\udcff"),
        ("INDEX_KEY", "hunter2-hunter2"),
        ("INDEX_KEY", f"{SECRET}\udcff"),
        ("SECRET_KEY_FALLBACKS", f"{SECRET},hunter2-hunter2"),
        ("MAIL_PASSWORD", "hunter2-hunter2"),
        ("MAIL_DEFAULT_SENDER", "hunter2-hunter2"),
        ("API_KEYS", "hunter2-hunter2"),
    ],
)
def test_the_message_shows_no_secret(setting: pytest.MonkeyPatch, name: str, value: str) -> None:
    """It ends in the logs of whatever starts the service."""
    setting.setenv(name, value)
    message = refusal()
    assert "hunter2" not in message
    assert SECRET not in message


@pytest.mark.parametrize("digits", ["10", "18"])
def test_both_ends_of_the_number_of_digits_are_allowed(setting: pytest.MonkeyPatch, digits: str) -> None:
    """10 leaves 900,000 possibilities a shard, 18 still fits every counter."""
    setting.setenv("NUMBER_DIGITS", digits)
    assert Settings.from_environment().number_digits == int(digits)


@pytest.mark.parametrize("digits", ["9", "19", "12.5", "twelve"])
def test_other_numbers_of_digits_are_not(setting: pytest.MonkeyPatch, digits: str) -> None:
    """Fewer can be guessed."""
    setting.setenv("NUMBER_DIGITS", digits)
    assert "NUMBER_DIGITS" in refusal()


def test_a_setting_can_be_read_from_a_file(setting: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The way of container secrets; the line break at the end is not part of it."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    setting.setenv("SECRET_KEY_FILE", str(file))
    assert Settings.from_environment().secret_key == SECRET


def test_a_number_can_be_read_from_a_file(setting: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every setting has its `_FILE`, not only the secret ones."""
    file = tmp_path / "digits"
    file.write_text("14\n")
    setting.setenv("NUMBER_DIGITS_FILE", str(file))
    assert Settings.from_environment().number_digits == 14


def test_a_file_that_cannot_be_read_is_named(setting: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing file must not mean an empty secret."""
    setting.setenv("SECRET_KEY_FILE", str(tmp_path / "missing"))
    assert "SECRET_KEY_FILE: Must be the path of a readable text file." in refusal()


@pytest.mark.timeout(10)
def test_a_secret_s_file_that_is_a_fifo_is_told_and_not_waited_for(
    setting: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Opening one waits for whoever writes into it. Also gunicorn's configuration does not wait."""
    os.mkfifo(fifo := tmp_path / "fifo")
    setting.setenv("MAIL_TIMEOUT_FILE", str(fifo))
    assert "MAIL_TIMEOUT_FILE: Must be the path of a readable text file." in refusal()
    assert of_gunicorn("graceful_timeout", {"MAIL_TIMEOUT_FILE": str(fifo)}) == 30


def test_a_file_that_is_no_text_is_named(setting: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Random bytes are no characters."""
    file = tmp_path / "secret"
    file.write_bytes(b"\xff\xfe\x00" * 20)
    setting.setenv("SECRET_KEY_FILE", str(file))
    assert "SECRET_KEY" in refusal()


def test_an_empty_secret_file_is_refused(setting: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would silently store everything in clear."""
    file = tmp_path / "secret"
    file.write_text("\n")
    setting.setenv("SECRET_KEY_FILE", str(file))
    assert "SECRET_KEY" in refusal()


def test_a_setting_and_its_file_exclude_each_other(setting: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which of the two counts would be a guess."""
    file = tmp_path / "secret"
    file.write_text(OTHER)
    setting.setenv("SECRET_KEY", SECRET)
    setting.setenv("SECRET_KEY_FILE", str(file))
    message = refusal()
    assert "Set either SECRET_KEY or SECRET_KEY_FILE, not both." in message
    assert SECRET not in message
    assert OTHER not in message


def test_the_settings_show_no_secret_when_printed(setting: pytest.MonkeyPatch) -> None:
    """`repr` ends in tracebacks and debuggers."""
    secrets = {
        "REDIS_URL": "redis://cedula:the-redis-password@localhost/0",
        "SECRET_KEY": SECRET,
        "SECRET_KEY_FALLBACKS": OTHER,
        "INDEX_KEY": "yet another secret that is long enough",
        "MAIL_USERNAME": "the-mail-user",
        "MAIL_PASSWORD": "the-mail-password",
    }
    for name, value in secrets.items():
        setting.setenv(name, value)
    shown = repr(Settings.from_environment())
    assert [value for value in (*secrets.values(), "the-redis-password") if value in shown] == []


def test_the_index_key_is_the_secret_key_unless_it_is_set(setting: pytest.MonkeyPatch) -> None:
    """One secret is enough for the first start."""
    setting.setenv("SECRET_KEY", SECRET)
    assert Settings.from_environment().index_key == SECRET
    setting.setenv("INDEX_KEY", OTHER)
    assert Settings.from_environment().index_key == OTHER


def test_fallbacks_need_a_pinned_index_key(setting: pytest.MonkeyPatch) -> None:
    """Without it the new SECRET_KEY would name everybody anew, and nobody would be found again."""
    setting.setenv("SECRET_KEY", SECRET)
    setting.setenv("SECRET_KEY_FALLBACKS", OTHER)
    assert "INDEX_KEY: Must be set where SECRET_KEY_FALLBACKS is" in refusal()
    setting.setenv("INDEX_KEY", OTHER)
    assert Settings.from_environment().secret_key_fallbacks == (OTHER,)


def test_fallbacks_need_a_key_to_fall_back_from(setting: pytest.MonkeyPatch) -> None:
    """A fallback only opens; nothing would seal."""
    setting.setenv("SECRET_KEY_FALLBACKS", OTHER)
    setting.setenv("INDEX_KEY", OTHER)
    assert "SECRET_KEY_FALLBACKS: Needs SECRET_KEY" in refusal()


def test_fallbacks_may_be_several_with_spaces_between(setting: pytest.MonkeyPatch) -> None:
    """A space that became part of a key would leave its records closed."""
    setting.setenv("SECRET_KEY", "the newest secret that is forty characters long")
    setting.setenv("SECRET_KEY_FALLBACKS", f"{SECRET}, {OTHER},")
    setting.setenv("INDEX_KEY", OTHER)
    assert Settings.from_environment().secret_key_fallbacks == (SECRET, OTHER)


def test_a_secret_with_a_comma_is_refused(setting: pytest.MonkeyPatch) -> None:
    """It could never become a fallback: they are separated by commas."""
    setting.setenv("SECRET_KEY", f"{SECRET},{OTHER}")
    assert "SECRET_KEY: Must not hold a comma" in refusal()


def test_starttls_and_implicit_tls_exclude_each_other(setting: pytest.MonkeyPatch) -> None:
    """A connection begins in one of the two ways."""
    setting.setenv("MAIL_USE_TLS", "true")
    setting.setenv("MAIL_USE_SSL", "true")
    assert "MAIL_USE_TLS" in refusal()


def test_a_mail_user_without_a_password_is_half_a_login(setting: pytest.MonkeyPatch) -> None:
    """Nothing would be sent, and only the first registration would tell."""
    setting.setenv("MAIL_USERNAME", "cedula")
    assert "MAIL_USERNAME and MAIL_PASSWORD belong together." in refusal()


@pytest.mark.parametrize(
    "sender",
    ["no-reply@example.com", "Cedula <no-reply@example.com>", '"Müller, Söhne" <no-reply@example.com>'],
)
def test_a_sender_may_have_a_name(setting: pytest.MonkeyPatch, sender: str) -> None:
    """Also one with a comma and letters outside ASCII."""
    setting.setenv("MAIL_DEFAULT_SENDER", sender)
    assert Settings.from_environment().mail_default_sender == sender


@pytest.mark.parametrize("sender", ["nobody", "Cedula", "ä@example.com", "a@b.example\r\nBcc: c@d.example"])
def test_what_is_no_sender_is_refused(setting: pytest.MonkeyPatch, sender: str) -> None:
    """It stands in the envelope and in a header of every mail."""
    setting.setenv("MAIL_DEFAULT_SENDER", sender)
    assert "MAIL_DEFAULT_SENDER" in refusal()


def test_a_lease_is_two_mail_timeouts_and_five_seconds() -> None:
    """As long as a sender may be silent before another takes its place."""
    assert Settings(mail_timeout_s=10).lease_ms == 25_000


@pytest.mark.parametrize("name", ["ADDRESS_LIMIT", "VERIFY_LIMIT", "MAILBOX_LIMIT"])
@pytest.mark.parametrize(
    "value", ["0/hour", "5/0 hours", "5/00 hours", "5/15 minutes;20/day", "5/minute,20/day"]
)
def test_a_budget_that_would_not_hold_as_it_is_written_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Nought must not mean unlimited, and a second limit must not be dropped."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment()


@pytest.mark.parametrize("value", ["a b@c>d.e", "x@y z", "x@y.z, q@w.e", "nobody"])
def test_a_sender_that_would_be_read_as_another_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """One address, and the one that is written."""
    monkeypatch.setenv("MAIL_DEFAULT_SENDER", value)
    with pytest.raises(SettingsError, match="MAIL_DEFAULT_SENDER"):
        Settings.from_environment()


@pytest.mark.parametrize("suffix", ["", "_FILE"])
def test_the_looks_of_the_default_service_are_settings_like_all_others(
    setting: pytest.MonkeyPatch, tmp_path: Path, suffix: str
) -> None:
    """Each as itself or in a file."""
    looks = {
        "SERVICE_NAME": "Müller & Söhne",
        "SERVICE_SUPPORT": "help@acme.example",
        "SERVICE_COLOR": "#0B6e4f",
        "SERVICE_LOGO": "https://acme.example/logo.png?v=2",
        "SUBJECT_NUMBER": "true",
        "SERVICES_FILE": "services.toml",
    }
    for name, value in looks.items():
        (tmp_path / name).write_text(f"{value}\n")
        setting.setenv(name + suffix, str(tmp_path / name) if suffix else value)
    found = Settings.from_environment()
    assert found.service_name == looks["SERVICE_NAME"]
    assert found.service_support == looks["SERVICE_SUPPORT"]
    assert (found.service_color, found.service_logo) == (looks["SERVICE_COLOR"], looks["SERVICE_LOGO"])
    assert (found.subject_number, found.services_file) == (True, "services.toml")


def test_an_empty_limit_of_the_mailbox_is_none(setting: pytest.MonkeyPatch) -> None:
    """As for the other limits."""
    setting.setenv("MAILBOX_LIMIT", "")
    assert Settings.from_environment().mailbox_limit == NO_LIMIT


@pytest.mark.parametrize("language", ["en", "pt-BR", "zh-Hant-TW", "gsw"])
def test_any_well_formed_language_may_be_the_default(setting: pytest.MonkeyPatch, language: str) -> None:
    """Whether there are mails in it is seen where templates are read."""
    setting.setenv("DEFAULT_LOCALE", language)
    assert Settings.from_environment().default_locale == language


@pytest.mark.parametrize(
    ("address", "keyed", "wrong"),
    [
        ("bounce@acme.example", True, False),
        ("11-of-these@acme.example", True, False),
        ("12-of-these-@acme.example", True, True),
        ("Acme <bounce@acme.example>", True, True),
        ("bounce@acme.example", False, True),
    ],
)
def test_a_bounce_address_has_room_for_a_tag_and_a_key_to_make_it(
    setting: pytest.MonkeyPatch, address: str, keyed: bool, wrong: bool
) -> None:
    """64 octets are allowed before the @; a tag that anybody could make would prove nothing."""
    setting.setenv("BOUNCE_ADDRESS", address)
    if keyed:
        setting.setenv("INDEX_KEY", SECRET)
    if wrong:
        assert "\n  BOUNCE_ADDRESS: " in refusal()
    else:
        assert Settings.from_environment().bounce_address == address


@pytest.mark.parametrize(
    ("setting", "seconds"),
    [({"MAIL_TIMEOUT": "50"}, 110), ({"MAIL_TIMEOUT_FILE": "50\n"}, 110), ({"MAIL_TIMEOUT": "inf"}, 30)],
    ids=str,
)
def test_a_worker_that_ends_has_the_time_that_its_mails_may_take(
    setting: dict[str, str], seconds: int, tmp_path: Path
) -> None:
    """However MAIL_TIMEOUT is given. A wrong one is left to the service, which tells of it."""
    for name, value in setting.items():
        if name.endswith("_FILE"):
            (tmp_path / name).write_text(value)
            setting[name] = str(tmp_path / name)
    assert of_gunicorn("graceful_timeout", setting) == seconds


def test_no_workers_are_as_many_as_where_nothing_is_said() -> None:
    """Else gunicorn would listen, and nobody would answer."""
    assert of_gunicorn("workers", {"WEB_CONCURRENCY": "0"}) == of_gunicorn("workers", {}) > 0


def of_gunicorn(name: str, environment: dict[str, str]) -> int:
    """A whole number in gunicorn's configuration."""
    run = f"import runpy; print(runpy.run_path('gunicorn.conf.py')['{name}'])"
    found = subprocess.run(
        [sys.executable, "-c", run],
        cwd=ROOT,
        env={"FLASK_SKIP_DOTENV": "1", **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert found.stderr == ""
    return int(found.stdout)
