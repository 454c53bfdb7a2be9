"""What the directory reads from the disk: text files and folders of templates, with bounds.

Nothing here waits: what is no regular file, such as a FIFO, is refused and not opened to be read.
"""

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TEMPLATE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.(html|txt|toml)")
"""Names of the files that are read."""

MAX_TEMPLATE_BYTES: Final = 256 * 1024
MAX_TEMPLATES: Final = 100
"""In one folder: a language is one file, so this is more than there are languages with mails."""


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
