"""One failing perturbation and how far it can be made smaller: a ladder of magnitudes along each of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from alignment_checks.judgement import Judgement, Status
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.perturbations.value import FAINT

ALL = -1
"""The move that makes all parts smaller together."""
PATH = (1.0, 0.95, 0.87, 0.7)
"""How far all parts go together toward where each of them could go by itself."""
BEND = 0.3
"""How other seeds are spread below that place: the less, the nearer to it."""
TOOTH = 0.45
"""How far from where a line is expected to cease to fail the nearest rungs are, in units of the resolution."""
FORKED = 6
"""So many rungs at least stand about two such places, where a straight line and a power law differ."""


@dataclass(frozen=True)
class Bound:
    """The largest fraction of a magnitude at which a line was seen to hold, and how severe it was there.

    `before` is the next smaller one, and how severe it was at that; `stale` is said of a bound beside other parts.
    """

    fraction: float = 0.0
    severity: float = 0.0
    stale: bool = False
    before: tuple[float, float] = (0.0, 0.0)


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
        """Return the line of which nothing has been tried yet; beside others, what is as good as 0 is left there."""
        movable = [i for i, part in enumerate(delta.parts) if part.continuous]
        worth_it = [i for i in movable if not delta.parts[i].is_faint]
        return cls(delta, severity, {i: Bound() for i in worth_it or movable})

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
        after = {i: fractions.get(i, whole) for i in self.low}
        moved = {i for i, fraction in after.items() if fraction < 1}
        left = {i: bound for i, bound in self.low.items() if not delta.parts[i].is_faint}
        low = {i: _beside(bound, after[i], moved - {i}) for i, bound in left.items()}
        together = _beside(self.together, whole, ()) if ALL in fractions else Bound()
        toward = {i: fraction / after[i] for i, fraction in self.toward.items() if fraction < after[i]}
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


def replaced(bound: Bound, fails: float) -> Bound:
    """Return the bound, or none at all where something at or below it fails."""
    return bound if bound.fraction < fails else Bound()


def crossings(low: Bound, severity: float) -> list[float]:
    """Return the fractions where severity is expected to be 1, in order: by a straight line, and by a power law.

    They go through what held and what failed or, where those are nearer to 1, through the last two that held.
    """
    if not low.severity < 1 < severity < math.inf:
        return []
    ends = (low.fraction, low.severity), (1.0, severity)
    nearer = 0 < low.before[1] < low.severity and low.severity * severity > 1
    found = [*_through(low.before, ends[0])] if nearer else []
    found = [place for place in found if low.fraction < place < 1]
    return sorted(min(1.0, max(low.fraction, place)) for place in found or _through(*ends) if place > 0)


def _through(lower: tuple[float, float], upper: tuple[float, float]) -> list[float]:
    """Return where a straight line through two points reaches 1 and, as severity does near 0, a power law.

    Beyond 1, where nothing is looked for, a power law through two points that are nearly alike is no number at all.
    """
    (x, at_x), (y, at_y) = lower, upper
    straight = x + (y - x) * (1 - at_x) / (at_y - at_x)
    grows = math.log(at_y / at_x) if x > FAINT and at_x > 0 else 0.0
    if not grows > 0:
        return [straight]
    logarithm = math.log(x) - math.log(y / x) * math.log(at_x) / grows
    return [straight, math.exp(logarithm)] if logarithm <= 0 else [straight]


def ladder(low: Bound, severity: float, resolution: float, count: int) -> list[float]:
    """Return about as many fractions strictly between a bound and 1, about where severity is expected to reach 1.

    Severity is a continuous margin, so a straight line between what held and what failed, and a power law, say where to
    look. Rungs half a resolution to either side enclose what lies there; the others, farther off by growing steps,
    enclose what does not the more closely the better it was guessed. Without a guess they are spread, denser near 0
    where nothing is known to hold.

    Examples
    --------
    >>> ladder(Bound(), float("inf"), 0.01, 3)
    [0.0625, 0.25, 0.5625]
    >>> [round(rung, 4) for rung in ladder(Bound(0.5, 0.5), 1.5, 0.01, 6)]
    [0.625, 0.7466, 0.7534, 0.7708, 0.7778, 0.8871]
    """
    places, tooth = _expected(low, severity, resolution, count), TOOTH * resolution
    if not places:
        found = []
    elif count < FORKED:
        found = _guarded(places[0], low.fraction, tooth, count)
    else:
        found = _enclosed(places[0], places[-1], low.fraction, tooth, count)
    rungs = {rung for rung in found if low.fraction < rung < 1}
    return sorted(rungs if len(rungs) > 1 else {*rungs, *_spread(low, max(2 - len(rungs), count - len(rungs)))})


def _expected(low: Bound, severity: float, resolution: float, count: int) -> list[float]:
    """Return one or two fractions where severity is expected to reach 1, in order; none where nothing says so.

    Where they are about the same, or there are too few rungs for two, it is the one between them.
    """
    places = crossings(low, severity)
    if len(places) > 1 and (count < FORKED or places[1] - places[0] < 2 * TOOTH * resolution * places[0]):
        places = [sum(places) / 2]
    return places


def _guarded(place: float, bound: float, tooth: float, count: int) -> list[float]:
    """Return few rungs about a place, and one half of the way to the farther end: the place may be wrong."""
    down = place - bound >= 1 - place
    guard = _downward(place, bound, tooth, 2)[-1] if down else (place + 1) / 2
    if count == 2:
        return [guard, place * (1 + tooth if down else 1 - tooth)]
    below, above = (count - 1) // 2, count // 2
    return [guard, *_downward(place, bound, tooth, below), *_upward(place, tooth, above)]


def _enclosed(lower: float, upper: float, bound: float, tooth: float, count: int) -> list[float]:
    """Return rungs about two places, the rest to both sides; all to one side where the other has no room."""
    inner = [lower * (1 + tooth), upper * (1 - tooth)] if upper > lower else []
    count -= len(inner)
    below = count if upper * (1 + tooth) >= 1 else 0 if lower * (1 - tooth) <= bound else count // 2
    return [*inner, *_downward(lower, bound, tooth, below), *_upward(upper, tooth, count - below)]


def _upward(place: float, tooth: float, count: int) -> list[float]:
    """Return rungs from a place up to what failed."""
    return [place * (1 + step) for step in _steps(1 / place - 1, tooth, count)]


def _downward(place: float, bound: float, tooth: float, count: int) -> list[float]:
    """Return rungs from a place down to a bound, or toward 0 where that is all that is known."""
    if bound > 0:
        return [place * (1 - step) for step in _steps(1 - bound / place, tooth, count)]
    return [place * (1 - tooth), *(place * (step / count) ** 2 for step in reversed(range(1, count)))][:count]


def _steps(span: float, tooth: float, count: int) -> list[float]:
    """Return so many steps away from a place, in units of it: the first a tooth, the last half of the way to the end.

    A single one is between the two.
    """
    if span <= 2 * tooth or count < 1:
        return [tooth] * min(1, count)
    if count == 1:
        return [math.sqrt(tooth * span / 2)]
    return [tooth * (span / 2 / tooth) ** (step / (count - 1)) for step in range(count)]


def _spread(low: Bound, count: int) -> list[float]:
    spread = [rung / (count + 1) for rung in range(1, count + 1)]
    return [rung**2 if low.fraction == 0 else low.fraction + (1 - low.fraction) * rung for rung in spread]
