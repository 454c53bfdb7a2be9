"""SERVICES_FILE: from its text to checked tables, and to everything that is wrong in it, with table, key and
line.

No message shows a value: it may be a secret, or the digest of one.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from marshmallow import ValidationError

from app.directory.table import TableSchema
from app.domain.service import DEFAULT, SERVICE_ID

FILE: Final = "SERVICES_FILE"

Tables = dict[str, dict[str, Any]]

MAY_BE_SHOWN: Final = re.compile("[A-Za-z0-9_-]{1,32}")
"""Names of tables and keys. A longer word may be a key or a digest that stands in the wrong place."""

LONG_WORD: Final = re.compile(r"\S{33,}")

HEADER: Final = re.compile(r"\s*\[\[?(?P<names>[^\]]+)\]")
KEY: Final = re.compile(r"""\s*(?P<names>["']?[^\s"'=#\[\]{},]+["']?)\s*=""")

SCHEMA: Final = TableSchema()


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that is wrong. `where`: a setting, or SERVICES_FILE with table and key. `line`: 0 = none.
    `table`: its name as it is."""

    where: str
    line: int
    message: str
    table: str = ""

    def __str__(self) -> str:
        return f"{self.where}{f', line {self.line}' if self.line else ''}: {self.message}"


class Lines:
    """Where tables and keys stand.

    tomllib tells lines of syntax errors only, so this looks for lines that begin with `[table]` or `key =`.
    What looks so inside a text of several lines is taken for one, and a key within braces is not found: then
    the line of its table is told. It is a hint for a person, and nothing is decided by it.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _lines(self) -> dict[str, int]:
        found: dict[str, int] = {}
        table: list[str] = []
        for number, line in enumerate(self._text.split("\n"), 1):
            names: list[str] = []
            if header := HEADER.match(line):
                names = table = _parts(header["names"])
            elif key := KEY.match(line):
                names = table + _parts(key["names"])
            for depth in (1, 2):  # [a.b] also begins the table a
                found.setdefault(".".join(names[:depth]), number)
        return found

    def of(self, table: str, key: str = "") -> int:
        """0 where it is not found."""
        return self._lines.get(f"{table}.{key}") or self._lines.get(table, 0)


def _parts(names: str) -> list[str]:
    """Names that have dots between them, without quotes and spaces."""
    return re.sub(r"""["'\s]""", "", names).split(".")


def parse(text: str) -> tuple[Tables, list[Wrong]]:
    """What is valid in each table, and what is wrong. Raises nothing."""
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, [_syntax(error)]
    lines = Lines(text)
    tables: Tables = {}
    wrong: list[Wrong] = []
    for name, table in found.items():
        wrong += _name_problems(name, lines)
        try:
            tables[name] = SCHEMA.load(table)
        except ValidationError as error:
            wrong += _key_problems(name, error, lines)
            tables[name] = _valid_part(error)
    return tables, wrong


def _valid_part(error: ValidationError) -> dict[str, Any]:
    """Of a list that is wrong nothing: what is left of it would no longer stand in its place."""
    valid: Any = error.valid_data
    return {key: value for key, value in (valid or {}).items() if key not in error.messages}


def _name_problems(name: str, lines: Lines) -> Iterator[Wrong]:
    if name == DEFAULT:
        yield at(lines, name, "", "This is the service of the environment: choose another name.")
    elif not re.fullmatch(SERVICE_ID, name):
        yield at(lines, name, "", "The name must be 1 to 32 characters of a-z, 0-9 and -, a letter first.")


def _key_problems(name: str, error: ValidationError, lines: Lines) -> Iterator[Wrong]:
    by_key: Any = error.messages
    for key, messages in by_key.items():
        yield at(lines, name, "" if key == "_schema" else key, " ".join(_told(messages)))


def _told(messages: Any) -> Iterator[str]:
    """marshmallow's messages: a list, or for a list of values those of each by its place, and under `_schema`
    those of the whole."""
    if isinstance(messages, dict):
        for place, each in messages.items():
            of = "" if place == "_schema" else f"Number {place + 1}: "
            yield f"{of}{' '.join(each)}"
    else:
        yield from messages


def at(lines: Lines, table: str, key: str, message: str) -> Wrong:
    """What is wrong with a table, or with one of its keys."""
    line = lines.of(table, key)
    where = f"{FILE} [{shown(table)}]{f' {shown(key)}' if key else ''}"
    return Wrong(where, line, message, table)


def shown(name: str) -> str:
    """The name of a table or key, where it cannot be a secret in the wrong place."""
    return name if MAY_BE_SHOWN.fullmatch(name) else "…"


def _syntax(error: Exception) -> Wrong:
    """tomllib's message says where, and quotes at most names."""
    if isinstance(error, RecursionError):
        return Wrong(FILE, 0, "Is no TOML that can be read: it is nested too deeply.")
    message = LONG_WORD.sub("…", str(error))
    place = re.search(r" \(at line (\d+), column \d+\)$", message)
    line = int(place[1]) if place else 0
    return Wrong(FILE, line, f"Is no TOML: {message[: place.start()] if place else message}.")
