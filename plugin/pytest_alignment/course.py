"""`Course`: where a `@given` test stands, and what is trained next of what its examples were seen to ask for."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis.strategies import SearchStrategy

from alignment_checks.exploration.conditions import draws_whole
from alignment_checks.perturbations import Perturbation
from alignment_checks.properties.experiment import measure_together
from pytest_alignment.examples import is_final

if TYPE_CHECKING:
    from pytest_alignment.foresight import Foreseeing

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


class LeftOut(BaseException):
    """Ends an example that there is no time for, as one that passes. `except Exception` lets it by."""


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
        What this dry pass has seen that is not known, and what an earlier one has, both not trained yet, in order, with
        the place of the assertion that asked.
    size : int
        Runs of the next batch on a CPU.
    recognized : bool
        False once the first example had another setup than a pass earlier: none is then the same from call to call.
    searching, confirming : bool
        Whether a failing δ is being shrunk, and whether what fails is trained afresh.
    launching : callable
        Told of each batch before it trains.
    drawn_from : dict from Perturbation to tuple of strategies
        By which strategies examples drew it.
    assumes : bool
        Whether an example did not satisfy an assumption of the body, which may be about δ.
    limits, spent : defaultdict of float
        Seconds that each assertion of the body may take over all examples, and took so far, by its place in it.
    left_out : int
        Examples of this pass that there was no time to train for.
    ends : bool
        Whether the test lets `LeftOut` end an example.
    """

    collecting: bool = True
    passes: int = 0
    examples: int = 0
    explicit: int = 0
    depth: int = 0
    failed: bool = False
    size: int = FIRST
    collected: dict[Asked, int] = field(default_factory=dict)
    pending: dict[Asked, int] = field(default_factory=dict)
    recognized: bool = True
    searching: bool = False
    confirming: bool = False
    launching: Callable[[Sequence[Perturbation]], None] = _untold
    drawn_from: dict[Perturbation, tuple[SearchStrategy[Any], ...]] = field(default_factory=dict)
    assumes: bool = False
    limits: defaultdict[int, float] = field(default_factory=lambda: defaultdict(lambda: math.inf))
    spent: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    left_out: int = 0
    ends: bool = False
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

    def drew(self, values: Mapping[str, object], strategies: Mapping[str, SearchStrategy[Any]]) -> None:
        """Take note of what an example drew by which strategies; what an explicit one has, none drew."""
        for name in strategies.keys() & values.keys() if not is_final() else ():
            if isinstance(delta := values[name], Perturbation):
                known = self.drawn_from.get(delta, ())
                self.drawn_from[delta] = tuple(dict.fromkeys([*known, strategies[name]]))

    def is_whole(self, delta: Perturbation) -> bool:
        """Return whether it was drawn by strategies that draw everything up to the limits of their families."""
        strategies = self.drawn_from.get(delta, ())
        return bool(strategies) and all(map(draws_whole, strategies))

    def enter(self, example: object) -> None:
        """Take note of which example is running."""
        if example is not self._example:
            self._example, self.depth = example, 0
            self.examples += 1
            self.explicit += is_final()

    def allot(self, seconds: float | None) -> None:
        """Let the current assertion take so long, over all examples; what others of the body may take is their own."""
        self.limits[self.depth] = math.inf if seconds is None else seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time against the current assertion; what is timed within counts once."""
        began, depth, before = time.monotonic(), self.depth, self.spent[self.depth]
        try:
            yield
        finally:
            self.spent[depth] = before + time.monotonic() - began

    def affords(self) -> bool:
        """Return whether what an example asks for may be trained: the first ones always, and what is reported."""
        if self.searching or self.examples - self.explicit <= FEWEST or is_final():
            return True
        self.left_out += not self.has_time(self.depth)
        return self.has_time(self.depth)

    def has_time(self, depth: int) -> bool:
        """Return whether the assertion at a place of the body has time left."""
        return self.spent[depth] < self.limits[depth]

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
        self.collected.update(dict.fromkeys(((experiment, delta) for delta in deltas), self.depth))
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
        others = [asked for asked, depth in self.pending.items() if depth == self.depth or self.has_time(depth)]
        asked = dict.fromkeys([*((experiment, delta) for delta in deltas), *others])
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
