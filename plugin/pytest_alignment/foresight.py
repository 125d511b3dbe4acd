"""`Foreseeing`: an experiment of a `@given` test, which trains as one batch what its examples were seen to ask for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NoReturn

from hypothesis import event

from alignment_checks.inference.readings import Reading
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties.experiment import Experiment
from alignment_checks.properties.sides import Sides
from alignment_checks.setups.sameness import alike
from alignment_checks.training import TrainingSetup
from alignment_checks.trajectory import Trajectory
from pytest_alignment.course import Asked, Course, Foreseen, LeftOut
from pytest_alignment.examples import explains, is_final, reject

OUT_OF_TIME = "not judged: the time of an alignment assertion was over"


class Foreseeing(Experiment):
    """An experiment that trains, with the first δ that it is asked for, all that the dry pass has seen coming.

    Attributes
    ----------
    drawn : dict of Perturbation to None
        What examples have asked for, as far as it was trained.
    failing : bool
        Whether something failed here. From then on it is Hypothesis that tries to shrink it, and no longer trained for.
    seconds : float
        Spent on training.
    """

    def __init__(self, course: Course, setup: TrainingSetup, sides: Sides, seeds: Sequence[int], **how: Any) -> None:
        super().__init__(setup, sides, seeds, **how)
        self.course = course
        self.drawn: dict[Perturbation, None] = {}
        self.failing = False
        self.seconds = 0.0
        self._seen: set[Perturbation] = set()
        self._seen_as = alike(setup)

    def readings(self, deltas: Sequence[Perturbation]) -> list[Reading]:
        """Return the reading under each perturbation; a dry pass takes note of what is not known, and ends."""
        with self.course.timed():
            return self._readings(deltas)

    def _readings(self, deltas: Sequence[Perturbation]) -> list[Reading]:
        course, foreseen = self.course, self._is_foreseen(deltas)
        if course.collecting and not foreseen and not self._seen.issuperset(deltas):
            course.collect(self, deltas)
        for delta in deltas:
            self.sides.check(delta)
        batch = course.batch(self, deltas) if foreseen else []
        if (batch or not self._seen.issuperset(deltas)) and not course.affords():
            self._leave_out()
        told = self._launch(deltas, batch)
        if batch:
            course.train_ahead(batch)
        unknown = {key: delta for delta in deltas if (key := self.key(delta)) not in self.known}
        if unknown and course.collecting:
            raise Foreseen  # it cannot be trained along with the others: what is wrong with it will show in the end
        self._unforeseen(list(unknown.values()), told=told)
        if not course.searching:
            self.drawn.update(dict.fromkeys(deltas))
        return [self.known[self.key(delta)] for delta in deltas]

    def _leave_out(self) -> NoReturn:
        """End an example that there is no time for: it is not judged.

        Of those that are rejected, Hypothesis draws dozens for each that it judges; this one is as good as judged.
        """
        if self.course.collecting:
            raise Foreseen
        event(OUT_OF_TIME)
        if self.course.ends:
            raise LeftOut
        reject(OUT_OF_TIME)

    def _unforeseen(self, deltas: Sequence[Perturbation], *, told: bool) -> None:
        """Train what nobody saw coming."""
        if deltas and not self._admits():
            reject("not trained: alignment shrinks what fails by itself, in batches")
        if deltas and not told:
            self.course.launching(deltas)
        if deltas:
            self.measured(deltas, keep=[IDENTITY])

    def trainable(self, deltas: Sequence[Perturbation]) -> list[Perturbation]:
        """Return what is to be trained of what was foreseen; what cannot be says so when its own example asks."""
        batch = {}
        self.drawn.update(dict.fromkeys(deltas))
        for delta in deltas:
            self._seen.add(delta)
            try:
                self.sides.check(delta)
                batch[self.key(delta)] = delta
            except Exception:  # noqa: S112
                continue
        if alike(self.setup) != self._seen_as:  # what it reads is another now: its own examples set it again
            return []
        return [delta for key, delta in batch.items() if key not in self.known]

    def fresh(self, deltas: Sequence[Perturbation]) -> list[Reading]:
        """Return the reading under each perturbation, measured anew only for what is reported."""
        if not self.course.confirming:
            return self.readings(deltas)
        self.course.launching(deltas)
        return super().fresh(deltas)

    def afresh(self) -> Experiment:
        """Return the experiment that confirms what this one found: itself, until it is reported."""
        return super().afresh() if self.course.confirming else self

    def excerpt(self, delta: Perturbation) -> Trajectory | None:
        """Return the runs of which a report says more: none of an example that is not reported."""
        return super().excerpt(delta) if self.course.confirming else None

    def _admits(self) -> bool:
        """Return whether a δ that was not foreseen is trained: not where it is Hypothesis that tries to shrink one.

        Nor where it asks, one by one, up to a hundred times for each argument, whether another value fails as well.
        """
        return self.course.searching or is_final() or not (self.failing or explains())

    def _is_foreseen(self, deltas: Sequence[Perturbation]) -> bool:
        pending = [delta for delta in deltas if (self, delta) in self.course.pending]
        return bool(pending) and all(delta in pending or delta in self._seen for delta in deltas)

    def _launch(self, deltas: Sequence[Perturbation], batch: Sequence[Asked]) -> bool:
        """Tell what is about to be realized, and trained if it is not known; return whether there is any."""
        unseen = [delta for delta in deltas if delta not in self._seen] if self._admits() else []
        self._seen.update(unseen)
        told = list(dict.fromkeys([*(delta for _, delta in batch), *unseen]))
        if told:
            self.course.launching(told)
        return bool(told)

    def measured(
        self, deltas: Sequence[Perturbation], keep: Sequence[Perturbation], backend: str | None = None
    ) -> list[Reading]:
        """Train under each perturbation, and return the readings."""
        began = time.perf_counter()
        found = super().measured(deltas, keep, backend)
        self.seconds += time.perf_counter() - began
        return found
