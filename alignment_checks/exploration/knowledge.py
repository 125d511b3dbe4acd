"""What a search knows: everything judged so far, and what of it fails."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

from alignment_checks.exploration.progress import Budget, Judged, OutOfTimeError, Progress, Watch
from alignment_checks.inference.chance import Chance
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import active, working

Evaluate = Callable[[Sequence[Perturbation]], Sequence[Judgement]]
Kind = tuple[frozenset[object], bool]

RIVALS = 6
"""How many kinds of failure are reported."""


class Knowledge:
    """Everything judged so far."""

    def __init__(
        self,
        evaluate: Evaluate,
        budget: Budget | None = None,
        watch: Watch | None = None,
        same: Callable[[Perturbation], Hashable] | None = None,
        chance: Chance | None = None,
    ) -> None:
        self.evaluate, self.same = evaluate, cache(same) if same else lambda delta: delta
        self.budget, self.watch, self.chance = budget or Budget(), watch, chance or Chance()
        self.known: dict[Perturbation, Judgement] = {}
        self.trained: dict[Hashable, Judgement] = {}
        self.launches = self.planned = 0
        self.first: Judged | None = None
        self.stopped = False

    def judge(self, deltas: Iterable[Perturbation]) -> None:
        """Judge what is not known yet, in one batch; what comes to the same run is trained once.

        Raises
        ------
        OutOfTimeError
            If the time is over, or, once something failed, would be over before it could be trained afresh.
        """
        wanted = [delta for delta in dict.fromkeys(deltas) if delta not in self.known]
        fresh = self.new(wanted)
        found: list[Judgement] = []
        if fresh:
            if self.launches and not self.budget.affords(2 if self.first else 1):
                raise OutOfTimeError
            self.tell(fresh)
            self.budget.timed(lambda: found.extend(self.evaluate(fresh)))
            self.launches += 1
        self.learn(fresh, found)
        self.known.update({delta: self.trained[self.same(delta)] for delta in wanted})
        if fresh:
            self.first = self.first or next(((d, self.known[d]) for d in self.failing()), None)
            self.tell(())

    def new(self, deltas: Iterable[Perturbation]) -> list[Perturbation]:
        """Return one perturbation for each run that was not trained yet, the first."""
        return list(self._new(deltas))

    def _new(self, deltas: Iterable[Perturbation]) -> Iterator[Perturbation]:
        seen: set[Hashable] = set()
        for delta in deltas:
            if delta not in self.known and (key := self.same(delta)) not in self.trained and key not in seen:
                seen.add(key)
                yield delta

    def learn(self, deltas: Sequence[Perturbation], judgements: Sequence[Judgement]) -> None:
        """Know what was judged, allowing for all that is searched."""
        for delta, judgement in zip(deltas, judgements, strict=True):
            known = self.chance.allowing(judgement, self.chance.among or 1)
            self.known[delta] = self.trained[self.same(delta)] = known

    def within(self, deltas: Iterable[Perturbation], runs: int) -> list[Perturbation]:
        """Return the first of `deltas` that come to so many runs not trained yet, and what is known among them."""
        found: list[Perturbation] = []
        new: set[Hashable] = set()
        for delta in dict.fromkeys(deltas):
            key = None if delta in self.known else self.same(delta)
            if key is not None and key not in self.trained and key not in new:
                if len(new) == runs:
                    continue
                new.add(key)
            found.append(delta)
        return found

    def comes_to(self, deltas: Iterable[Perturbation], runs: int) -> bool:
        """Return whether no more than so many runs would be trained to judge all of `deltas`; it looks no farther."""
        return len(list(islice(self._new(deltas), runs + 1))) <= runs

    def untrained(self, deltas: Iterable[Perturbation]) -> int:
        """Return how many runs would be trained to judge all of `deltas`."""
        return len(self.new(deltas))

    def allows(self, deltas: Iterable[Perturbation], more: int = 0) -> bool:
        """Return whether all of these, and so many more, may be judged beside what was: chance allows for no others."""
        by_chance = any(self.known[delta].p_value is not None for delta in self.failing())
        among = self.chance.among
        return among is None or not by_chance or len(self.trained) + self.untrained(deltas) + more <= among

    def tell(self, in_flight: Sequence[Perturbation], *, confirming: bool = False) -> None:
        """Tell whoever watches how far the search is."""
        if self.watch is None:
            return
        failing = self.failing()
        self.watch(
            Progress(
                in_flight=tuple(in_flight),
                confirming=confirming,
                rounds=self.launches,
                judged=len(self.known),
                planned=self.planned,
                runs=0,
                failures=len(failing),
                smallest=(failing[0], self.known[failing[0]]) if failing else None,
                first=self.first,
                seconds=self.budget.spent,
            )
        )

    def failing(self) -> list[Perturbation]:
        """Return what failed, the smallest first: fewest parts, then least magnitude in units of the limits."""
        return sorted((d for d, j in self.known.items() if j.status is Status.FAIL), key=order)

    def baseless(self) -> bool:
        """Return whether nothing can be judged under any δ."""
        return any(judgement.baseless for judgement in self.known.values())

    def kinds(self) -> dict[Kind, list[Perturbation]]:
        """Return the failures by what fails: the families at work, and the side of the deviation.

        A set of families that contains another one which fails to the same side is no kind of its own.
        """
        groups: dict[Kind, list[Perturbation]] = {}
        for delta in self.failing():
            groups.setdefault(self.kind(delta), []).append(delta)
        contained = {kind for kind in groups for other in groups if other[0] < kind[0] and other[1] == kind[1]}
        return {kind: deltas for kind, deltas in groups.items() if kind not in contained}

    def kind(self, delta: Perturbation) -> Kind:
        """Return what fails: the families at work, and the side of the deviation."""
        return frozenset((p.family, p.options) for p in working(delta)), self.known[delta].deviation > 0

    def doubt(self, delta: Perturbation, judgement: Judgement) -> None:
        """Know a run as it was judged afresh, under whatever name it is known."""
        key = self.same(delta)
        self.known |= {one: judgement for one in self.known if self.same(one) == key}

    def forget(self, delta: Perturbation) -> None:
        """Forget a run that did not fail again, under whatever name it is known."""
        key = self.same(delta)
        self.known = {one: judgement for one, judgement in self.known.items() if one != delta and self.same(one) != key}


def order(delta: Perturbation) -> tuple[int, float]:
    """Return what smaller perturbations are smaller in: how many parts do something, then the size."""
    return len(working(delta)), delta.size


def line_of(delta: Perturbation) -> tuple[object, ...]:
    """Return what stays the same while magnitudes change."""
    return tuple((p.family, p.options, p.seed, (p.magnitude or 0) > 0) for p in active(delta))
