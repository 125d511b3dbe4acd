"""What one process of a pytest run keeps: its options, the store, the running test and what that judged."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_alignment import options, results
from pytest_alignment.archive import NODEID, Archive
from pytest_alignment.decorated import innermost
from pytest_alignment.judged import Judged, settled
from pytest_alignment.notices import AlignmentInconclusiveWarning, warn
from pytest_alignment.results import Key
from pytest_alignment.threads import is_worker
from pytest_alignment.tracebacks import causes
from pytest_alignment.watching import Screen

if TYPE_CHECKING:
    from alignment_checks.verdict import Verdict
    from pytest_alignment.forecast import Forecast


class Ledger:
    """The plugin's state in one process, one for each pytest `Config`.

    Attributes
    ----------
    options : Options
    nodeid : str
        Of the running test, "" between tests.
    said : dict of str to None
        What the store, and others, had to say, in order, once each.
    replayed : dict of str to (Verdict, str)
        Of the running test, by id; with what is to be said of a setup that is not the one that failed.
    forecast : Forecast or None
        Of the running test, where it uses `@given`.
    died : dict of Key to str
        What a process died of in an assertion of the running test: none of its examples is then judged.
    tests : int
        How many tests were collected that use the fixture, selected or not: the same in every worker, and under -x.
    screen : Screen
    archive : Archive
    interrupted : list of str
        What a search that was interrupted had found, as lines.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options = options.read(config)
        self.worker = is_worker(config)
        self.nodeid = ""
        self.said: dict[str, None] = {}
        self.replayed: dict[str, tuple[Verdict, str]] = {}
        self.forecast: Forecast | None = None
        self.died: dict[Key, str] = {}
        self.tests = 0
        self._many = 1
        self.screen = Screen(config)
        self.archive = Archive(config, self.options.replay, self.say)
        self.interrupted: list[str] = []
        self._example: object = None
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lines: Counter[tuple[str, int]] = Counter()
        self._places: dict[Key, tuple[tuple[str, int], int]] = {}
        self._judged: list[Judged] = []
        self._unsent: list[tuple[str, str]] = []
        self._warned: set[Key] = set()
        self._drew = False

    # ------------------------------------------------------------------------------------------------ the running test

    @contextmanager
    def running(self, item: pytest.Item) -> Iterator[None]:
        """Name the running test while it runs."""
        self.nodeid = item.stash.get(NODEID, item.nodeid)
        self._many = _examples_of(item)
        try:
            yield
        finally:
            self.nodeid = ""
            self._forget()

    @contextmanager
    def foreseen(self, item: pytest.Function) -> Iterator[None]:
        """Find out what the examples of a `@given` test ask for, so that they are trained in batches."""
        if self.options.replay is not None or not _draws_alignment(item):
            yield
            return
        from pytest_alignment.dry import foreseen
        from pytest_alignment.forecast import Forecast

        self.forecast = forecast = Forecast()
        if any(key.nodeid == self.nodeid for key in self.archive.crashes):
            forecast.course.collecting = False  # each by itself, so that what the process dies of is known
        try:
            with foreseen(item, forecast.course, lambda message: self.say(message, "given")):
                yield
        finally:
            self.forecast = None
            if left_out := forecast.course.left_out:
                judged = forecast.course.examples - left_out
                self.say(f"{item.name} stopped early: the time ran out after {judged} examples", "given")
        if forecast.unjudged is not None:
            pytest.skip(forecast.unjudged)

    @contextmanager
    def foreseen_within(self, item: pytest.Item) -> Iterator[None]:
        """Find it out of a method of a `unittest.TestCase` too, which unittest itself calls, after `setUp`."""
        if not isinstance(item, pytest.Function) or not _draws_alignment(item) or not _is_of_unittest(item):
            yield
            return
        method = item.obj

        @functools.wraps(method)
        def foreseen() -> object:
            item.obj = method
            with self.foreseen(item):
                return method()

        item.obj = foreseen
        try:
            yield
        finally:
            item.obj = method

    def key(self, name: str, call: str, line: tuple[str, int]) -> Key:
        """Return the key of the assertion that a line is making; each example of `@given` counts from 0."""
        if (example := _example()) is not self._example:
            self._example, self._counts, self._lines = example, Counter(), Counter()
        self._counts[name, call] += 1
        self._lines[line] += 1
        key = Key(self.nodeid, name, call, self._counts[name, call] - 1)
        self._places[key] = line, self._lines[line]
        return key

    @property
    def share(self) -> float:
        """The part of its test's level that the assertion being made may spend: the k-th 1/(k(k+1)), in sum 1.

        Those of one example of `@given` share what an example has; all examples have as much.
        """
        made = max(1, sum(self._counts.values()))
        return 1 / (made * (made + 1) * self._many)

    @property
    def level(self) -> float:
        """The level of the assertion being made: its share of the part that each collected test has."""
        return self.options.level / max(1, self.tests) * self.share

    def seed(self, key: Key) -> int:
        """Return the seed of an assertion's draws: the same for the same assertion in every run and process."""
        text = json.dumps([*key, self.options.seed])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())

    def note(self, judged: Judged) -> None:
        """Remember what the running test judged, and where it did."""
        from pytest_alignment.examples import is_final, shrinks

        judged.place, final = self._places.get(judged.result.key), is_final()
        judged.again = shrinks() or (final and self._drew)
        self._drew = self._drew or not final
        self._judged.append(judged)

    @property
    def is_dry(self) -> bool:
        """Whether a `@given` test is run to see what it will ask for, of which nothing is kept."""
        return self.forecast is not None and self.forecast.course.collecting

    def pass_over(self, key: Key, instead: str, text: str) -> None:
        """Do what was asked for of a property that could not be judged, once however many examples that is true of."""
        if instead == "skipped" and self.forecast is not None:
            self.forecast.unjudged = self.forecast.unjudged or text
        elif instead == "warned" and key not in self._warned:
            self._warned.add(key)
            warnings.warn(AlignmentInconclusiveWarning(text), stacklevel=8)

    def attach(self, report: pytest.TestReport, excinfo: pytest.ExceptionInfo[BaseException] | None) -> None:
        """Put what the test judged on its report, as a string, so that it travels from a worker."""
        failed = causes(excinfo.value) if excinfo is not None and report.failed else []
        if self._judged or self._unsent:
            keep = report.when != "teardown" and self.options.replay is None
            found = settled(self._judged, failed, keep=keep)
            setattr(report, results.ATTRIBUTE, results.encoded(found, self._unsent))
        self._judged, self._unsent, self._drew = [], [], False
        if report.when == "teardown":
            self._forget()

    def _forget(self) -> None:
        self._example, self._counts, self._lines = None, Counter(), Counter()
        self._places.clear()
        self.replayed.clear()
        self._warned.clear()
        self.died.clear()

    def shown(self, nodeid: str) -> str:
        """Return a node id as it can be typed where pytest was called."""
        path, *rest = nodeid.split("::")
        here = os.path.relpath(self.config.rootpath / path, self.config.invocation_params.dir)
        return "::".join([Path(here).as_posix(), *rest])

    # -------------------------------------------------------------------------------------------- what there is to say

    def say(self, message: str, about: str = "store") -> None:
        """Warn, once, of something that the store or the like has to say; the journal has it in the summary alone."""
        line = f"{about}: {message}"
        if self.worker:
            self._unsent += [(message, about)] * (line not in self.said)
        elif line not in self.said and about != "journal":
            warn(self.config, message, about)
        self.said[line] = None


LEDGER = pytest.StashKey[Ledger]()


def _example() -> object:
    """Return what stands for the example that `@given` is running, None outside of one."""
    from hypothesis import control

    return control.current_build_context() if control.currently_in_test_context() else None


def _draws_alignment(item: pytest.Function) -> bool:
    """Return whether a test uses both `@given` and the fixture."""
    return hasattr(item, "obj") and hasattr(item.obj, "hypothesis") and "alignment" in item.fixturenames


def _is_of_unittest(item: pytest.Function) -> bool:
    """Return whether a test is a method of a `unittest.TestCase`."""
    from unittest import TestCase

    return isinstance(item.instance, TestCase)


def _examples_of(item: pytest.Item) -> int:
    """Return how many examples a test may run: 1 unless it uses `@given`."""
    chosen = getattr(innermost(getattr(item, "obj", None)), "_hypothesis_internal_use_settings", None)
    return 1 if chosen is None else max(1, int(chosen.max_examples))
