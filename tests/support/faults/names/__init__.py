"""A host name whose lookups hang. For processes that are started with its `environment`.

name = Name(tmp_path, "redis.test")
with gunicorn(tmp_path, {**name.environment, "REDIS_URL": f"redis://redis.test:{port}"}):
    with name.hanging():
        ...
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).parent / "path"
"""Python runs the `sitecustomize` in it at its start, before anything is imported."""


class Name:
    """Leads to 127.0.0.1, in processes with its environment only; their lookups can be made to hang."""

    def __init__(self, folder: Path, name: str) -> None:
        self._hangs = folder / f"{name}.hangs"
        self._asked = folder / f"{name}.asked"
        self._asked.touch()
        self.environment = {
            "PYTHONPATH": os.pathsep.join(
                [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])],
            ),
            "TESTS_NAME": name,
            "TESTS_NAME_HANGS": str(self._hangs),
            "TESTS_NAME_ASKED": str(self._asked),
        }

    @property
    def lookups(self) -> int:
        """How many were begun."""
        return self._asked.stat().st_size

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Lookups take as long as this lasts."""
        self._hangs.touch()
        try:
            yield
        finally:
            self._hangs.unlink()
