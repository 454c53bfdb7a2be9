"""Services in a file, and the keys that open them."""

import hashlib
from pathlib import Path
from typing import Any

from app.config import Settings
from app.directory.reading import Reading, read
from app.directory.source import Source


def key_of(service: str) -> str:
    """The API key of a service."""
    return f"the-key-of-{service}"


def digest_of(service: str) -> str:
    """What its table holds of it."""
    return hashlib.sha256(key_of(service).encode()).hexdigest()


def services_file(folder: Path, /, **tables: dict[str, Any]) -> Path:
    """A SERVICES_FILE with these tables. Each has a key and a name, unless it says otherwise."""
    path = folder / "services.toml"
    path.write_text("\n".join(_table(name, table) for name, table in tables.items()))
    return path


def _table(name: str, table: dict[str, Any]) -> str:
    filled = {"keys": [digest_of(name)], "name": name.title(), **table}
    return "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in filled.items()), ""])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else repr(value)


SENDER = "Cedula <no-reply@example.com>"
A, B = "a" * 64, "b" * 64

ENVIRONMENT = Settings(mail_default_sender=SENDER, services_file="services.toml")


def told(text: str, settings: Settings = ENVIRONMENT) -> Reading:
    """What a file with this text says."""
    return read(settings, Source(text, {}, Path("/nonexistent")))


def table(more: str = "", name: str = "shop", key: str = A) -> str:
    return f'[{name}]\nkeys = ["{key}"]\nname = "Acme Shop"\n{more}\n'


def file_with_templates(folder: Path) -> Path:
    """A good file, with a folder of templates beside it."""
    path = folder / "services.toml"
    path.write_text(table('templates = "acme"\nlocale = "nl"'))
    (folder / "acme").mkdir()
    (folder / "acme" / "nl.toml").write_text("greeting = 'Hallo'")
    return path
