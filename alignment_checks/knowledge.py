"""What a search knows: everything judged so far, what of it fails, and what is reported of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from alignment_checks.judgement import LEVEL, Judgement, Status, corrected
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.progress import Budget, Judged, OutOfTimeError, Progress, Watch

Evaluate = Callable[[Sequence[Perturbation]], Sequence[Judgement]]
Kind = tuple[frozenset[object], bool]

RIVALS = 6
"""How many kinds of failure are reported."""
CONFIRMATIONS = 3
"""How often other perturbations are confirmed where none of the first was, if chance has a part in it."""
SPENT = 0.75
"""The part of the level that is left which each such time spends."""


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes
    ----------
    minimal, worst : (Perturbation, Judgement) or None
        The smallest failing perturbation and the worst; both failed again when trained afresh.
    others : tuple of (Perturbation, Judgement)
        The smallest failure of every other kind: other families, or a deviation to the other side.
    curve : tuple of (magnitude, Judgement)
        What was judged at the seed of the smallest, from 0 to the limit; empty where it has several parts.
    undecided : (Perturbation, Judgement) or None
        One that could not be judged, where none failed.
    holds_up_to : float or None
        The largest magnitude below which everything tried of the one family held; None where there is no one family.
    judged : int
        Perturbations judged.
    launches : int
        Batches evaluated one after the other.
    unconfirmed : tuple of (Perturbation, Judgement)
        Failed once, and not when trained afresh.
    nearest : (Perturbation, Judgement) or None
        Where nothing failed: the most severe of what passed.
    planned : int
        Perturbations that are judged where nothing fails.
    stopped : bool
        Whether the time ran out first.
    confirmed : bool
        Whether what failed was trained afresh; only a search that ran out of time leaves that out.
    """

    minimal: Judged | None
    worst: Judged | None
    others: tuple[Judged, ...]
    curve: tuple[tuple[float, Judgement], ...]
    undecided: Judged | None
    holds_up_to: float | None
    judged: int
    launches: int
    unconfirmed: tuple[Judged, ...] = ()
    nearest: Judged | None = None
    planned: int = 0
    stopped: bool = False
    confirmed: bool = True


class Knowledge:
    """Everything judged so far."""

    def __init__(
        self,
        evaluate: Evaluate,
        budget: Budget | None = None,
        watch: Watch | None = None,
        same: Callable[[Perturbation], Hashable] | None = None,
    ) -> None:
        self.evaluate, self.same = evaluate, same or (lambda delta: delta)
        self.budget, self.watch = budget or Budget(), watch
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
        fresh = self._new(wanted)
        found: list[Judgement] = []
        if fresh:
            if self.launches and not self.budget.affords(2 if self.first else 1):
                raise OutOfTimeError
            self._tell(fresh)
            self.budget.timed(lambda: found.extend(self.evaluate(fresh)))
            self.launches += 1
        self._learn(fresh, found)
        self.known.update({delta: self.trained[self.same(delta)] for delta in wanted})
        if fresh:
            self.first = self.first or next(((d, self.known[d]) for d in self.failing()), None)
            self._tell(())

    def _new(self, deltas: Iterable[Perturbation]) -> list[Perturbation]:
        """Return one perturbation for each run that was not trained yet, the first."""
        first: dict[Hashable, Perturbation] = {}
        for delta in deltas:
            if delta not in self.known and (key := self.same(delta)) not in self.trained:
                first.setdefault(key, delta)
        return list(first.values())

    def _learn(self, deltas: Sequence[Perturbation], judgements: Sequence[Judgement]) -> None:
        for delta, judgement in zip(deltas, judgements, strict=True):
            self.known[delta] = self.trained[self.same(delta)] = judgement

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

    def untrained(self, deltas: Iterable[Perturbation]) -> int:
        """Return how many runs would be trained to judge all of `deltas`."""
        return len(self._new(deltas))

    def _tell(self, in_flight: Sequence[Perturbation], *, confirming: bool = False) -> None:
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
        return frozenset((p.family, p.options) for p in active(delta)), self.known[delta].deviation > 0

    def outcome(self, confirm: Evaluate, level: float = LEVEL, beside: Sequence[Perturbation] = ()) -> Searched:
        """Train the smallest of each kind and the worst failures afresh, and return what was found.

        Where chance has a part in them, `confirm` judges by seeds that took no part in the search, and the level is
        shared among those that it judges: however many were searched, no more were tested.

        Where the time is over, what failed is returned as it is: `Searched.confirmed` is False. What chance has a part
        in then counts as unconfirmed. `beside` is judged in the first batch of `confirm`.
        """
        confirmed: dict[Perturbation, Judgement] = {}
        unconfirmed: list[Judged] = []
        left = level
        for chosen in self._doubtful(confirmed):
            if not self.budget.affords():
                return self._unconfirmed(chosen, confirmed, unconfirmed)
            left_over = [] if confirmed or unconfirmed else self._new(beside)
            self._tell([*chosen, *left_over], confirming=True)
            spent, left = SPENT * left, (1 - SPENT) * left
            found = confirm([*chosen, *left_over])
            self._learn(left_over, found[len(chosen) :])
            for delta, judgement in zip(chosen, corrected(found[: len(chosen)], level, spent / level), strict=True):
                if judgement.status is Status.FAIL:
                    confirmed[delta] = judgement
                else:
                    unconfirmed.append((delta, judgement))
                    self._forget(delta)
        return self._found(confirmed, unconfirmed)

    def _forget(self, delta: Perturbation) -> None:
        """Forget a run that did not fail again, under whatever name it is known."""
        key = self.same(delta)
        self.known = {one: judgement for one, judgement in self.known.items() if one != delta and self.same(one) != key}

    def _doubtful(self, confirmed: Mapping[Perturbation, Judgement]) -> Iterator[list[Perturbation]]:
        """Yield, round by round, what is to be confirmed, until all that is reported was."""
        for rounds in count():
            chosen = [delta for delta in self._candidates() if delta not in confirmed]
            by_chance = any(self.known[delta].p_value is not None for delta in chosen)
            if not chosen or (by_chance and (confirmed or rounds == CONFIRMATIONS)):
                return
            yield chosen

    def _candidates(self) -> list[Perturbation]:
        """Return the smallest failure of each kind, and the worst; where chance has a part, larger ones as well.

        A smallest failure owes something to the luck of its seeds: others are not likely to confirm it.
        """
        if not self.failing():
            return []
        first, *others = self.kinds().values()
        worst = max(self.failing(), key=lambda delta: (self.known[delta].severity, -delta.size))
        ladder = _ladder(first) if self.known[first[0]].p_value is not None else []
        return list(dict.fromkeys([first[0], *(deltas[0] for deltas in others[: RIVALS - 1]), *ladder, worst]))

    def _unconfirmed(
        self, chosen: Sequence[Perturbation], confirmed: Mapping[Perturbation, Judgement], unconfirmed: list[Judged]
    ) -> Searched:
        """Return what was found where there is no time to train it afresh."""
        self.stopped = True
        known = {delta: self.known[delta] for delta in chosen}
        certain = {delta: judgement for delta, judgement in known.items() if judgement.p_value is None}
        lucky = [(d, replace(j, needs="more time to train it afresh")) for d, j in known.items() if d not in certain]
        self.known = {delta: judgement for delta, judgement in self.known.items() if delta not in dict(lucky)}
        return self._found({**confirmed, **certain}, [*unconfirmed, *lucky], afresh=not certain)

    def _found(
        self, confirmed: Mapping[Perturbation, Judgement], unconfirmed: list[Judged], *, afresh: bool = True
    ) -> Searched:
        kinds = [[delta for delta in deltas if delta in confirmed] for deltas in self.kinds().values()]
        smallest = [(deltas[0], confirmed[deltas[0]]) for deltas in kinds if deltas]
        minimal = smallest[0] if smallest else None
        return Searched(
            minimal=minimal,
            worst=max(confirmed.items(), key=lambda one: (one[1].severity, -one[0].size), default=None),
            others=tuple(smallest[1:]),
            curve=self._curve(minimal[0]) if minimal else (),
            undecided=next((pair for pair in self.known.items() if pair[1].status is Status.INCONCLUSIVE), None),
            holds_up_to=self._holds_up_to(minimal[0] if minimal else None),
            judged=len(self.known) + len(unconfirmed),
            launches=self.launches,
            unconfirmed=tuple(unconfirmed),
            nearest=None if minimal or unconfirmed else self._nearest(),
            planned=self.planned,
            stopped=self.stopped,
            confirmed=afresh,
        )

    def _nearest(self) -> Judged | None:
        passed = [(d, j) for d, j in self.known.items() if j.status is Status.PASS and not d.is_identity]
        return max(passed, key=lambda one: (one[1].severity, -one[0].size), default=None)

    def _curve(self, minimal: Perturbation) -> tuple[tuple[float, Judgement], ...]:
        if len(minimal.parts) > 1 or not minimal.continuous:
            return ()
        line = [(d.magnitude or 0.0, j) for d, j in self.known.items() if line_of(d) == line_of(minimal)]
        return tuple(sorted(line, key=lambda point: abs(point[0]))) if len(line) > 1 else ()

    def _holds_up_to(self, minimal: Perturbation | None) -> float | None:
        """Return the largest magnitude that held, below the smallest that did not, where one family was tried."""
        singles = {(d.family, d.options) for d in self.known if d != IDENTITY}
        if minimal is None and len(singles) != 1:
            return None
        which = next(iter(singles)) if minimal is None else (minimal.family, minimal.options)
        if which[0] in ("compose", "identity"):
            return None
        tried = [(abs(d.magnitude or 0.0), j.status) for d, j in self.known.items() if (d.family, d.options) == which]
        bound = min((magnitude for magnitude, status in tried if status is not Status.PASS), default=math.inf)
        return max((magnitude for magnitude, _ in tried if magnitude < bound), default=None)


def active(delta: Perturbation) -> list[Perturbation]:
    """Return the parts that do something."""
    return [part for part in delta.parts if part.magnitude != 0]


def order(delta: Perturbation) -> tuple[int, float]:
    """Return what smaller perturbations are smaller in: how many parts do something, then the size."""
    return len(active(delta)), delta.size


def line_of(delta: Perturbation) -> tuple[object, ...]:
    """Return what stays the same while magnitudes change."""
    return tuple((p.family, p.options, p.seed, (p.magnitude or 0) > 0) for p in active(delta))


def _ladder(failing: Sequence[Perturbation]) -> list[Perturbation]:
    """Return failures of one kind, smallest first, at about equal ratios of size up to the largest."""
    sizes = [max(delta.size, 1e-12) for delta in failing]
    rungs = [sizes[0] * (max(sizes) / sizes[0]) ** (rung / (RIVALS - 1)) for rung in range(RIVALS)]
    return [next(d for d, size in zip(failing, sizes, strict=True) if size >= 0.999 * rung) for rung in rungs]
