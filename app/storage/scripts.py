"""Lua scripts with named arguments.

A script is declared once, as a NamedTuple whose fields are its KEYS and ARGV in the order of the Lua file:

    @script(text)
    class HoldLock(NamedTuple):
        lock: Key
        owner: str
        ttl_ms: int

    storage.run(HoldLock(lock="cedula:relay", owner=owner, ttl_ms=1000))
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeVar, get_type_hints

Value = str | bytes | int

_KEY, _KEYS, _VALUES = object(), object(), object()
Key = Annotated[str, _KEY]
Keys = Annotated[Sequence[str], _KEYS]
"""Any number of keys; the last field of KEYS."""
Values = Annotated[Sequence[Value], _VALUES]
"""Any number of values; the last field."""

C = TypeVar("C", bound=type)


class Script(NamedTuple):
    """What is sent of a script. `name`: its call's. `keys`, `values`: its fields, in order. `many_keys`,
    `many_values`: the last of them stands for any number.

    `acknowledged`: a client relies on its outcome, so it waits for replicas where that is asked for.
    """

    name: str
    text: bytes
    sha1: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
    many_keys: bool
    many_values: bool
    acknowledged: bool

    def arguments(self, call: tuple[Any, ...]) -> tuple[Any, ...]:
        """The number of keys, the keys and the values."""
        keys, values = call[: len(self.keys)], call[len(self.keys) :]
        if self.many_keys:
            keys = (*keys[:-1], *keys[-1])
        if self.many_values:
            values = (*values[:-1], *values[-1])
        return (len(keys), *keys, *values)


SCRIPTS: Final[dict[type, Script]] = {}
"""Every script, by the class of its calls."""


def script(text: bytes, *, acknowledged: bool = False) -> Callable[[C], C]:
    """Declares a NamedTuple as the call of a Lua script."""

    def declare(call: C) -> C:
        marks = {
            name: getattr(hint, "__metadata__", (None,))[0]
            for name, hint in get_type_hints(call, include_extras=True).items()
        }
        keys = tuple(name for name, mark in marks.items() if mark in (_KEY, _KEYS))
        values = tuple(name for name in marks if name not in keys)
        if (*keys, *values) != tuple(marks):
            raise TypeError("the keys of a script come before its values")
        many = {name for name, mark in marks.items() if mark in (_KEYS, _VALUES)}
        if not many <= {*keys[-1:], *values[-1:]}:
            raise TypeError("what stands for any number comes last")
        SCRIPTS[call] = Script(
            name=call.__name__,
            text=text,
            sha1=hashlib.sha1(text, usedforsecurity=False).hexdigest(),
            keys=keys,
            values=values,
            many_keys=not many.isdisjoint(keys),
            many_values=not many.isdisjoint(values),
            acknowledged=acknowledged,
        )
        return call

    return declare
