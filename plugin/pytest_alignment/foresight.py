"""`Forecast`: what the examples of one `@given` test ask for, trained as batches, and shrunk in our own domain."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hypothesis import Phase, reject, settings
from hypothesis.control import current_build_context, currently_in_test_context

from alignment_checks.experiment import Experiment, Memory, Sides
from alignment_checks.judgement import Status
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.readings import Reading
from alignment_checks.training import TrainingSetup
from alignment_checks.trajectory import Trajectory
from alignment_checks.verdict import Verdict

Check = Callable[..., Verdict]


class Foreseen(BaseException):
    """Ends an example of the dry pass: what its first assertion asks for is known. `except Exception` lets it by."""


class Unforeseeable(BaseException):
    """Ends the dry pass: an assertion that searches by itself is a batch already."""


class Forecast(Memory):
    """The memory of one `@given` test.

    Attributes
    ----------
    collecting : bool
        Whether this is the dry pass, which trains nothing.
    searching, confirming : bool
        Whether a failing δ is being shrunk, and whether what fails then is trained afresh.
    launching : callable
        Told of each batch before it trains.
    """

    def __init__(self) -> None:
        super().__init__()
        self.collecting = True
        self.searching = self.confirming = False
        self.launching: Callable[[Sequence[Perturbation]], None] = _untold
        self._last: Foreseeing | None = None
        self._failing: set[Foreseeing] = set()
        self._verdicts: dict[Hashable, Verdict] = {}

    def experiment(self, setup: TrainingSetup, sides: Sides, seeds: Sequence[int], **how: Any) -> Experiment:
        """Return the experiment of these arguments, and remember that it is the one that is asked now."""
        found = super().experiment(setup, sides, seeds, **how)
        self._last = found if isinstance(found, Foreseeing) else None
        return found

    def begun(self, setup: TrainingSetup, sides: Sides, seeds: Sequence[int], **how: Any) -> Experiment:
        """Return a new experiment that trains ahead."""
        return Foreseeing(self, setup, sides, seeds, **how)

    def judged(self, check: Check, delta: Perturbation, key: Hashable) -> Verdict:
        """Return the verdict on the δ of one example.

        Parameters
        ----------
        check : callable
            Takes the keywords of a check that say what is tried.
        delta : Perturbation
        key : hashable
            Stands for the assertion, with its setup and its other arguments.

        Notes
        -----
        Until Hypothesis reports an example for good, it is judged by what was trained once. Then the failing δ is
        shrunk and trained afresh. What fails first is shrunk at once, so that Hypothesis's own attempts are known.
        """
        final = _is_final()
        known = None if final or self.collecting else self._verdicts.get((key, delta))
        if known is not None:
            return known
        verdict = check(delta=delta, first=(delta,), examples=0, memory=self)
        if verdict.status is Status.FAIL and self._last is not None:
            verdict = self._pursued(check, delta, verdict, self._last, final=final)
        self._verdicts[key, delta] = verdict
        return verdict

    def _pursued(
        self, check: Check, delta: Perturbation, verdict: Verdict, failing: Foreseeing, *, final: bool
    ) -> Verdict:
        if not final and failing in self._failing:
            return verdict
        shrink = Phase.shrink in settings().phases
        first = (delta, *failing.drawn) if shrink else (delta,)
        with self._search(confirming=final):
            found = check(delta=delta, first=first, examples=0, shrink=shrink, memory=self)
        self._failing.add(failing)
        return (
            replace(found, runs=max(found.runs, failing.runs), seconds=max(found.seconds, failing.seconds))
            if final
            else verdict
        )

    @contextmanager
    def _search(self, *, confirming: bool) -> Iterator[None]:
        self.searching, self.confirming = True, confirming
        try:
            yield
        finally:
            self.searching = self.confirming = False

    def admits(self, experiment: Foreseeing) -> bool:
        """Return whether a δ that was not foreseen is trained: not where it is Hypothesis that tries to shrink one."""
        return self.searching or _is_final() or experiment not in self._failing


class Foreseeing(Experiment):
    """An experiment that trains, with the first δ that it is asked for, all that the dry pass has seen coming."""

    def __init__(
        self, forecast: Forecast, setup: TrainingSetup, sides: Sides, seeds: Sequence[int], **how: Any
    ) -> None:
        super().__init__(setup, sides, seeds, **how)
        self.forecast = forecast
        self.drawn: dict[Perturbation, None] = {}
        self.seconds = 0.0
        self._pending: dict[Perturbation, None] = {}
        self._seen: set[Perturbation] = set()

    def readings(self, deltas: Sequence[Perturbation]) -> list[Reading]:
        """Return the reading under each perturbation; the dry pass takes note of them, and ends."""
        if self.forecast.collecting:
            self._pending.update(dict.fromkeys(deltas))
            self.drawn.update(dict.fromkeys(deltas))
            raise Foreseen
        for delta in deltas:
            self.sides.check(delta)
        self._launch(deltas)
        unknown = {key: delta for delta in deltas if (key := self._key(delta)) not in self.known}
        if unknown and not self.forecast.admits(self):
            reject()
        if not self.forecast.searching:
            self.drawn.update(dict.fromkeys(deltas))
        if unknown and self._pending:
            self._train_ahead()
            unknown = {key: delta for key, delta in unknown.items() if key not in self.known}
        if unknown:
            self._measured(list(unknown.values()), keep=[IDENTITY])
        return [self.known[self._key(delta)] for delta in deltas]

    def _launch(self, deltas: Sequence[Perturbation]) -> None:
        """Tell what is about to be realized, and trained if it is not known."""
        unseen = [delta for delta in deltas if delta not in self._seen]
        if unseen and self.forecast.admits(self):
            self._seen.update(unseen)
            self.forecast.launching([*self._pending, *(delta for delta in unseen if delta not in self._pending)])

    def fresh(self, deltas: Sequence[Perturbation]) -> list[Reading]:
        """Return the reading under each perturbation, measured anew only for what is reported."""
        if not self.forecast.confirming:
            return self.readings(deltas)
        self.forecast.launching(deltas)
        return super().fresh(deltas)

    def afresh(self) -> Experiment:
        """Return the experiment that confirms what this one found: itself, until it is reported."""
        return super().afresh() if self.forecast.confirming else self

    def excerpt(self, delta: Perturbation) -> Trajectory | None:
        """Return the runs of which a report says more: none of an example that is not reported."""
        return super().excerpt(delta) if self.forecast.confirming else None

    def _measured(
        self, deltas: Sequence[Perturbation], keep: Sequence[Perturbation], backend: str | None = None
    ) -> list[Reading]:
        began = time.perf_counter()
        found = super()._measured(deltas, keep, backend)
        self.seconds += time.perf_counter() - began
        return found

    def _train_ahead(self) -> None:
        """Train what was foreseen as one batch; what cannot be trained says so when its own example asks for it."""
        pending, self._pending = list(self._pending), {}
        batch = {}
        for delta in pending:
            try:
                self.sides.check(delta)
                batch[self._key(delta)] = delta
            except Exception:  # noqa: S112
                continue
        if fresh := [delta for key, delta in batch.items() if key not in self.known]:
            self._measured(fresh, keep=[IDENTITY])


def _untold(batch: Sequence[Perturbation]) -> None:
    """Tell nobody."""


def _is_final() -> bool:
    """Return whether Hypothesis runs this example to report it: an explicit one, or the one that it ended with."""
    return currently_in_test_context() and bool(getattr(current_build_context(), "is_final", False))


@contextmanager
def untimed() -> Iterator[None]:
    """Keep what is done here out of Hypothesis's deadline, as it does with the time that draws take."""
    began = time.perf_counter()
    try:
        yield
    finally:
        times = getattr(current_build_context().data, "_stateful_run_times", None)
        if times is not None:
            times["alignment"] += time.perf_counter() - began
