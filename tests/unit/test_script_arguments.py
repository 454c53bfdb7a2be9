"""The arguments of every Lua script have the names by which the script binds them, in its order."""

import re
from typing import NamedTuple

import pytest

from app.repositories import scripts
from app.storage.scripts import SCRIPTS, Key, Keys, Script, Values, script
from tests.support.servers import ROOT

LOCALS = re.compile(r"^local ([\w, ]+?) =\s*(.+?)(?:\s+--.*)?$", re.MULTILINE)
ARGUMENT = re.compile(r"(KEYS|ARGV)\[(\d+)\]")
OURS = {call: found for call, found in SCRIPTS.items() if call.__module__ == scripts.__name__}


def bound(text: str) -> dict[tuple[str, int], str]:
    """(KEYS or ARGV, index from 1) -> the local it is bound to."""
    found = {}
    for names, expressions in LOCALS.findall(text):
        for name, expression in zip(
            names.split(", "), re.split(r", (?![^()]*\))", expressions), strict=False
        ):
            if argument := ARGUMENT.search(expression):
                found[argument[1], int(argument[2])] = name
    return found


@pytest.mark.parametrize(("call", "found"), OURS.items(), ids=[call.__name__ for call in OURS])
def test_arguments_are_named_as_in_the_script(call: type, found: Script) -> None:
    """Each is bound in the first lines, and each that is bound is given. The last one may be many: then the
    header says from where on."""
    text = found.text.decode()
    many = {"KEYS": found.many_keys, "ARGV": found.many_values}
    for kind, names in (("KEYS", found.keys), ("ARGV", found.values)):
        fixed = names[:-1] if many[kind] else names
        positions = {index: name for (where, index), name in bound(text).items() if where == kind}
        assert positions == dict(enumerate(fixed, 1))
        indices = {int(index) for where, index in ARGUMENT.findall(text) if where == kind}
        assert max(indices, default=0) == len(fixed)
        assert (f"{kind}[{len(names)}..]" in text) == many[kind]


def test_every_script_has_a_call() -> None:
    """No Lua file is without one."""
    texts = {path.read_bytes() for path in (ROOT / "app/repositories/lua").glob("*.lua")}
    assert texts == {found.text for found in OURS.values()}


def test_many_keys_and_values_are_sent_one_after_the_other() -> None:
    """The number of keys tells Redis where the values begin."""

    @script(b"return 1")
    class Take(NamedTuple):
        user: Key
        numbers: Keys
        limit: int
        rest: Values

    call = Take(user="u", numbers=["a", "b"], limit=3, rest=["x", b"y", 1])
    assert SCRIPTS[Take].arguments(call) == (3, "u", "a", "b", 3, "x", b"y", 1)


def test_a_value_before_a_key_is_refused() -> None:
    """Redis takes keys first."""
    with pytest.raises(TypeError, match="before its values"):

        @script(b"return 1")
        class Wrong(NamedTuple):
            limit: int
            user: Key


def test_what_stands_for_any_number_comes_last() -> None:
    """Only then a script knows where it ends."""
    with pytest.raises(TypeError, match="comes last"):

        @script(b"return 1")
        class Wrong(NamedTuple):
            numbers: Keys
            user: Key
            limit: int
