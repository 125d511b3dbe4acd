"""One failing perturbation and how far it can be made smaller: a ladder of magnitudes along each of its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from alignment_checks.judgement import Judgement, Status
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled

ALL = -1
"""The move that makes all parts smaller together."""


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
    """

    delta: Perturbation
    severity: float
    low: Mapping[int, Bound] = field(default_factory=dict)

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
        """Return the moves to try next; none once the line is resolved. A stale bound is looked at again."""
        if self.resolved(resolution):
            return []
        moves = []
        for i, bound in self.low.items():
            wide = 1 - bound.fraction > resolution
            fractions = ladder(bound, self.severity, resolution, count) if wide else [bound.fraction] * bound.stale
            moves += [{i: fraction} for fraction in fractions]
        together = ladder(Bound(), math.inf, resolution, max(2, count // 3)) if len(self.low) > 1 else []
        return [*moves, *({ALL: fraction} for fraction in together)]

    def expected(self, resolution: float) -> dict[int, float]:
        """Return the move to about where the line ceases to fail; of several parts, just below where it is known to."""
        if len(self.low) != 1:
            return {ALL: 1 - resolution}
        ((i, bound),) = self.low.items()
        return {i: crossing(bound, self.severity) or (1 + bound.fraction) / 2}

    def narrowed(self, judged: list[tuple[dict[int, float], Judgement, bool]]) -> tuple[Line, dict[int, float]]:
        """Return the line with each part's bound raised, and the smallest fraction of each part that still fails.

        `judged` are moves, how they were judged, and whether they fail alike.
        """
        low, fails = dict(self.low), {}
        for i, bound in self.low.items():
            mine = sorted((move[i], judgement, failed) for move, judgement, failed in judged if i in move)
            fails[i] = min((f for f, _, failed in mine if failed), default=1.0)
            held = [
                Bound(f, judgement.severity if judgement.status is Status.PASS else 0.0)
                for f, judgement, failed in mine
                if f < fails[i] and not failed
            ]
            lifted = max([replaced(bound, fails[i]), *held], key=lambda one: one.fraction)
            low[i] = lifted
        return Line(self.delta, self.severity, low), fails

    def stepped(self, fractions: Mapping[int, float], severity: float) -> Line:
        """Return the line at a smaller perturbation that fails too; what held stays a bound, stale if others moved."""
        whole = fractions.get(ALL)
        after = {i: fractions.get(i, 1.0 if whole is None else whole) for i in self.low}
        moved = [i for i, fraction in after.items() if fraction < 1]
        low = {}
        for i, bound in self.low.items():
            beside = any(j != i for j in moved)
            inside = bound.fraction < after[i]
            low[i] = (
                Bound(bound.fraction / after[i], bound.severity, bound.stale or beside)
                if inside and whole is None
                else Bound()
            )
        return Line(self.moved(fractions), severity, low)


def replaced(bound: Bound, fails: float) -> Bound:
    """Return the bound, or none at all where something at or below it fails."""
    return bound if bound.fraction < fails else Bound()


def crossing(low: Bound, severity: float) -> float | None:
    """Return the fraction where severity is expected to be 1, None where it says nothing."""
    if not low.severity < 1 < severity < math.inf:
        return None
    return low.fraction + (1 - low.fraction) * (1 - low.severity) / (severity - low.severity)


def ladder(low: Bound, severity: float, resolution: float, count: int) -> list[float]:
    """Return fractions strictly between a bound and 1: some where severity is expected to reach 1, the rest spread.

    Severity is a continuous margin, so the straight line between what held and what failed says where to look: two
    rungs enclose that place to the resolution, two more widely. The others guard against a bend, and are denser near 0
    where nothing is known to hold.

    Examples
    --------
    >>> ladder(Bound(), float("inf"), 0.01, 3)
    [0.0625, 0.25, 0.5625]
    >>> [round(rung, 4) for rung in ladder(Bound(0.5, 0.5), 1.5, 0.01, 6)]
    [0.6667, 0.6875, 0.7466, 0.7534, 0.8125, 0.8333]
    """
    near, gap, place = [], 1 - low.fraction, crossing(low, severity)
    if place is not None:
        tight, loose = 0.45 * resolution * place, max(3 * resolution * place, gap / 8)
        near = [place + offset for offset in (-loose, -tight, tight, loose)]
        near = [rung for rung in near if low.fraction < rung < 1]
    count = max(2, count - len(near))
    spread = [rung / (count + 1) for rung in range(1, count + 1)]
    even = [rung**2 if low.fraction == 0 else low.fraction + gap * rung for rung in spread]
    return sorted({*near, *even})
