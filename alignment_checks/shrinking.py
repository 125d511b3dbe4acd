"""What a search knows, and what it judges next: components dropped, then ladders of magnitudes, then the curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from alignment_checks.judgement import Judgement, Status
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.progress import Budget, Judged, OutOfTimeError, Progress, Watch

Evaluate = Callable[[Sequence[Perturbation]], Sequence[Judgement]]
Kind = tuple[frozenset[object], bool]
Direction = tuple[str, tuple[tuple[str, object], ...], bool]
Domain = Mapping[Direction, tuple[float, float]]
"""The least and the largest |magnitude| of each family on each side; from 0 to the limit where there is none."""

RIVALS = 6
"""How many failing perturbations are shrunk side by side, lest the smallest drawn hide a smaller one."""
RUNGS = 12
"""Magnitudes tried at once along one line."""
ROUNDS = 16
"""Rounds of shrinking at most."""
CURVE = 16
"""Magnitudes of the degradation curve."""


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
    unconfirmed : tuple of Perturbation
        Failed once, and not when trained afresh.
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
    unconfirmed: tuple[Perturbation, ...] = ()
    planned: int = 0
    stopped: bool = False
    confirmed: bool = True


@dataclass
class _Line:
    """A failing perturbation, and how far each way of making it smaller has been tried.

    `low[move]` is the largest fraction of the present magnitude at which that move was seen to hold.
    """

    delta: Perturbation
    low: dict[int, float]

    @classmethod
    def at(cls, delta: Perturbation) -> _Line:
        moves = [i for i, part in enumerate(delta.parts) if part.continuous]
        return cls(delta, dict.fromkeys([*moves, -1] if len(moves) > 1 else moves, 0.0))

    def moved(self, move: int, fraction: float) -> Perturbation:
        """Return the perturbation with one part, or with −1 all parts, at a fraction of its magnitude."""
        parts = [
            part.at((part.magnitude or 0.0) * fraction) if part.continuous and move in (i, -1) else part
            for i, part in enumerate(self.delta.parts)
        ]
        return assembled(parts)

    def lowest(self) -> Perturbation:
        """Return a bound on where the line can still go: all parts at the largest fraction that was seen to hold."""
        return self.moved(-1, self.low.get(-1, min(self.low.values(), default=1.0)))

    def rungs(self, resolution: float) -> list[tuple[int, float]]:
        """Return the (move, fraction) pairs to try next; none once every move is resolved."""
        return [
            (move, low + (1 - low) * (rung / (RUNGS + 1)))
            for move, low in self.low.items()
            if 1 - low > resolution
            for rung in range(1, RUNGS + 1)
        ]


class Shrinking:
    """Everything judged so far, and what to judge next."""

    def __init__(
        self,
        evaluate: Evaluate,
        resolution: float,
        domain: Domain,
        budget: Budget | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.evaluate, self.resolution, self.domain = evaluate, resolution, domain
        self.budget, self.watch = budget or Budget(), watch
        self.known: dict[Perturbation, Judgement] = {}
        self.launches = self.planned = 0
        self.first: Judged | None = None
        self.stopped = False

    def judge(self, deltas: Iterable[Perturbation]) -> None:
        """Judge what is not known yet, in one batch.

        Raises
        ------
        OutOfTimeError
            If the time is over, or, once something failed, would be over before it could be trained afresh.
        """
        fresh = [delta for delta in dict.fromkeys(deltas) if delta not in self.known]
        if fresh:
            if self.launches and not self.budget.affords(2 if self.first else 1):
                raise OutOfTimeError
            self._tell(fresh)
            self.budget.timed(lambda: self.known.update(zip(fresh, self.evaluate(fresh), strict=True)))
            self.launches += 1
            self.first = self.first or next(((d, self.known[d]) for d in self.failing()), None)
            self._tell(())

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
        return sorted((d for d, j in self.known.items() if j.status is Status.FAIL), key=_order)

    def drop_components(self) -> None:
        """Try the proper subsets of the smallest failing compositions, and of the largest, all at once."""
        composed = [delta for delta in self.failing() if len(_active(delta)) > 1]
        tried = [*composed[:RIVALS], *composed[-2:]]
        self.judge(assembled(list(subset)) for delta in tried for subset in _subsets(_active(delta)))
        self.judge(assembled(_active(delta)) for delta in self.failing())

    def descend(self) -> None:
        """Shrink the magnitudes of the smallest failures of each kind side by side, a ladder of each in a round."""
        lines = [_Line.at(delta) for delta in self._rivals()]
        for _ in range(ROUNDS):
            rungs = [
                (line, [one for one in line.rungs(self.resolution) if self._inside(line.moved(*one))]) for line in lines
            ]
            if not any(tries for _, tries in rungs):
                break
            self.judge(line.moved(*one) for line, tries in rungs for one in tries)
            lines = self._worth_going_on([self._stepped(line, tries) for line, tries in rungs])

    def climb(self) -> None:
        """Judge a ladder from 0 to the limit on the line of the smallest failure: the degradation curve."""
        minimal = self.failing()[0]
        if len(minimal.parts) == 1 and minimal.continuous:
            top = math.copysign(minimal.limit or 0.0, minimal.magnitude or 0.0)
            ladder = [minimal.at(top * rung / CURVE) for rung in range(1, CURVE + 1)]
            self.judge(filter(self._inside, ladder))

    def _inside(self, delta: Perturbation) -> bool:
        ranges = [
            (abs(part.magnitude or 0.0), *self.domain.get(direction(part), (0.0, math.inf))) for part in _active(delta)
        ]
        return all(least <= size <= largest for size, least, largest in ranges)

    def kinds(self) -> dict[Kind, list[Perturbation]]:
        """Return the failures by what fails: the families at work, and the side of the deviation.

        A set of families that contains another failing one is no kind of its own.
        """
        groups: dict[Kind, list[Perturbation]] = {}
        for delta in self.failing():
            groups.setdefault(self._kind(delta), []).append(delta)
        return {kind: deltas for kind, deltas in groups.items() if not any(k[0] < kind[0] for k in groups)}

    def _kind(self, delta: Perturbation) -> Kind:
        return frozenset((p.family, p.options) for p in _active(delta)), self.known[delta].deviation > 0

    def _rivals(self) -> list[Perturbation]:
        """Return the smallest failures, at different seeds: several of the first kind, two of every other."""
        first, *others = [
            sorted({_line(delta): delta for delta in reversed(deltas)}.values(), key=_order)
            for deltas in self.kinds().values()
        ]
        chosen = [*first[:RIVALS], *(delta for deltas in others[:RIVALS] for delta in deltas[:2])]
        return [assembled(_active(delta)) for delta in chosen]

    def _stepped(self, line: _Line, tries: list[tuple[int, float]]) -> _Line:
        """Return the line after its rungs were judged: moved to the smallest that failed, else better resolved."""
        fails = [one for one in tries if self._fails_alike(line.moved(*one), line.delta)]
        low = {move: max([low, *_held_below(tries, fails, move)]) for move, low in line.low.items()}
        if not fails:
            return _Line(line.delta, low)
        move, fraction = min(fails, key=lambda one: _order(line.moved(*one)))
        after = _Line.at(line.moved(move, fraction))
        return _Line(after.delta, {**after.low, move: low[move] / fraction}) if move in after.low else after

    def _fails_alike(self, delta: Perturbation, other: Perturbation) -> bool:
        judgement = self.known[delta]
        return judgement.status is Status.FAIL and (judgement.deviation > 0) == (self.known[other].deviation > 0)

    def _worth_going_on(self, lines: list[_Line]) -> list[_Line]:
        """Drop the lines that cannot end below the smallest known failure of their kind."""
        best = {kind: _order(deltas[0]) for kind, deltas in self.kinds().items()}
        return [line for line in lines if _order(line.lowest()) <= best.get(self._kind(line.delta), (0, 0.0))]

    def outcome(self, confirm: Evaluate) -> Searched:
        """Train the smallest of each kind and the worst failures afresh, and return what was found.

        Where the time is over, what failed is returned as it is: `Searched.confirmed` is False.
        """
        unconfirmed: list[Perturbation] = []
        while self.failing():
            smallest = [deltas[0] for deltas in self.kinds().values()][:RIVALS]
            worst = max(self.failing(), key=lambda delta: (self.known[delta].severity, -delta.size))
            chosen = list(dict.fromkeys([*smallest, worst]))
            if not self.budget.affords():
                self.stopped = True
                known = [(delta, self.known[delta]) for delta in smallest]
                return self._found(known, (worst, self.known[worst]), unconfirmed, confirmed=False)
            self._tell(chosen, confirming=True)
            again = dict(zip(chosen, confirm(chosen), strict=True))
            lost = [delta for delta, judgement in again.items() if judgement.status is not Status.FAIL]
            if not lost:
                found = [(delta, again[delta]) for delta in smallest]
                return self._found(found, (worst, again[worst]), unconfirmed)
            unconfirmed += lost
            self.known = {delta: judgement for delta, judgement in self.known.items() if delta not in lost}
        return self._found([], None, unconfirmed)

    def _found(
        self,
        smallest: list[Judged],
        worst: Judged | None,
        unconfirmed: list[Perturbation],
        *,
        confirmed: bool = True,
    ) -> Searched:
        minimal = smallest[0] if smallest else None
        return Searched(
            minimal=minimal,
            worst=worst,
            others=tuple(smallest[1:]),
            curve=self._curve(minimal[0]) if minimal else (),
            undecided=next((pair for pair in self.known.items() if pair[1].status is Status.INCONCLUSIVE), None),
            holds_up_to=self._holds_up_to(minimal[0] if minimal else None),
            judged=len(self.known) + len(unconfirmed),
            launches=self.launches,
            unconfirmed=tuple(unconfirmed),
            planned=self.planned,
            stopped=self.stopped,
            confirmed=confirmed,
        )

    def _curve(self, minimal: Perturbation) -> tuple[tuple[float, Judgement], ...]:
        if len(minimal.parts) > 1 or not minimal.continuous:
            return ()
        line = [(d.magnitude or 0.0, j) for d, j in self.known.items() if _line(d) == _line(minimal)]
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


def direction(part: Perturbation) -> Direction:
    """Return the family of a single perturbation, and the side of 0 that it is on."""
    return part.family, part.options, (part.magnitude or 0.0) < 0


def _active(delta: Perturbation) -> list[Perturbation]:
    return [part for part in delta.parts if part.magnitude != 0]


def _order(delta: Perturbation) -> tuple[int, float]:
    return len(_active(delta)), delta.size


def _line(delta: Perturbation) -> tuple[object, ...]:
    """Return what stays the same while magnitudes change."""
    return tuple((p.family, p.options, p.seed, (p.magnitude or 0) > 0) for p in _active(delta))


def _subsets(parts: list[Perturbation]) -> list[tuple[Perturbation, ...]]:
    """Return the proper subsets: all of them while they are few, else the smallest and the largest."""
    sizes = range(1, len(parts)) if len(parts) <= 4 else (1, len(parts) - 1)
    return [subset for size in sizes for subset in combinations(parts, size)]


def _held_below(tries: list[tuple[int, float]], fails: list[tuple[int, float]], move: int) -> list[float]:
    """Return the fractions of one move that held, below the smallest of it that failed."""
    bound = min((f for m, f in fails if m == move), default=1.0)
    return [f for m, f in tries if m == move and f < bound]
