"""One failing perturbation and how far it can be made smaller: a ladder of magnitudes along each of its parts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from alignment_checks.judgement import Judgement, Status
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled

ALL = -1
"""The move that makes all parts smaller together."""
PATH = (1.0, 0.95, 0.87, 0.7)
"""How far all parts go together toward where each of them could go by itself."""
BEND = 0.2
"""How other seeds are spread below that place: the less, the nearer to it."""
TEETH = 6
"""Rungs on either side of where a line is expected to cease to fail, at most."""


@dataclass(frozen=True)
class Bound:
    """The largest fraction of a magnitude at which a line was seen to hold, and how severe it was there."""

    fraction: float = 0.0
    severity: float = 0.0
    stale: bool = False


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
    together: Bound = Bound()
    toward: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def at(cls, delta: Perturbation, severity: float) -> Line:
        """Return the line of which nothing has been tried yet."""
        return cls(delta, severity, {i: Bound() for i, part in enumerate(delta.parts) if part.continuous})

    def moved(self, fractions: Mapping[int, float]) -> Perturbation:
        """Return the perturbation with some parts at a fraction of their magnitude; ALL is every continuous part."""
        whole = fractions.get(ALL, 1.0)
        factors = {i: fractions.get(i, whole) for i in self.low}
        return assembled(
            [
                part.at((part.magnitude or 0.0) * factors[i]) if i in factors else part
                for i, part in enumerate(self.delta.parts)
            ]
        )

    def lowest(self) -> Perturbation:
        """Return a bound on where the line can still go: each part at the largest fraction that was seen to hold."""
        return self.moved({i: bound.fraction for i, bound in self.low.items()})

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

    def below(self, resolution: float, count: int) -> list[dict[int, float]]:
        """Return so many moves from where the line is expected to cease to fail down to where it is known not to.

        Of several parts, all are just below where they are known to fail.
        """
        if len(self.low) != 1:
            return [{ALL: 1 - resolution}] * count
        ((i, bound),) = self.low.items()
        top = crossing(bound, self.severity) or (1 - resolution if bound.stale else (1 + bound.fraction) / 2)
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
            low[i] = max([replaced(bound, fails[i]), *held], key=lambda one: one.fraction)
        together, _ = low.pop(ALL), fails.pop(ALL)
        toward = {**self.toward, **{i: fraction for i, fraction in fails.items() if fraction < 1}}
        return replace(self, low=low, together=together, toward=toward)

    def stepped(self, fractions: Mapping[int, float], severity: float) -> Line:
        """Return the line at a smaller perturbation that fails too; what held stays a bound, stale if others moved."""
        whole = fractions.get(ALL, 1.0)
        after = {i: fractions.get(i, whole) for i in self.low}
        moved = {i for i, fraction in after.items() if fraction < 1}
        low = {i: _beside(bound, after[i], moved - {i}) for i, bound in self.low.items()}
        together = _beside(self.together, whole, ()) if ALL in fractions else Bound()
        toward = {i: fraction / after[i] for i, fraction in self.toward.items() if fraction < after[i]}
        return Line(self.moved(fractions), severity, low, together, toward)


def _beside(bound: Bound, fraction: float, others: Collection[int]) -> Bound:
    """Return a bound in units of what is left after a move, stale where other parts moved; none where it is below."""
    if bound.fraction >= fraction:
        return Bound()
    return Bound(bound.fraction / fraction, bound.severity, bound.stale or (bound.fraction > 0 and bool(others)))


def replaced(bound: Bound, fails: float) -> Bound:
    """Return the bound, or none at all where something at or below it fails."""
    return bound if bound.fraction < fails else Bound()


def crossing(low: Bound, severity: float) -> float | None:
    """Return the fraction where severity is expected to be 1, None where it says nothing."""
    if not low.severity < 1 < severity < math.inf:
        return None
    return low.fraction + (1 - low.fraction) * (1 - low.severity) / (severity - low.severity)


def power_crossing(low: Bound, severity: float) -> float | None:
    """Return the same where severity grows as a power of the magnitude, as it does near 0."""
    if not 0 < low.severity < 1 < severity < math.inf or low.fraction == 0:
        return None
    return math.exp(math.log(low.fraction) * math.log(severity) / math.log(severity / low.severity))


def ladder(low: Bound, severity: float, resolution: float, count: int) -> list[float]:
    """Return fractions strictly between a bound and 1: some where severity is expected to reach 1, the rest spread.

    Severity is a continuous margin, so a straight line between what held and what failed, and a power law, say where to
    look: a comb as dense as the resolution stands around either place. The others guard against a bend, and are denser
    near 0 where nothing is known to hold.

    Examples
    --------
    >>> ladder(Bound(), float("inf"), 0.01, 3)
    [0.0625, 0.25, 0.5625]
    >>> [round(rung, 4) for rung in ladder(Bound(0.5, 0.5), 1.5, 0.01, 6)]
    [0.6667, 0.7466, 0.7534, 0.7708, 0.7778, 0.8333]
    """
    gap = 1 - low.fraction
    near = [rung for rung in _combed(low, severity, resolution) if low.fraction < rung < 1][: max(2, count - 2)]
    count = max(2 - bool(near), count - len(near))
    spread = [rung / (count + 1) for rung in range(1, count + 1)]
    even = [rung**2 if low.fraction == 0 else low.fraction + gap * rung for rung in spread]
    return sorted({*near, *even})


def _combed(low: Bound, severity: float, resolution: float) -> list[float]:
    """Return rungs around the places where severity is expected to reach 1, the nearest to them first."""
    found = [crossing(low, severity), power_crossing(low, severity)]
    places = [place for place in found if place is not None]
    if len(places) > 1 and abs(places[0] - places[1]) < 0.9 * resolution * places[0]:
        places = [sum(places) / 2]
    offsets = [sign * (0.45 + 0.9 * tooth) for tooth in range(TEETH) for sign in (-1, 1)]
    return [place * (1 + offset * resolution) for offset in offsets for place in places]
