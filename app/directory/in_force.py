"""Which services are in force: the workers of one gunicorn agree, and a file that is wrong changes nothing.

gunicorn.conf.py makes a folder in memory that its workers share, and counts its starts and reloads (SIGHUP).
The first worker after each of them reads the files. What it finds good, or else what was in force before, it
puts into the folder, and every other worker takes it from there: also one that starts much later, because
another has died. So workers never differ, even where the files change meanwhile. At the first start nothing
was in force before: then a wrong file stops the start.

Without the folder (another server than gunicorn, another configuration, nowhere to write) each process reads
for itself when it starts. Under `--preload` the master reads too, and what it has read is the last resort of
its workers.
"""

import contextlib
import os
import secrets
from functools import partial
from pathlib import Path
from typing import Final, Self

import structlog

from app.config import Settings
from app.directory.reading import Check, Reading, nothing_else, read, read_disk
from app.directory.source import Source, reason
from app.telemetry.board import FOLDER

RELOAD: Final = "CEDULA_RELOAD"
"""A number that grows with each start and reload; set by gunicorn.conf.py."""

PREFIX: Final = "services-"
"""Of the files in the folder: one for each start or reload that is remembered, by its number."""

REMEMBERED: Final = 2
"""So many of them: a worker may have looked which there are just before another puts the next one."""

owner_only = partial(os.open, mode=0o600)

log = structlog.get_logger()


class InForce:
    """Reads the services for one process, and again in those that it forks."""

    def __init__(self, settings: Settings, check: Check = nothing_else) -> None:
        self._settings, self._check = settings, check
        self._held: Source | None = None
        self._own_start = secrets.token_hex(8)

    @property
    def start(self) -> str:
        """Names this start or reload: one for all workers of a gunicorn; elsewhere, of this process and its
        children. A reload changes it also in what a master has loaded (`--preload`)."""
        return os.environ.get(RELOAD) or self._own_start

    def read(self) -> Reading:
        """What is in force. Raises SettingsError, which lists all that is wrong, where nothing can be."""
        shared = _Shared.of_this_gunicorn()
        agreed = shared.agreed() if shared else None
        reading = read(self._settings, agreed, self._check) if agreed else self._decide(shared)
        if reading.wrong:
            raise reading.error
        self._held = reading.source
        return reading

    def share_again(self) -> None:
        """Puts what this process holds into the folder, which was removed and is there again."""
        shared = _Shared.of_this_gunicorn()
        if shared and self._held:
            shared.agree_on(self._held)

    def _decide(self, shared: "_Shared | None") -> Reading:
        """The files as they are now; where something is wrong in them, what was in force before, if
        anything."""
        reading = read_disk(self._settings, self._check)
        if reading.wrong:
            before = self._before(shared)
            if before is None:
                return reading
            wrong = [str(each) for each in reading.wrong]
            log.error(
                "services_wrong", wrong=wrong, hint="what was in force before stays; correct it and reload"
            )
            reading = before
        overtaken_by = shared.agree_on(reading.source) if shared else None
        return read(self._settings, overtaken_by, self._check) if overtaken_by else reading

    def _before(self, shared: "_Shared | None") -> Reading | None:
        for source in (shared.newest() if shared else None, self._held):
            if source:
                reading = read(self._settings, source, self._check)
                if not reading.wrong:
                    return reading
        return None


class _Shared:
    """The folder of the workers. No method raises: what cannot be written is not shared."""

    def __init__(self, folder: Path, reload: int) -> None:
        self._folder, self._reload = folder, reload

    @classmethod
    def of_this_gunicorn(cls) -> Self | None:
        """None where there is no folder."""
        folder, reload = os.environ.get(FOLDER), os.environ.get(RELOAD)
        return cls(Path(folder), int(reload)) if folder and reload else None

    def agreed(self) -> Source | None:
        """What the first worker of this start or reload has put in force."""
        return self._read(self._reload)

    def newest(self) -> Source | None:
        """What was put in force last: before this reload, or meanwhile by a worker that was faster."""
        return next((found for each in self._remembered() if (found := self._read(each))), None)

    def agree_on(self, source: Source) -> Source | None:
        """Puts this in force. Where another worker was faster, what that one has put; else None.

        A link is made whole and once: of many workers one succeeds, and none sees half of it.
        """
        draft = self._folder / f"{PREFIX}{self._reload}.{os.getpid()}"
        try:
            with open(draft, "wb", opener=owner_only) as file:
                file.write(source.to_json())
            self._path(self._reload).hardlink_to(draft)
        except FileExistsError:
            return self.agreed()
        except OSError as error:
            log.warning("services_not_shared", reason=reason(error), hint="workers read for themselves")
            return None
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
        for each in self._remembered()[REMEMBERED:]:
            with contextlib.suppress(OSError):
                self._path(each).unlink()
        return None

    def _remembered(self) -> list[int]:
        """The starts and reloads whose agreement is kept, the newest first."""
        names = (path.name.removeprefix(PREFIX) for path in self._folder.glob(f"{PREFIX}*"))
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)  # else it is a draft

    def _path(self, reload: int) -> Path:
        return self._folder / f"{PREFIX}{reload}"

    def _read(self, reload: int) -> Source | None:
        try:
            return Source.from_json(self._path(reload).read_bytes())
        except OSError:
            return None
