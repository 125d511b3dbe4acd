"""`Foreseeing`: an experiment of a `@given` test, which trains as one batch what its examples were seen to ask for."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hypothesis import reject
from hypothesis.control import current_build_context, currently_in_test_context
from hypothesis.strategies import SearchStrategy

from alignment_checks.experiment import Experiment, Sides, measure_together
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.family import draws_whole
from alignment_checks.progress import Budget
from alignment_checks.readings import Reading
from alignment_checks.sameness import alike
from alignment_checks.training import TrainingSetup
from alignment_checks.trajectory import Trajectory

Asked = tuple["Foreseeing", Perturbation]
"""A run that an example asks for."""

FIRST = 16
"""Runs of the first batch on a CPU, as many as lanes, and of any after a failure; each other one is followed by one
three times as large. An accelerator trains all at once."""

FEWEST = 11
"""Drawn examples that are judged however long they take: of fewer than 10, Hypothesis says that nearly all were
filtered out, and it does not count the simplest one, which it tries first."""


class Foreseen(BaseException):
    """Ends an example of a dry pass: what it asks for next is known. `except Exception` lets it by."""


class Unforeseeable(BaseException):
    """Ends the dry passes: what comes next is a batch already, or depends on what is not known."""


def _untold(batch: Sequence[Perturbation]) -> None:
    """Tell nobody."""


@dataclass(eq=False)
class Course:
    """Where a `@given` test stands, for all of its experiments.

    Attributes
    ----------
    collecting : bool
        Whether this is a dry pass, which ends each example at the first assertion that it knows nothing of.
    passes : int
        Dry passes that went before this one.
    examples, explicit, depth : int
        How many examples this pass has begun, how many of them nobody drew, and how many assertions the current one has
        made.
    failed : bool
        Whether an example has failed: then few more are run, and what they ask for is not trained in large batches.
    collected, pending : dict
        What this dry pass has seen that is not known, and what an earlier one has, both not trained yet, in order.
    size : int
        Runs of the next batch on a CPU.
    recognized : bool
        False once the first example had another setup than a pass earlier: none is then the same from call to call.
    searching, confirming : bool
        Whether a failing δ is being shrunk, and whether what fails is trained afresh.
    launching : callable
        Told of each batch before it trains.
    whole : set of Perturbation
        What examples drew by strategies that are known to draw everything up to the limits of their families.
    assumes : bool
        Whether an example did not satisfy an assumption of the body, which may be about δ.
    budget : Budget
        The time that training may take until the end of the current assertion.
    left_out : int
        Examples of this pass that there was no time to train for.
    """

    collecting: bool = True
    passes: int = 0
    examples: int = 0
    explicit: int = 0
    depth: int = 0
    failed: bool = False
    size: int = FIRST
    collected: dict[Asked, None] = field(default_factory=dict)
    pending: dict[Asked, None] = field(default_factory=dict)
    recognized: bool = True
    searching: bool = False
    confirming: bool = False
    launching: Callable[[Sequence[Perturbation]], None] = _untold
    whole: set[Perturbation] = field(default_factory=set)
    assumes: bool = False
    budget: Budget = field(default_factory=Budget)
    left_out: int = 0
    _example: object = None

    def begin_pass(self) -> None:
        """Begin a dry pass."""
        self.size = FIRST
        self._begin()

    def begin_run(self) -> None:
        """Begin to run the examples for good."""
        self.collecting = False
        self._begin()

    def _begin(self) -> None:
        self.examples, self.explicit, self.left_out, self._example = 0, 0, 0, None

    def end_pass(self) -> bool:
        """End a dry pass, and return whether another one may see further."""
        self.passes += 1
        found, self.collected = self.collected, {}
        self.pending.update(found)
        return bool(found) and self.recognized and not self.failed

    def drew(self, value: object, strategy: SearchStrategy[Any]) -> None:
        """Take note of what an example drew by a strategy; what an explicit one has, none drew."""
        if isinstance(value, Perturbation) and draws_whole(strategy) and not is_final():
            self.whole.add(value)

    def enter(self, example: object) -> None:
        """Take note of which example is running."""
        if example is not self._example:
            self._example, self.depth = example, 0
            self.examples += 1
            self.explicit += is_final()

    def allot(self, seconds: float | None) -> None:
        """Let the current assertion take so long, over all examples; each before it in the body had as long."""
        self.budget.limit = math.inf if seconds is None else seconds * (self.depth + 1)

    def affords(self) -> bool:
        """Return whether what an example asks for may be trained: the first ones always, and what is reported."""
        if self.searching or self.examples - self.explicit <= FEWEST or is_final() or self.budget.affords():
            return True
        self.left_out += 1
        return False

    @contextmanager
    def search(self, *, confirming: bool) -> Iterator[None]:
        """Train also what was not foreseen; where `confirming`, what fails afresh as well."""
        self.searching, self.confirming = True, confirming
        try:
            yield
        finally:
            self.searching = self.confirming = False

    def collect(self, experiment: Foreseeing, deltas: Sequence[Perturbation]) -> None:
        """Take note of what an example asks for, which ends it.

        Raises
        ------
        Foreseen
        Unforeseeable
            If the examples draw something else than a pass earlier, since one of them went further: then so do all
            that follow.
        """
        if self.depth < self.passes:
            if self.examples == 1:
                self.recognized = False
                self.pending.clear()
            raise Unforeseeable
        self.collected.update(dict.fromkeys((experiment, delta) for delta in deltas))
        raise Foreseen

    def batch(self, experiment: Foreseeing, deltas: Sequence[Perturbation]) -> list[Asked]:
        """Return what is to be trained next of what was foreseen, what is asked for now before all else.

        Raises
        ------
        Unforeseeable
            If this is a dry pass in which an example has failed: most of what was foreseen will not be asked for.
        """
        if self.collecting and self.failed:
            raise Unforeseeable
        asked = dict.fromkeys([*((experiment, delta) for delta in deltas), *self.pending])
        few = all(one.device_type == "cpu" for one, _ in asked)
        return list(asked)[: max(self.size, len(deltas))] if few else list(asked)

    def train_ahead(self, batch: Sequence[Asked]) -> None:
        """Train what was foreseen, of whichever setup and assertion, at once."""
        asked: dict[Foreseeing, list[Perturbation]] = {}
        for experiment, delta in batch:
            self.pending.pop((experiment, delta), None)
            asked.setdefault(experiment, []).append(delta)
        self.size = FIRST if self.failed else 3 * self.size
        trainable = {experiment: experiment.trainable(deltas) for experiment, deltas in asked.items()}
        began = time.perf_counter()
        with suppress(Exception):  # what cannot be trained says so when its own example asks, for it alone
            measure_together({experiment: deltas for experiment, deltas in trainable.items() if deltas})
        each = (time.perf_counter() - began) / max(1, sum(map(len, trainable.values())))
        for experiment, deltas in trainable.items():
            experiment.seconds += each * len(deltas)


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
        """End an example that there is no time for: it is not judged."""
        if self.course.collecting:
            raise Foreseen
        reject()

    def _unforeseen(self, deltas: Sequence[Perturbation], *, told: bool) -> None:
        """Train what nobody saw coming."""
        if deltas and not self._admits():
            reject()
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
        """Return whether a δ that was not foreseen is trained: not where it is Hypothesis that tries to shrink one."""
        return self.course.searching or is_final() or not self.failing

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


# -------------------------------------------------------------------------------------------- what Hypothesis is doing


def is_final() -> bool:
    """Return whether Hypothesis runs this example to report it: an explicit one, or the one that it ended with."""
    return currently_in_test_context() and bool(getattr(current_build_context(), "is_final", False))


@contextmanager
def unnoticed() -> Iterator[None]:
    """Keep what is done here out of Hypothesis's deadline, as the time that draws take, and out of its explanations.

    To explain a failure it traces which lines run, which makes Python several times slower before 3.12.
    """
    began, tracer = time.perf_counter(), sys.gettrace()
    its_own = type(getattr(tracer, "__self__", None)).__module__ == "hypothesis.internal.scrutineer"
    if its_own:
        sys.settrace(None)
    try:
        yield
    finally:
        if its_own:
            sys.settrace(tracer)
        times = getattr(current_build_context().data, "_stateful_run_times", None)
        if times is not None:
            times["alignment"] += time.perf_counter() - began
