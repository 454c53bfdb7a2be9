"""SERVICES_FILE: what a table may say, what is told of a wrong one, and what is read beside it."""

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import ApiKey, Settings
from app.directory.file import parse
from app.directory.reading import Reading, read_disk
from app.domain.service import NO_LIMIT, Budget, Service
from app.mail.messages import faults
from tests.support.tenants import ENVIRONMENT, SENDER, A, B, file_with_templates, table, told


def service(more: str = "", settings: Settings = ENVIRONMENT) -> Service:
    reading = told(table(more), settings)
    assert reading.wrong == []
    return reading.services[1]


WHOLE = """
[shop]                                  # as in the documentation
keys = ["%s", "next:%s"]
name = "Acme Shop"
sender = "Acme <no-reply@acme.example>"
support = "help@acme.example"
color = "#0b6e4f"
logo = "https://acme.example/logo.png"
locale = "es"
subject_number = true
number_ttl = 600
address_limit = "3/hour"
verify_limit = "4/15 minutes"
client_limit = "10/second, 100/hour"
test = true
""" % (A, B.upper())  # noqa: UP031 - braces are TOML


def test_every_key_of_a_table_is_read() -> None:
    """And the keys are found by their names, a bare one by its place."""
    reading = told(WHOLE)
    assert reading.wrong == []
    assert asdict(reading.services[1]) == asdict(
        Service(
            id="shop",
            name="Acme Shop",
            sender="Acme <no-reply@acme.example>",
            support="help@acme.example",
            color="#0b6e4f",
            logo="https://acme.example/logo.png",
            locale="es",
            subject_number=True,
            ttl_s=600,
            address_limit=Budget(3, 3600),
            mailbox_limit=ENVIRONMENT.mailbox_limit,  # for what it has registered for real
            verify_limit=Budget(4, 900),
            client_limit=(Budget(10, 1), Budget(100, 3600)),
            test=True,
        )
    )
    assert {key: caller.key_name for key, caller in reading.keys.items()} == {A: "shop/1", B: "shop/next"}


def test_what_a_table_leaves_out_is_as_in_the_environment() -> None:
    """All of it; also what only the environment can say."""
    settings = Settings(
        mail_default_sender=SENDER,
        service_support="help@example.com",
        service_color="#123456",
        service_logo="https://example.com/x.png",
        default_locale="pt",
        subject_number=True,
        number_ttl_s=77,
        address_limit=Budget(1, 2),
        mailbox_limit=Budget(3, 4),
        verify_limit=Budget(5, 6),
        client_limit=(Budget(7, 8),),
        services_file="services.toml",
    )
    assert asdict(service(settings=settings)) == asdict(
        Service(
            id="shop",
            name="Acme Shop",
            sender="Acme Shop <no-reply@example.com>",
            support="help@example.com",
            color="#123456",
            logo="https://example.com/x.png",
            locale="pt",
            subject_number=True,
            ttl_s=77,
            address_limit=Budget(1, 2),
            mailbox_limit=Budget(3, 4),
            verify_limit=Budget(5, 6),
            client_limit=(Budget(7, 8),),
        )
    )


def test_an_empty_limit_is_none() -> None:
    """As in the environment."""
    found = service('address_limit = ""\nverify_limit = ""\nclient_limit = ""')
    assert (found.address_limit, found.verify_limit, found.client_limit) == (NO_LIMIT, NO_LIMIT, ())


@pytest.mark.parametrize(
    ("line", "sender"),
    [
        ('sender = "Acme <no-reply@acme.example>"', "Acme <no-reply@acme.example>"),
        ('sender = "no-reply@acme.example"', "Acme Shop <no-reply@acme.example>"),
        ("", "Acme Shop <no-reply@example.com>"),
        ('name = "Müller, \\"Söhne\\""', '"Müller, \\"Söhne\\"" <no-reply@example.com>'),
        ('name = "Acme, Inc."', '"Acme, Inc." <no-reply@example.com>'),
    ],
)
def test_a_mail_comes_from_the_service(line: str, sender: str) -> None:
    """Its own sender, or its name before the address of the environment."""
    text = table(line)
    if line.startswith("name"):
        text = text.replace('name = "Acme Shop"\n', "")
    assert told(text).services[1].sender == sender


@pytest.mark.parametrize(
    ("settings", "name", "sender"),
    [
        (Settings(mail_default_sender=SENDER), "Cedula", SENDER),
        (Settings(mail_default_sender="x@example.com"), "example.com", "x@example.com"),
        (Settings(mail_default_sender=SENDER, service_name="Acme"), "Acme", SENDER),
        (Settings(mail_default_sender="x@example.com", service_name="Acme"), "Acme", "Acme <x@example.com>"),
    ],
)
def test_the_default_service_is_named_by_the_environment(settings: Settings, name: str, sender: str) -> None:
    """SERVICE_NAME, else the sender's display name, else its domain."""
    (found,) = read_disk(settings).services
    assert (found.name, found.sender) == (name, sender)


WRONG = [
    ('name = "A\\nB"', "name", "printable"),
    (f'name = "{"x" * 61}"', "name", "1 to 60"),
    ('name = ""', "name", "1 to 60"),
    ('name = " "', "name", "1 to 60"),
    ('name = "\\u202e"', "name", "printable"),
    ("name = 3", "name", "text between quotes"),
    ("keys = []", "keys", "nobody could call"),
    (f'keys = "{A}"', "keys", "list of texts"),
    (f'keys = {{ a = "{A}" }}', "keys", "list of texts"),
    ('keys = ["x"]', "keys", "SHA-256"),
    ('keys = ["cedula_secret-key-in-clear"]', "keys", "SHA-256"),
    (f'keys = ["a b:{A}"]', "keys", "SHA-256"),
    (f'keys = [":{A}"]', "keys", "SHA-256"),
    (f'keys = ["{A}", 7]', "keys", "Number 2: Must be a text"),
    (f'keys = ["{A}", "x:{A}"]', "keys", "Number 2 is a key of [shop]"),
    ('sender = "nobody"', "sender", "Must be an address"),
    ('sender = "a@b.example, c@d.example"', "sender", "Must be an address"),
    ("sender = '\";@acme.example'", "sender", "Must be an address"),
    ('sender = "A\\r\\nBcc: x <a@b.example>"', "sender", "Must be an address"),
    ('sender = "A\\u2028B <a@b.example>"', "sender", "Must be an address"),
    ('support = "Help <help@acme.example>"', "support", "without a name"),
    ('support = "hélp@acme.example"', "support", "ASCII"),
    ('color = "0b6e4f"', "color", "#0b6e4f"),
    ('color = "#fff"', "color", "#0b6e4f"),
    ('logo = "http://acme.example/logo.png"', "logo", "https://"),
    ('logo = "https://user:pass@acme.example/"', "logo", "login"),
    ('logo = "https://acme.example/a b"', "logo", "spaces"),
    ("logo = 'https://acme.example/\"x'", "logo", "quotes"),
    ('logo = "https:///logo.png"', "logo", "https://"),
    ('logo = "https://acme.example:port/"', "logo", "https://"),
    ('logo = "https://[acme/"', "logo", "https://"),
    ('locale = "nl"', "locale", "no mails in this language, only: en, es, pt, fr, de, it, ar"),
    ('locale = "in French"', "locale", "language such as"),
    ("subject_number = 1", "subject_number", "true or false"),
    ('test = "yes"', "test", "true or false"),
    ("number_ttl = -1", "number_ttl", "greater than or equal to 0"),
    ("number_ttl = 99999999999", "number_ttl", "less than or equal to"),
    ("number_ttl = 1.5", "number_ttl", "whole number of seconds"),
    ("number_ttl = true", "number_ttl", "whole number of seconds"),
    ('number_ttl = "60"', "number_ttl", "whole number of seconds"),
    ('address_limit = "lots"', "address_limit", "limit such as"),
    ('address_limit = "1/hour, 2/day"', "address_limit", "one limit"),
    ("verify_limit = 3", "verify_limit", "text between quotes"),
    ('client_limit = "0/hour"', "client_limit", "limit such as"),
    ('templates = "/etc"', "templates", "beside SERVICES_FILE"),
    ('templates = "../x"', "templates", "beside SERVICES_FILE"),
    ('templates = "a/../../x"', "templates", "beside SERVICES_FILE"),
    ('templates = ""', "templates", "beside SERVICES_FILE"),
    ('templates = "a\\u0000b"', "templates", "beside SERVICES_FILE"),
    ('templates = "missing"', "templates", "no such file or directory"),
    ('colour = "#0b6e4f"', "colour", "no such key"),
    ("shop.x = 1", "shop", "no such key"),
]


@pytest.mark.parametrize(("line", "key", "says"), WRONG, ids=[f"{each[1]}: {each[0][:30]}" for each in WRONG])
def test_a_wrong_value_is_told_with_table_key_and_line(line: str, key: str, says: str) -> None:
    """One error for one mistake, and nothing of the value in it."""
    lines = ['["shop"]', f'keys = ["{A}"]', 'name = "Acme Shop"', f"  {line}"]
    if key in ("keys", "name"):
        lines = [each for each in lines if not each.startswith(f"{key} =")]
    (wrong,) = told("\n".join(lines)).wrong
    assert str(wrong).startswith(f"SERVICES_FILE [shop] {key}, line {len(lines)}: ")
    assert says in wrong.message
    assert A not in str(wrong)
    assert "cedula_secret" not in str(wrong)


NO_TABLE = [
    ("[default]\n" + table()[7:], "[default], line 1", "service of the environment"),
    (table(name="Shop"), "[Shop], line 1", "a-z, 0-9 and -"),
    (table(name="1shop"), "[1shop], line 1", "a letter first"),
    (table(name="s" * 33), "[…], line 1", "1 to 32"),
    (table() + "[x.y]\nz = 1", "[x] keys, line 5", "Must be set"),
    ("x = 1\n" + table(), "[x], line 1", "Must be a table"),
    ("[[x]]\n" + table(), "[x], line 1", "Must be a table"),
    (table() + table(name="bank"), "[bank] keys, line 6", "Number 1 is a key of [shop]"),
    ("[shop\n", ", line 1", "Is no TOML"),
    (table() + table(), ", line 5", "Is no TOML"),
    (table("number_ttl = 07"), ", line 4", "Is no TOML"),
    ("x = " + "[" * 100_000, "", "Is no TOML"),
    ("x = " + "9" * 5000, "", "Is no TOML"),
    ("x = 2024-13-01", "", "Is no TOML"),
    ("x = \x00", "", "Is no TOML"),
]


@pytest.mark.parametrize(
    ("text", "where", "says"), NO_TABLE, ids=[each[1] or each[0][:12] for each in NO_TABLE]
)
def test_what_is_no_table_is_told_with_its_line(text: str, where: str, says: str) -> None:
    """Names that are none, tables that are none, and what is no TOML."""
    found = [str(each) for each in told(text).wrong]
    assert any(each.startswith(f"SERVICES_FILE{' ' if where[:1] == '[' else ''}{where}") for each in found), (
        found
    )
    assert any(says in each for each in found), found


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    """Also what is seen only beside what is wrong already, and what is wrong with the settings themselves."""
    text = table("number_ttl = true") + table("color = 3", "bank") + table("", "Bad")
    settings = Settings(mail_default_sender=SENDER, services_file="x", default_locale="nl")
    message = str(told(text, settings).error)
    assert re.findall(r"^  ([^:]*):", message, re.MULTILINE) == [
        "DEFAULT_LOCALE",
        "SERVICES_FILE [shop] number_ttl, line 4",
        "SERVICES_FILE [bank] keys, line 6",
        "SERVICES_FILE [bank] color, line 8",
        "SERVICES_FILE [Bad], line 9",
        "SERVICES_FILE [Bad] keys, line 10",
    ]


def test_a_key_of_the_environment_is_no_service_s() -> None:
    """Who had it would be a question of luck."""
    settings = Settings(mail_default_sender=SENDER, services_file="x", api_keys=(ApiKey("me", A),))
    (wrong,) = told(table(), settings).wrong
    assert "Number 1 is a key of API_KEYS" in wrong.message


# Files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return file_with_templates(tmp_path)


def read_file(path: Path | str, **settings: Any) -> Reading:
    return read_disk(Settings(mail_default_sender=SENDER, services_file=str(path), **settings))


def test_templates_are_read_then_and_there(file: Path) -> None:
    """By file name; what is no template is left alone. A language that they bring can be chosen."""
    for name in ("readme.md", ".hidden.toml", "logo.png"):
        (file.parent / "acme" / name).write_bytes(b"\xff")
    (file.parent / "acme" / "old").mkdir()
    found = read_file(file)
    assert found.wrong == []
    assert found.services[1].templates == {"nl.toml": "greeting = 'Hallo'"}


def test_a_template_is_the_service_s_else_the_environment_s(file: Path, tmp_path: Path) -> None:
    """Each file by itself. The languages of MAIL_TEMPLATES are everybody's."""
    common = tmp_path / "common"
    common.mkdir()
    (common / "nl.toml").write_text("common")
    (common / "pt-BR.toml").write_text("common")
    file.write_text(file.read_text() + table('locale = "pt-BR"', "bank", B))
    default, shop, bank = read_file(file, mail_templates=str(common), default_locale="pt-BR").services
    assert default.templates == bank.templates == {"nl.toml": "common", "pt-BR.toml": "common"}
    assert shop.templates == {"nl.toml": "greeting = 'Hallo'", "pt-BR.toml": "common"}


def _remove(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _large(path: Path) -> None:
    with path.open("w") as file:
        file.truncate(4 * 1024 * 1024 + 1)


def _latin(path: Path) -> None:
    path.write_bytes(b'[shop]\nname = "M\xfcller"')


TROUBLES: dict[str, Callable[[Path], None]] = {
    "no such file": _remove,
    "it is a folder": _folder,
    "symbolic links": _loop,
    "something else": _fifo,
    "larger than 4096 KiB": _large,
    "no UTF-8": _latin,
}


@pytest.mark.parametrize("says", TROUBLES)
def test_a_file_that_cannot_be_read_is_said_to_be_so(file: Path, says: str) -> None:
    """Nothing is waited for, and not more is read than may be."""
    TROUBLES[says](file)
    (wrong,) = read_file(file).wrong
    assert wrong.where == "SERVICES_FILE"
    assert says in wrong.message


@pytest.mark.parametrize("says", TROUBLES)
def test_a_template_that_cannot_be_read_is_said_to_be_so(file: Path, says: str) -> None:
    """With table, key and line of its folder, and the name of the file."""
    path = file.parent / "acme" / "nl.toml"
    TROUBLES[says](path)
    wrong = read_file(file).wrong
    if says == "no such file":
        (language,) = wrong
        assert "no mails in this language" in language.message
        return
    found = next(each for each in wrong if each.where == "SERVICES_FILE [shop] templates")
    assert found.line == 4
    assert "nl.toml" in found.message
    assert says.replace("4096", "256") in found.message


@pytest.mark.parametrize("says", ["no such file", "symbolic links", "not a directory"])
def test_a_folder_of_templates_that_cannot_be_read_is_said_to_be_so(tmp_path: Path, says: str) -> None:
    """That of the environment, by the name of its setting."""
    folder = tmp_path / "mails"
    if says == "symbolic links":
        folder.symlink_to(folder)
    elif says == "not a directory":
        folder.touch()
    (wrong,) = read_disk(Settings(mail_default_sender=SENDER, mail_templates=str(folder))).wrong
    assert wrong.where == "MAIL_TEMPLATES"
    assert says in wrong.message


def test_templates_have_bounds(file: Path) -> None:
    """In number, and in all: every worker holds them."""
    folder = file.parent / "acme"
    for number in range(40):
        (folder / f"{number}.txt").write_text("x" * 250_000)
    (wrong,) = read_file(file).wrong[:1]
    assert "too large" in wrong.message
    for number in range(100):
        (folder / f"{number}.txt").write_text("x")
    (wrong,) = read_file(file).wrong[:1]
    assert "more than 100" in wrong.message


def test_a_byte_order_mark_does_no_harm(file: Path) -> None:
    """Some editors write one."""
    file.write_text("\ufeff" + file.read_text())
    assert read_file(file).wrong == []


def test_a_wrong_mail_is_an_error_of_the_file(file: Path, tmp_path: Path) -> None:
    """Where its table names its templates; and once for the settings, whose templates others share."""
    for folder in ("all", "shop"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "number.txt").write_text("{{ number }}")
    with file.open("a") as table:
        table.write(f'[bank]\nkeys = ["{"d" * 64}"]\nname = "Bank"\n')
    settings = Settings(
        mail_default_sender=SENDER, services_file=str(file), mail_templates=str(tmp_path / "all")
    )
    reading = read_disk(settings, lambda found, _: [f"{found.id}.html: no number"])
    assert [str(each) for each in reading.wrong] == [
        "MAIL_TEMPLATES: default.html: no number",
        "SERVICES_FILE [shop] templates, line 4: shop.html: no number",
    ]


def test_templates_that_fail_for_one_of_those_who_share_them_are_told(file: Path, tmp_path: Path) -> None:
    """The layout is good for `default`, which has no address for questions, and for nobody who has one."""
    common = tmp_path / "common"
    common.mkdir()
    (common / "number.txt").write_text("{{ number }}{% if service.support %}{{ suport }}{% endif %}")
    file.write_text(table() + table('support = "help@acme.example"', "bank", B))
    settings = Settings(mail_default_sender=SENDER, services_file=str(file), mail_templates=str(common))
    reading = read_disk(settings, faults)
    assert [str(each) for each in reading.wrong] == [
        "SERVICES_FILE [bank], line 5: number.txt, line 1: 'suport' is undefined.",
    ]


# Properties

WORDS = st.sampled_from(
    [
        "[shop]",
        "[",
        "]",
        "=",
        "keys",
        "name",
        '"',
        '"""',
        "'",
        "x",
        "1",
        "{",
        "}",
        ",",
        "\n",
        ".",
        "#",
        A,
        "true",
    ]
)


@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join), st.lists(WORDS).map("".join)))
def test_no_text_does_anything_but_be_read_or_refused(text: str) -> None:
    """Whatever an editor, a template engine or a disk makes of it."""
    reading = told(text)
    assert A not in str(reading.error)
    assert all(each.message for each in reading.wrong)


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(st.characters(exclude_categories=("Cs", "Cc"))),
)
VALUES = SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case _:
            return str(value)


KEYS = tuple(tomllib.loads(WHOLE)["shop"])


@given(st.dictionaries(st.sampled_from([*KEYS, "templates", "other"]), VALUES))
def test_values_of_any_type_are_read_or_refused(values: dict[str, Any]) -> None:
    """Never anything else."""
    text = "[shop]\n" + "\n".join(f"{key} = {toml(value)}" for key, value in values.items())
    tables, wrong = parse(text)
    assert tables.keys() == {"shop"}
    assert wrong  # a table of chance has no keys


NAMES = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=60)
LOCAL = st.from_regex(r"[a-z0-9.+_-]{1,20}", fullmatch=True)
ADDRESSES = st.builds("{}@{}.example".format, LOCAL, st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True))
LIMITS = st.builds(
    lambda amount, count: (f"{amount}/{count} minutes", Budget(amount, count * 60)),
    *[st.integers(1, 999)] * 2,
)
TABLES = st.fixed_dictionaries(
    {
        "keys": st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, unique=True),
        "name": NAMES,
    },
    optional={
        "support": ADDRESSES,
        "color": st.from_regex("#[0-9A-Fa-f]{6}", fullmatch=True),
        "locale": st.sampled_from(["en", "es", "pt", "fr", "de", "it", "ar"]),
        "subject_number": st.booleans(),
        "number_ttl": st.integers(0, 316_224_000),
        "test": st.booleans(),
    },
)


@given(TABLES, LIMITS)
def test_a_valid_table_comes_back_as_it_was_written(
    values: dict[str, Any], limit: tuple[str, Budget]
) -> None:
    """Every value arrives, and no other."""
    written = values | {"address_limit": limit[0]}
    reading = told("[shop]\n" + "\n".join(f"{key} = {toml(value)}" for key, value in written.items()))
    assert reading.wrong == []
    found = reading.services[1]
    assert list(reading.keys) == values["keys"]
    assert found.address_limit == limit[1]
    assert found.ttl_s == values.get("number_ttl", ENVIRONMENT.number_ttl_s)
    for key in ("name", "support", "color", "locale", "subject_number", "test"):
        assert getattr(found, key) == values.get(key, getattr(reading.services[0], key)) or key == "name"
    assert found.name == values["name"]
