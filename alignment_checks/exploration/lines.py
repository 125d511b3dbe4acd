"""One failing perturbation and how far it can be made smaller: a ladder of magnitudes along each of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from alignment_checks.exploration.ladders import Bound, crossings, ladder
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.perturbations.value import FAINT

ALL = -1
"""The move that makes all parts smaller together."""
PATH = (1.0, 0.95, 0.87, 0.7)
"""How far all parts go together toward where each of them could go by itself."""
BEND = 0.3
"""How other seeds are spread below that place: the less, the nearer to it."""
BISECTIONS = 12
"""Of a move that does not hold: to a four-thousandth of it."""


@dataclass(frozen=True)
class Line:
    """A failing perturbation, and how far each of its parts has been tried.

    Attributes
    ----------
    delta : Perturbation
    severity : float
        Of δ: above 1.
    low : mapping from part to Bound
        By the index of the part. A bound is stale once another part has moved: it held beside a larger one.
    together : Bound
        Of all parts at one fraction.
    toward : mapping from part to fraction
        Where each part could go by itself, beside the others as they were then.
    """

    delta: Perturbation
    severity: float
    low: Mapping[int, Bound] = field(default_factory=dict)
    together: Bound = field(default_factory=Bound)
    toward: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def at(cls, delta: Perturbation, severity: float) -> Line:
        """Return the line of which nothing has been tried yet; beside others, what is as good as 0 is left there."""
        movable = [i for i, part in enumerate(delta.parts) if part.continuous]
        worth_it = [i for i in movable if not delta.parts[i].is_faint]
        return cls(delta, severity, {i: Bound() for i in worth_it or movable})

    def moved(self, fractions: Mapping[int, float]) -> Perturbation:
        """Return the perturbation with some parts at a fraction of their magnitude; ALL is every continuous part.

        What is moved to 0 is left out.
        """
        factors = self._factors(fractions)
        return assembled(
            [
                part.at((part.magnitude or 0.0) * factors[i]) if i in factors else part
                for i, part in enumerate(self.delta.parts)
                if factors.get(i) != 0
            ]
        )

    def _factors(self, fractions: Mapping[int, float]) -> dict[int, float]:
        return dict.fromkeys(self.low, fractions.get(ALL, 1.0)) | {i: f for i, f in fractions.items() if i != ALL}

    def lowest(self) -> Perturbation:
        """Return a bound on where the line can still go: each part at the largest fraction that was seen to hold."""
        return self.moved({i: bound.fraction for i, bound in self.low.items()})

    def expected(self) -> float:
        """Return the size at which the line is expected to cease to fail, all parts moved together."""
        bound = next(iter(self.low.values())) if len(self.low) == 1 else self.together
        found = crossings(bound, self.severity)
        return self.moved({ALL: sum(found) / len(found)}).size if found else self.delta.size

    def resolved(self, resolution: float) -> bool:
        """Return whether every part holds just below its magnitude, as far as was seen."""
        return all(1 - bound.fraction <= resolution and not bound.stale for bound in self.low.values())

    def rungs(self, resolution: float, count: int) -> list[dict[int, float]]:
        """Return about as many moves to try next; none once the line is resolved. A stale bound is looked at again.

        Of several parts, each goes down by itself, all go down together, and all toward where each could go by itself.
        """
        if self.resolved(resolution):
            return []
        path = [{i: 1 - way * (1 - f) for i, f in self.toward.items()} for way in PATH if len(self.toward) > 1]
        share = max(2, (count - len(path)) // (len(self.low) + (len(self.low) > 1)))
        moves = []
        for i, bound in self.low.items():
            wide = 1 - bound.fraction > resolution
            fractions = ladder(bound, self.severity, resolution, share) if wide else [bound.fraction] * bound.stale
            moves += [{i: fraction} for fraction in fractions]
        left = max(2, count - len(path) - len(moves))
        wide = len(self.low) > 1 and 1 - self.together.fraction > resolution
        together = ladder(self.together, self.severity, resolution, left) if wide else []
        return [*path, *moves, *({ALL: fraction} for fraction in together)]

    def lowered(self, least: Callable[[Perturbation], float]) -> list[dict[int, float]]:
        """Return the moves of one part to its least magnitude, or as good as 0, where nothing is known to hold yet."""
        untried = [(i, self.delta.parts[i]) for i, bound in self.low.items() if bound == Bound()]
        floors = {i: math.nextafter(least(part) / abs(part.magnitude or 1.0), 1.0) for i, part in untried}
        alone = len(self.delta.parts) == 1  # as good as 0, it is the identity
        return [{i: max(FAINT, floor)} for i, floor in floors.items() if (FAINT if alone else 0.0) < floor < 1]

    def dropped(self, resolution: float) -> list[dict[int, float]]:
        """Return the moves of one part, and of all traces, to 0: what was needed need not be beside smaller others.

        A trace is below the resolution of its limit; other parts are tried that nothing but 0 may be below, those too
        that are there or not, as another seed of the init is.
        """
        traces = [i for i in self.low if self.delta.parts[i].size <= resolution]
        tried = [i for i, bound in self.low.items() if bound.fraction == 0 or i in traces]
        tried += [i for i, part in enumerate(self.delta.parts) if not part.continuous]
        return [*({i: 0.0} for i in tried), dict.fromkeys(traces, 0.0)] if len(self.delta.parts) > 1 else []

    def below(self, resolution: float, count: int) -> list[dict[int, float]]:
        """Return so many moves from where the line is expected to cease to fail down to where it is known not to.

        Of several parts, all are just below where they are known to fail.
        """
        if len(self.low) != 1:
            return [{ALL: 1 - resolution}] * count
        ((i, bound),) = self.low.items()
        guesses = crossings(bound, self.severity)
        top = max(guesses, default=1 - resolution if bound.stale else (1 + bound.fraction) / 2)
        return [{i: bound.fraction + (top - bound.fraction) * (1 - step / count) ** BEND} for step in range(count)]

    def narrowed(self, judged: Sequence[tuple[Mapping[int, float], Judgement, bool]]) -> Line:
        """Return the line with each part's bound raised, and where each part could go by itself.

        `judged` are moves, how they were judged, and whether they fail alike.
        """
        low, fails = {}, {}
        for i, bound in {**self.low, ALL: self.together}.items():
            mine = sorted((move[i], j, failed) for move, j, failed in judged if [*move] == [i])
            fails[i] = min((f for f, _, failed in mine if failed), default=1.0)
            held = [
                Bound(f, judgement.severity if judgement.status is Status.PASS else 0.0)
                for f, judgement, failed in mine
                if f < fails[i] and not failed
            ]
            low[i] = _highest([replaced(bound, fails[i]), *held])
        together, _ = low.pop(ALL), fails.pop(ALL)
        toward = {**self.toward, **{i: fraction for i, fraction in fails.items() if fraction < 1}}
        return replace(self, low=low, together=together, toward=toward)

    def stepped(self, fractions: Mapping[int, float], severity: float) -> Line:
        """Return the line at a smaller perturbation that fails too; what held stays a bound, stale if others moved."""
        whole = fractions.get(ALL, 1.0)
        delta = self.moved(fractions)
        after = self._factors(fractions)
        moved = {i for i, fraction in after.items() if fraction < 1}
        kept = [i for i in range(len(self.delta.parts)) if after.get(i) != 0]
        left = {i: at for at, i in enumerate(kept) if i in self.low and not delta.parts[at].is_faint}
        low = {at: _beside(self.low[i], after[i], moved - {i}) for i, at in left.items()}
        together = _beside(self.together, whole, ()) if ALL in fractions else Bound()
        toward = {left[i]: self.toward[i] / after[i] for i in left if self.toward.get(i, 1.0) < after[i]}
        return Line(delta, severity, low, together, toward)


def _highest(bounds: Sequence[Bound]) -> Bound:
    """Return the highest of the bounds, which remembers the next lower one."""
    *lower, highest = sorted(bounds, key=lambda one: one.fraction)
    before = [one.before for one in bounds] + [(one.fraction, one.severity) for one in lower]
    return replace(highest, before=max(one for one in before if one[0] < highest.fraction or one[0] == 0))


def _beside(bound: Bound, fraction: float, others: Collection[int]) -> Bound:
    """Return a bound in units of what is left after a move, stale where other parts moved; none where it is below."""
    if bound.fraction >= fraction:
        return Bound()
    stale = bound.stale or (bound.fraction > 0 and bool(others))
    before = (0.0, 0.0) if others else (bound.before[0] / fraction, bound.before[1])
    return Bound(bound.fraction / fraction, bound.severity, stale, before)


def shortened(move: Mapping[int, float], holds: Callable[[dict[int, float]], bool]) -> dict[int, float]:
    """Return about as much of a move that does not hold as does, by bisection between it and no move."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(_share_of(move, middle)) else (low, middle)
    return _share_of(move, low)


def _share_of(move: Mapping[int, float], share: float) -> dict[int, float]:
    return {i: 1 - share * (1 - fraction) for i, fraction in move.items()}


def replaced(bound: Bound, fails: float) -> Bound:
    """Return the bound, or none at all where something at or below it fails."""
    return bound if bound.fraction < fails else Bound()
