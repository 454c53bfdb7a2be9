"""What the services are read from: the text of SERVICES_FILE, and the templates and secrets that it names.

A source remembers what it has read, so that a worker that starts later can be given the same. All sizes have
bounds, and reading never waits: what is no regular file, such as a FIFO, is refused.
"""

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import orjson

from app.config import Settings

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Of SERVICES_FILE: some ten thousand services."""

MAX_TEMPLATES_LENGTH: Final = 8 * 1024 * 1024
"""Characters of all templates together: each worker holds them, and so does the workers' folder in memory."""

MAX_SECRETS_BYTES: Final = 4096
"""Of one file with secrets: two have less than 200."""

MAX_SECRETS_LENGTH: Final = 2 * 1024 * 1024
"""Characters of all of them together, for the same reason: some ten thousand services."""

MAIL_TEMPLATES: Final = ""
"""Stands for the folder that the environment names; none beside SERVICES_FILE is called so."""

TEMPLATE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.(html|txt|toml)")
"""Names of the files that are read."""

MAX_TEMPLATE_BYTES: Final = 256 * 1024
MAX_TEMPLATES: Final = 100
"""In one folder: a language is one file, so this is more than there are languages with mails."""


class Source:
    """`text`: what is in SERVICES_FILE; None where there is no such setting."""

    def __init__(
        self,
        text: str | None,
        folders: Mapping[str, Mapping[str, str]],
        beside: Path | None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """`folders`: the templates that are known, by folder; `secrets`: the texts that are, by file. Others
        are read from the folder `beside`; where that is None there are no others."""
        self.text = text
        self._folders = dict(folders)
        self._secrets = dict(secrets or {})
        self._beside = beside

    @classmethod
    def on_disk(cls, settings: Settings) -> Self:
        """As the files are now. Raises Unreadable for SERVICES_FILE."""
        path = Path(settings.services_file)
        text = read_text(path, MAX_FILE_BYTES) if settings.services_file else None
        return cls(text, {}, path.parent)

    def templates(self, folder: str, path: Path | None = None) -> Mapping[str, str]:
        """The templates in a folder beside SERVICES_FILE, or in the folder `path`. Raises Unreadable."""
        if folder not in self._folders:
            found = read_templates(path or self._beside / folder) if self._beside else {}
            self._folders[folder] = found
            texts = (text for each in self._folders.values() for text in each.values())
            if sum(map(len, texts)) > MAX_TEMPLATES_LENGTH:
                raise Unreadable("With this folder, the templates of all services are too large.")
        return self._folders[folder]

    def secrets(self, file: str) -> str:
        """The text of a file with secrets: beside SERVICES_FILE, or anywhere by an absolute path. Raises
        Unreadable."""
        if file not in self._secrets:
            if self._beside is None:
                raise Unreadable("Was not read when the services were.")
            self._secrets[file] = read_text(self._beside / file, MAX_SECRETS_BYTES)
            if sum(map(len, self._secrets.values())) > MAX_SECRETS_LENGTH:
                raise Unreadable("With this file, the secrets of all services are too large.")
        return self._secrets[file]

    def to_json(self) -> bytes:
        return orjson.dumps({"text": self.text, "folders": self._folders, "secrets": self._secrets})

    @classmethod
    def from_json(cls, content: bytes) -> Self | None:
        """What `to_json` gave; None for what is broken."""
        try:
            found = orjson.loads(content)
            folders = {
                str(folder): {str(name): str(text) for name, text in templates.items()}
                for folder, templates in found["folders"].items()
            }
            secrets = {str(file): str(text) for file, text in found["secrets"].items()}
            text = found["text"]
            return cls(text if text is None else str(text), folders, None, secrets)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


class Unreadable(Exception):
    """The message says what the file or folder must be. It names files, and shows nothing of what is in
    them."""


def read_text(path: Path, at_most: int) -> str:
    """The text of a UTF-8 file, without a byte order mark. Raises Unreadable."""
    try:
        with open(path, "rb", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable("Must be a file, and is something else.")
            content = file.read(at_most + 1)
        if len(content) > at_most:
            raise Unreadable(f"Is larger than {at_most // 1024} KiB.")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("Is no UTF-8.") from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"Cannot be read: {reason(error)}.") from error


def read_templates(folder: Path) -> Mapping[str, str]:
    """The templates in a folder, by file name; other files and folders in it are left alone. Raises
    Unreadable."""
    try:
        names = sorted(path.name for path in folder.iterdir() if TEMPLATE.fullmatch(path.name))
    except (OSError, ValueError) as error:
        raise Unreadable(f"Must be a readable folder: {reason(error)}.") from error
    if len(names) > MAX_TEMPLATES:
        raise Unreadable(f"Holds more than {MAX_TEMPLATES} templates.")
    return {name: _template(folder, name) for name in names}


def _template(folder: Path, name: str) -> str:
    try:
        return read_text(folder / name, MAX_TEMPLATE_BYTES)
    except Unreadable as error:
        raise Unreadable(f"In it, {name}: {error}") from error


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def reason(error: OSError | ValueError) -> str:
    """Why, in the words of the system and without the path."""
    if isinstance(error, ValueError):  # a NUL in the path
        return "no such path"
    if error.errno == errno.EISDIR:
        return "it is a folder"
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__
