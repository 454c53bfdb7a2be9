"""House rules that no linter knows: objects of others are left alone, and every exception has its reason.

ruff's SLF001 finds the use of private names; this finds what it cannot see.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import app

ROOT = Path(app.__file__).parents[1]
MODULES = sorted(ROOT.glob("app/**/*.py"))
FILES = [*MODULES, ROOT / "wsgi.py", ROOT / "gunicorn.conf.py", ROOT / "gunicorn_worker.py"]

MAY_BE_SET = {
    "app.wsgi_app": "Flask: how a middleware is added",
    "app.url_map.merge_slashes": "Werkzeug: a setting of the map",
    "req.max_content_length": "Flask: the limit of one request",
    "found.lifetime": "dnspython: seconds that a resolver may take",
    "req.proxy_protocol_info": "gunicorn: what a worker hands from one request of a connection to the next",
    "job.registration": "ours: a job of app/services/delivery is passed on and brought up to date",
    "job.leased_at": "ours: likewise",
    "job.cause": "ours: likewise",
}
"""What may be set on another object: where its documentation says so, or where it is a class of ours."""

MAY_CALL_SETATTR = {"app/telemetry/lines.py": "Python: sys.stdout and sys.stderr may be replaced"}

DOCUMENTED_METHODS = {
    "_serialize": "marshmallow: what a field of one's own overrides",
    "_deserialize": "marshmallow: likewise",
}
"""Names with an underscore that a library's documentation tells its users to define."""

MAX_IGNORES = 10
IGNORE = re.compile(r"# type: ignore(?P<code>\[[a-z-]+\])?(?P<reason>.*)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def targets(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every attribute that is set or deleted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_attribute_is_set_on_what_belongs_to_others(path: Path) -> None:
    """An object sets its own attributes, a module those of its classes; others' only where they say so."""
    assert set_on_others(path) <= set(MAY_BE_SET)


def test_no_exception_outlives_its_reason() -> None:
    """What is set nowhere any more needs no leave."""
    assert set(MAY_BE_SET) == set().union(*map(set_on_others, FILES))


def set_on_others(path: Path) -> set[str]:
    found = list(targets(parsed(path)))
    own = {target.attr for target in found if is_own(target)}
    return {ast.unparse(target) for target in found if not is_own(target) and target.attr not in own}


def is_own(target: ast.Attribute) -> bool:
    return ast.unparse(target.value) in ("self", "cls")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_smuggled_past_the_dot(path: Path) -> None:
    """Neither setattr, vars() and __dict__, nor a private name in getattr or in an import."""
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Call(func=ast.Name(id="setattr" | "delattr" | "vars")):
                assert name(path) in MAY_CALL_SETATTR, f"line {node.lineno}: {ast.unparse(node)}"
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str(attr)), *_]
            ):
                assert not is_private(attr), f"line {node.lineno}: {ast.unparse(node)}"
            case ast.Attribute(attr="__dict__" | "__setattr__" | "__class__", ctx=ast.Store()):
                pytest.fail(f"line {node.lineno}: {ast.unparse(node)}")
            case ast.Attribute(attr="__dict__" | "__setattr__"):
                pytest.fail(f"line {node.lineno}: {ast.unparse(node)}")
            case ast.ImportFrom():
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                private += [part for part in (node.module or "").split(".") if part.startswith("_")]
                assert set(private) <= {"_typeshed"}, f"line {node.lineno}: {ast.unparse(node)}"


def heirs() -> Iterator[type]:
    """Every class of ours that has a base that is not."""
    modules = [module.name for module in pkgutil.walk_packages([str(ROOT / "app")], "app.")]
    for module in ["gunicorn_worker", *modules]:
        if module.endswith("__main__"):
            continue
        for found in vars(importlib.import_module(module)).values():
            if inspect.isclass(found) and found.__module__ == module and any(strangers(found)):
                yield found


def strangers(ours: type) -> list[type]:
    """Its bases from packages that are installed."""
    known = {"app", "gunicorn_worker", *sys.stdlib_module_names}
    return [base for base in ours.__mro__ if base.__module__.split(".")[0] not in known]


def test_no_private_name_is_overridden_or_inherited() -> None:
    """A subclass of a library's class keeps to the names that the library shows."""
    found = []
    for ours in heirs():
        tree = ast.parse(textwrap.dedent(inspect.getsource(ours)))
        own = {target.attr for target in targets(tree)} | defined(tree.body[0])
        theirs = {attribute for base in strangers(ours) for attribute in vars(base)}
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls", "super()")
        }
        wrong = (own & theirs) | (used - own)
        found += [f"{ours.__name__}.{attribute}" for attribute in wrong if is_private(attribute)]
    assert found == []


def defined(class_: ast.stmt) -> set[str]:
    """What the body of a class defines."""
    assert isinstance(class_, ast.ClassDef)
    names = {node.name for node in class_.body if isinstance(node, ast.FunctionDef)}
    for node in class_.body:
        if isinstance(node, ast.Assign):
            names |= {
                target.id
                for each in node.targets
                for target in ast.walk(each)
                if isinstance(target, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def is_private(attribute: str) -> bool:
    return attribute.startswith("_") and not attribute.endswith("__") and attribute not in DOCUMENTED_METHODS


def ignores() -> list[tuple[str, re.Match[str]]]:
    return [
        (f"{name(path)}:{number}", match)
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := IGNORE.search(line))
    ]


def test_every_type_ignore_says_what_and_why() -> None:
    """`# type: ignore[code] # the reason`."""
    silent = [
        where for where, match in ignores() if not match["code"] or len(match["reason"].strip(" #-")) < 10
    ]
    assert silent == []


def test_type_ignores_are_few() -> None:
    """Each is a place that mypy does not check."""
    assert len(ignores()) <= MAX_IGNORES


@pytest.mark.parametrize("path", [*FILES, *sorted(ROOT.glob("dev/**/*.py"))], ids=name)
def test_every_module_says_what_it_promises(path: Path) -> None:
    """In its first docstring."""
    assert ast.get_docstring(parsed(path))
