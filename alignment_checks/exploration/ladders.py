"""Where the rungs of a ladder stand: about the place where severity is expected to fall to 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignment_checks.perturbations.value import FAINT

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
