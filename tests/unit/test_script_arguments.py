"""The arguments of every Lua script have the names by which the script binds them, in its order."""

import re
from typing import NamedTuple

import pytest

from app.repositories import scripts
from app.storage.scripts import SCRIPTS, Key, Keys, Script, Values, script
from tests.support.servers import ROOT

LOCALS = re.compile(r"^local ([\w, ]+?) =\s*(.+?)(?:\s+--.*)?$", re.MULTILINE)
ARGUMENT = re.compile(r"(KEYS|ARGV)\[(\d+)\]")
FILES = {path.stem: path.read_bytes() for path in (ROOT / "app/repositories/lua").glob("*.lua")}
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


def files_of(text: bytes) -> list[str]:
    """The Lua files of which a script is made, in their order. The constants stand before them."""
    assert text.startswith(scripts.CONSTANTS)
    text, found = text.removeprefix(scripts.CONSTANTS), []
    while text:
        (name,) = (name for name, lua in FILES.items() if text.startswith(lua))
        text = text.removeprefix(FILES[name])
        found.append(name)
    return found


def test_every_lua_file_is_part_of_a_script_and_every_script_ends_with_one_of_its_own() -> None:
    """No file is without a call, and no call without a file. What several scripts share stands before."""
    made_of = [files_of(found.text) for found in OURS.values()]
    assert {name for names in made_of for name in names} == set(FILES)
    last = [names[-1] for names in made_of]
    assert len(last) == len(set(last))
    shared = {name for names in made_of for name in names[:-1]}
    assert shared.isdisjoint(last)


def test_what_scripts_share_takes_no_arguments() -> None:
    """Only the file that a call is named after binds KEYS and ARGV."""
    shared = {name for found in OURS.values() for name in files_of(found.text)[:-1]}
    assert shared
    assert [name for name in shared if ARGUMENT.search(FILES[name].decode())] == []


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
