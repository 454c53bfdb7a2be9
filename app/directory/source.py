"""What the services are read from: the text of SERVICES_FILE and the templates beside it.

A source remembers what it has read, so that a worker that starts later can be given the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import orjson

from app.config import Settings
from app.directory.disk import Unreadable, read_templates, read_text

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Of SERVICES_FILE: some ten thousand services."""

MAX_TEMPLATES_LENGTH: Final = 8 * 1024 * 1024
"""Characters of all templates together: each worker holds them, and so does the workers' folder in memory."""

MAIL_TEMPLATES: Final = ""
"""Stands for the folder that the environment names; none beside SERVICES_FILE is called so."""


class Source:
    """`text`: what is in SERVICES_FILE; None where there is no such setting."""

    def __init__(
        self, text: str | None, folders: Mapping[str, Mapping[str, str]], beside: Path | None
    ) -> None:
        """`folders`: the templates that are known, by folder. Others are read in the folder `beside`; where
        that is None there are no others."""
        self.text = text
        self._folders = dict(folders)
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
            if (
                sum(len(text) for each in self._folders.values() for text in each.values())
                > MAX_TEMPLATES_LENGTH
            ):
                raise Unreadable("With this folder, the templates of all services are too large.")
        return self._folders[folder]

    def to_json(self) -> bytes:
        return orjson.dumps({"text": self.text, "folders": self._folders})

    @classmethod
    def from_json(cls, content: bytes) -> Self | None:
        """What `to_json` gave; None for what is broken."""
        try:
            found = orjson.loads(content)
            folders = {
                str(folder): {str(name): str(text) for name, text in templates.items()}
                for folder, templates in found["folders"].items()
            }
            text = found["text"]
            return cls(text if text is None else str(text), folders, None)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
