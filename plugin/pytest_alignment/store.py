"""The store of failing perturbations: envelopes in a Hypothesis `ExampleDatabase`, all under one key."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase

from pytest_alignment.envelope import LARGEST, Envelope, UnreadableError
from pytest_alignment.results import Key

KEY = b"alignment-checks"
MOST = 2**12
"""Values that are read of a store."""
Say = Callable[[str], None]


class Store:
    """Stored failures. What cannot be read is named and skipped, never deleted; what cannot be written is said.

    Parameters
    ----------
    database : ExampleDatabase
    say : callable
        Told, in a sentence, of whatever went wrong. Nothing is raised.
    """

    def __init__(self, database: ExampleDatabase, say: Say) -> None:
        self.database, self.say = database, say

    def envelopes(self) -> list[Envelope]:
        """Return every stored failure that can be read, in an order that is the same everywhere."""
        found = [envelope for _, envelope in self._readable()]
        return sorted(found, key=lambda envelope: (envelope.key, envelope.id))

    def keep(self, plain: object) -> None:
        """Keep a failure, and forget what was kept of the same assertion."""
        envelope = Envelope.from_dict(plain)
        value = envelope.to_bytes()
        self._changed(keep=value, drop=[old for old in self._of(envelope.key) if old != value])

    def forget(self, key: Key) -> None:
        """Forget what is kept of an assertion."""
        self._changed(keep=None, drop=self._of(key))

    def _of(self, key: Key) -> list[bytes]:
        return [value for value, envelope in self._readable() if envelope.key == key]

    def _readable(self) -> list[tuple[bytes, Envelope]]:
        found = []
        for value in self._fetched():
            try:
                found.append((value, Envelope.from_bytes(value)))
            except UnreadableError as error:
                self.say(f"{_named(value)} in the store {error}. Skipped; delete it, or upgrade alignment-checks")
        return found

    def _fetched(self) -> list[bytes]:
        try:
            values = list(islice(self.database.fetch(KEY), MOST + 1))
        except Exception as error:
            self.say(f"the store cannot be read ({error}): no stored failure is tried")
            return []
        if len(values) > MOST:
            self.say(f"the store holds more than {MOST} failures: the others are not tried")
        return values[:MOST]

    def _changed(self, *, keep: bytes | None, drop: list[bytes]) -> None:
        """Save before deleting, so that nothing is lost in between; databases swallow errors, so look afterwards."""
        try:
            if keep is not None:
                self.database.save(KEY, keep)
            for value in drop if keep is None or keep in self._fetched() else []:
                self.database.delete(KEY, value)
            left = self._fetched()
            reason = "" if keep is None or keep in left else "it is read-only"
            if keep is None and set(drop) & set(left):
                self.say("the store is read-only: what no longer fails stays in it, and is tried first again")
        except Exception as error:
            reason = str(error)
        if reason:
            self.say(f"the store cannot be changed ({reason}): this run's failures cannot be replayed by their ids")


class Directory(DirectoryBasedExampleDatabase):
    """A directory of files below one that keeps itself out of version control."""

    def fetch(self, key: bytes) -> Iterator[bytes]:
        """Yield what regular files hold, of large ones the beginning: a link is not followed, a pipe not waited for."""
        folder = Path(self.path) / _named(key)
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            with suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    with path.open("rb") as file:
                        value = file.read(LARGEST + 1)
                    yield value

    def save(self, key: bytes, value: bytes) -> None:
        """Save as a file.

        Raises
        ------
        OSError
            If the directory cannot be made.
        """
        home = Path(self.path).parent
        home.mkdir(parents=True, exist_ok=True)
        ignored = home / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n", encoding="utf-8")
        super().save(key, value)


def database(chosen: object) -> ExampleDatabase | None:
    """Return what the hook `pytest_alignment_database` gave, checked.

    Raises
    ------
    pytest.UsageError
    """
    if chosen is None or isinstance(chosen, ExampleDatabase):
        return chosen
    raise pytest.UsageError(
        "pytest_alignment_database: expected a hypothesis.database.ExampleDatabase, or None for the directory; got "
        f"{type(chosen).__name__} {chosen!r:.60}"
    )


def _named(value: bytes) -> str:
    """Return the name of a value: that of its file, where the database is a directory."""
    return hashlib.sha384(value).hexdigest()[:16]
