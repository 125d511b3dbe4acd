"""What earlier runs left on disk: stored failures, which of them are replayed, and what was in flight in a crash."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_alignment import options
from pytest_alignment.journal import Crash, Journal, crashes
from pytest_alignment.results import Key

if TYPE_CHECKING:
    from pytest_alignment.envelope import Envelope
    from pytest_alignment.store import Store

NODEID = pytest.StashKey[str]()
"""An item's node id as collected: pytest-xdist may add a group's name to it later."""


class Archive:
    """The store and the journals, read when they are first asked for.

    Parameters
    ----------
    config : pytest.Config
    replay : str or None
        The id that is replayed, "all", or None in a plain run.
    say : callable
        Told of what cannot be read or written, and of what it is about.

    Attributes
    ----------
    journal : Journal
        This process's own.
    """

    def __init__(self, config: pytest.Config, replay: str | None, say: Callable[[str, str], None]) -> None:
        self._config, self.replay = config, replay
        self._say = say
        self.journal = Journal(self._home / "journal", lambda message: say(message, "journal"))

    @property
    def where(self) -> str:
        """The store's directory, as short as it can be said, or what else chooses a store."""
        if self._config.hook.pytest_alignment_database.get_hookimpls():
            return "of pytest_alignment_database"
        return os.path.relpath(self._home / "examples", self._config.rootpath)

    @property
    def _home(self) -> Path:
        return options.directory(self._config) / ".alignment"

    @cached_property
    def store(self) -> Store:
        """The store of failing perturbations; imports Hypothesis.

        Raises
        ------
        pytest.UsageError
            If the hook returned something else than a database.
        """
        from pytest_alignment.store import Directory, Store, database

        chosen = database(self._config.hook.pytest_alignment_database(config=self._config))
        return Store(chosen or Directory(str(self._home / "examples")), lambda message: self._say(message, "store"))

    @cached_property
    def crashes(self) -> dict[Key, list[Crash]]:
        """What processes that died were training, by assertion."""
        found: dict[Key, list[Crash]] = {}
        for crash in crashes(self.journal.folder):
            if isinstance(crash, str):
                self._say(crash, "journal")
            else:
                found.setdefault(crash.key, []).append(crash)
        return found

    @cached_property
    def kept(self) -> list[Envelope]:
        """What the store held when this process first asked: one for each assertion, with all its failures."""
        return self.store.envelopes()

    @property
    def stored(self) -> list[Envelope]:
        """Every stored failure by itself."""
        return [one for envelope in self.kept for one in envelope.each()]

    @cached_property
    def wanted(self) -> list[Envelope]:
        """The stored failures to replay: none in a plain run."""
        asked = self.replay
        return [one for one in self.stored if asked in (options.ALL, one.id)] if asked else []

    def check_replay(self) -> None:
        """Refuse an id that the store does not have.

        Raises
        ------
        pytest.UsageError
        """
        asked = self.replay
        if asked in (None, options.ALL) or self.wanted:
            return
        have = [f"{e.id} ({e.key.nodeid})" for e in self.stored]
        raise pytest.UsageError(
            f"--alignment-replay={asked}: the store {self.where} has no such failure; "
            f"{'it has ' + ', '.join(have) if have else 'it is empty'}"
        )

    def select(self, items: list[pytest.Item]) -> None:
        """Deselect, in a replay, every test but those whose stored failures are asked for."""
        if self.replay is None:
            return
        nodeids = {envelope.key.nodeid for envelope in self.wanted}
        chosen = [item for item in items if item.stash.get(NODEID, item.nodeid) in nodeids]
        if rest := [item for item in items if item not in chosen]:
            self._config.hook.pytest_deselected(items=rest)
        items[:] = chosen
