"""The batch in flight, on disk: after a process died while training, the next run knows what it was training."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pytest_alignment.envelope import Plain, UnreadableError, checked, key_of
from pytest_alignment.results import Key

try:
    import fcntl
except ImportError:  # Windows: nothing tells the journal of a dead process from a living one's, so none is kept
    fcntl = None  # type: ignore[assignment]

FORMAT = "alignment-checks journal"
ATTEMPTS = 8
"""To make a journal that nobody removes before it is locked."""
LARGEST = 2**24
"""Bytes of a journal."""
MOST = 2**16
"""Perturbations of a batch."""


@dataclass(frozen=True)
class Crash:
    """A batch that was in flight when its process died.

    Attributes
    ----------
    path : Path
        Where that is written.
    key : Key
        The assertion.
    batch : tuple of dict
        Its perturbations, as plain data.
    """

    path: Path
    key: Key
    batch: tuple[Plain, ...]

    def forget(self) -> None:
        """Remove what is written of it."""
        self.path.unlink(missing_ok=True)


class Journal:
    """One process's journal: a file that holds what it is training, and nothing while it trains nothing.

    Parameters
    ----------
    folder : Path
    say : callable
        Told, once, that nothing can be written there. Nothing is raised: the run is worth more than its journal.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder, say
        self._works = fcntl is not None
        self._ignored: Path | None = None
        self._file: IO[str] | None = None

    def begin(self, key: Key, batch: Sequence[Plain]) -> None:
        """Write what is about to be trained, down to the disk."""
        try:
            if self._works:
                self._write(key, batch)
        except OSError as error:
            self._works = False
            self._say(f"cannot be written ({error}): if this process dies, what it was training is lost")

    def _write(self, key: Key, batch: Sequence[Plain]) -> None:
        file = self._opened()
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"format": FORMAT, **key._asdict(), "batch": list(batch)}) + "\n")
        file.flush()
        os.fsync(file.fileno())

    def end(self) -> None:
        """Clear it: what was in flight has landed."""
        if self._file is not None:
            with suppress(OSError):
                self._file.seek(0)
                self._file.truncate()

    def close(self) -> None:
        """Remove the file, and the folders that were made for it and hold nothing else."""
        if self._file is None:
            return
        path, self._file = Path(self._file.name), self._file.close()
        path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
        with suppress(OSError):  # as where another process removes them at this moment
            if self._ignored is not None and list(self.folder.parent.iterdir()) == [self._ignored]:
                self._ignored.unlink()
                self.folder.parent.rmdir()

    def _opened(self) -> IO[str]:
        for _ in range(ATTEMPTS if self._file is None else 0):
            file = self._created()
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink > 0:
                self._file = file
                break
            file.close()  # removed before it was locked, by a process that took it for what a dead one left
        if self._file is None:
            raise OSError("it is removed as soon as it is made")
        return self._file

    def _created(self) -> IO[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        ignored = self.folder.parent / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n", encoding="utf-8")
            self._ignored = ignored
        path = self.folder / f"{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        return path.open("a+", encoding="utf-8")


def crashes(folder: Path) -> Iterator[Crash | str]:
    """Yield what processes that are no longer there were training, and in words what cannot be read."""
    for path in sorted(folder.glob("*.jsonl")) if fcntl is not None else ():
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                raise UnreadableError("is not a regular file")
            lines = _left(path)
            yield from (_crash(path, line) for line in lines)
        except FileNotFoundError:  # its process has ended meanwhile
            continue
        except (OSError, UnreadableError, RecursionError) as error:
            yield f"{path.name} {error}. Skipped; delete it"


def _left(path: Path) -> list[str]:
    """Return the lines of a journal, none where its process lives; an empty one is removed."""
    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        text = file.read(LARGEST + 1)
        if not text:
            path.unlink(missing_ok=True)  # locked still, so that whoever has it open sees that it is gone
    if len(text) > LARGEST:
        raise UnreadableError(f"is larger than {LARGEST} bytes")
    return [line for line in text.splitlines() if line.strip()]


def _crash(path: Path, line: str) -> Crash:
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise UnreadableError("is corrupt: it is not JSON") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise UnreadableError("is foreign: it is not a journal of alignment-checks")
    batch = fields.get("batch")
    if not isinstance(batch, list) or not 0 < len(batch) <= MOST:
        raise UnreadableError(f"is corrupt: its batch is {batch!a:.40}, expected a list of 1 to {MOST} perturbations")
    return Crash(path, key_of(fields), tuple(checked(one) for one in batch))
