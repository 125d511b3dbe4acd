"""What is seen of a search while it goes on: a live line, the first failure at once, and the journal of its batches."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from alignment_checks.exploration.progress import Progress
    from alignment_checks.inference.judgement import Judgement
    from alignment_checks.perturbations import Perturbation
    from pytest_alignment.journal import Journal
    from pytest_alignment.results import Key

SOON = 1.0
"""Seconds after which a search shows itself."""
OFTEN = 0.1
"""Seconds between two states of a live line."""
SELDOM = 30.0
"""Seconds between two lines where there is no terminal."""
_ERASE = "\r\x1b[2K"


class Screen:
    """Where progress is shown: pytest's terminal, past its capture. Nowhere in a worker, and with -q.

    Parameters
    ----------
    config : pytest.Config
    now : callable
        The clock, in seconds.
    """

    def __init__(self, config: pytest.Config, now: Callable[[], float] = time.monotonic) -> None:
        self._config, self._now = config, now
        self._last = -SELDOM
        self._live = False

    @property
    def _reporter(self) -> Any:
        if self._config.get_verbosity() < 0 or hasattr(self._config, "workerinput"):
            return None
        return self._config.pluginmanager.get_plugin("terminalreporter")

    def begin(self) -> None:
        """Begin a search: where there is no terminal, one that is over soon shows nothing of itself."""
        self._last = -SELDOM if self._is_terminal else self._now()

    def show(self, line: Callable[[], str]) -> None:
        """Show where a search stands, if it is time to."""
        if self._now() - self._last < OFTEN:
            return
        reporter, wait = self._reporter, OFTEN if self._is_terminal else SELDOM
        if reporter is not None and self._now() - self._last >= wait:
            self._last = self._now()
            with self._past_capture():
                self._line(reporter, line())

    def tell(self, line: str) -> None:
        """Print a line that stays."""
        if (reporter := self._reporter) is not None:
            self.clear()
            with self._past_capture():
                self._write(reporter, line)

    def clear(self) -> None:
        """Take the live line away."""
        if self._live:
            self._live = False
            with self._past_capture():
                self._reporter.write(_ERASE, flush=True)

    @property
    def _is_terminal(self) -> bool:
        return bool(getattr(self._reporter, "isatty", False))

    def _line(self, reporter: Any, line: str) -> None:
        if not self._is_terminal:
            self._write(reporter, line)
            return
        if not self._live:
            reporter.ensure_newline()
        self._live = True
        reporter.write(_ERASE + line[: shutil.get_terminal_size().columns - 1], flush=True)

    @staticmethod
    def _write(reporter: Any, line: str) -> None:
        reporter.ensure_newline()
        reporter.write_line(line)
        reporter.flush()

    @contextmanager
    def _past_capture(self) -> Iterator[None]:
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if capture is None:
            yield
        else:
            with capture.global_and_fixture_disabled():
                yield


class Watching:
    """What an assertion passes on as `watch=`.

    Parameters
    ----------
    screen : Screen
    journal : Journal
    key : Key
        Of the assertion.
    name : str
        Of the test, as a user types it.
    max_time : float or None
    also : callable, optional
        The user's own.
    foreseen : bool
        Whether what trains is told by the forecast of a `@given` test, and not here.
    """

    def __init__(
        self,
        screen: Screen,
        journal: Journal,
        key: Key,
        name: str,
        max_time: float | None,
        also: Callable[[Progress], None] | None = None,
        *,
        foreseen: bool = False,
    ) -> None:
        self._screen, self._journal, self._key, self._name = screen, journal, key, name
        self._max_time, self._also, self._foreseen = max_time, also, foreseen
        self._told = False
        self._began, self._process = time.monotonic(), os.getpid()
        screen.begin()
        self.latest: Progress | None = None
        self._latest_at = self._began

    def __call__(self, progress: Progress) -> None:
        """Take note of where the search stands."""
        self.latest, self._latest_at = progress, time.monotonic()
        if progress.in_flight and not self._foreseen:
            self.launching(progress.in_flight)
        elif not progress.in_flight:
            self._journal.end()
        if progress.seconds >= SOON:
            self._show(progress)
        if self._also is not None:
            self._also(progress)

    def beat(self, step: int, steps: int) -> None:
        """Show how far the batch in flight is; of several processes that train, the first one's."""
        if time.monotonic() - self._began >= SOON and os.getpid() == self._process:
            self._screen.show(lambda: f"{self._standing()}, step {step} of {steps}")

    def _standing(self) -> str:
        if self.latest is None:
            return self._name + ": training"
        return standing(self._name, self.latest, self._max_time, since=time.monotonic() - self._latest_at)

    def launching(self, batch: Sequence[Perturbation]) -> None:
        """Write down what is about to be trained."""
        from pytest_alignment.portable import plain

        self._journal.begin(self._key, [plain(delta) for delta in batch])

    def over(self) -> None:
        """Leave nothing behind of a search that has ended, however it did."""
        self._journal.end()
        self._screen.clear()

    @property
    def found(self) -> str | None:
        """What failed so far, as a line for people."""
        if self.latest is None or self.latest.smallest is None:
            return None
        delta, judgement = self.latest.smallest
        return f"{_failing('smallest failing δ so far   ', delta)}      {_how_far(judgement)}"

    def _show(self, progress: Progress) -> None:
        if progress.first is not None and not self._told:
            self._told = True
            delta, judgement = progress.first
            then = "" if delta.is_identity else "; looking for the smallest"
            self._screen.tell(f"{self._name} {_failing('fails at ', delta)}: {_how_far(judgement)}{then}")
        self._screen.show(lambda: standing(self._name, progress, self._max_time))


def _failing(words: str, delta: Perturbation) -> str:
    """Return `words` and the perturbation that fails, without the parts that do nothing; or that it takes none."""
    from alignment_checks.perturbations.composition import acting

    return "fails unperturbed" if delta.is_identity else words + acting(delta).described()


def _how_far(judgement: Judgement) -> str:
    """Return by how much it fails: by its name where it is no deviation, such as a bound that is missed."""
    return judgement.note or f"off by {judgement.deviation:+.4g}, allowed {judgement.allowed:.4g}"


def standing(name: str, progress: Progress, max_time: float | None, since: float = 0.0) -> str:
    """Return one line that says where a search stands, some seconds since it last said so itself.

    Examples
    --------
    >>> from alignment_checks.exploration.progress import Progress
    >>> standing("test_it", Progress((), False, 2, 50, 100, 80, 0, None, None, 20.0), None)
    'test_it: 80 runs, 4.0 runs/s, 0 failures, about 20 s left'
    """
    parts = [f"{progress.runs} runs", f"{progress.runs / max(progress.seconds, 1e-9):.1f} runs/s"]
    parts.append(f"{progress.failures} failure{'s' * (progress.failures != 1)}")
    left = _left(progress, max_time)
    if left is not None:
        parts.append(f"about {max(0.0, left - since):.0f} s left")
    return f"{name}: {', '.join(parts + ['shrinking'] * bool(progress.failures))}"


def _left(progress: Progress, max_time: float | None) -> float | None:
    """Return the seconds that a search still takes: unknown while it shrinks, unless its time is limited."""
    rest = progress.planned - progress.judged
    wanted = [progress.seconds * rest / progress.judged] if progress.judged and rest > 0 else []
    limit = [] if max_time is None else [max(0.0, max_time - progress.seconds)]
    return min(limit if progress.failures else wanted + limit, default=None)
