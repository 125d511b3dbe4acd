"""What other seeds of a family tell of one seed: how fast severity grows, and so where it is expected to reach 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from alignment_checks.exploration.knowledge import order
from alignment_checks.exploration.lines import Line
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.perturbations import Perturbation

Known = Mapping[Perturbation, Judgement]
"""Everything judged so far."""
NEARLY = 4
"""How many seeds that nearly failed are followed at once."""
SLOWEST = 0.5
"""The least power of the magnitude that severity is taken to grow by: where it hardly grows, nothing leads anywhere."""


def is_unseeded(delta: Perturbation) -> bool:
    """Return whether δ is a single perturbation that draws nothing, which has two sides at most."""
    return len(delta.parts) == 1 and not delta.seeded


def growth(known: Known, like: Perturbation) -> float:
    """Return the power of the magnitude by which severity grows, as two magnitudes of one seed show; 1 if none do.

    Of the seeds of the family, and of the two magnitudes of each that are nearest to where severity is 1, the nearest.
    """
    seeds: dict[int, list[tuple[float, float, float]]] = {}
    for delta, judgement in known.items():
        if 0 < judgement.severity < math.inf and _is_of_family(delta, like):
            severity = math.log(judgement.severity)
            seeds.setdefault(delta.seed, []).append((abs(severity), severity, math.log(delta.size)))
    pairs = [sorted(places)[:2] for places in seeds.values() if len(places) > 1]
    if not pairs:
        return 1.0
    (_, severity, size), (_, other, at) = min(pairs)
    return max(SLOWEST, (severity - other) / (size - at)) if size != at else 1.0


def expected(known: Known, line: Line) -> float:
    """Return the size at which a line is expected to cease to fail: before any of it held, as other seeds tell."""
    if not (line.delta.seeded and line.low) or any(bound.fraction for bound in line.low.values()):
        return line.expected()
    return line.delta.size * float(line.severity ** (-1 / growth(known, line.delta)))


def nearly(
    known: Known, smallest: Perturbation, resolution: float, is_new: Callable[[Perturbation], bool]
) -> list[Perturbation]:
    """Return what passed at other seeds, moved to where it is expected to fail, if that is below the smallest failure.

    `is_new` says whether a perturbation comes to a run that was not trained yet.
    """
    if not smallest.seeded:
        return []
    grows = growth(known, smallest)
    failed = {delta.seed for delta, judgement in known.items() if judgement.status is Status.FAIL}
    reach: dict[int, Perturbation] = {}
    for delta, judgement in known.items():
        if judgement.status is not Status.PASS or not 0 < judgement.severity < 1 or delta.seed in failed:
            continue
        size = delta.size * judgement.severity ** (-1 / grows) * (1 + resolution)
        if _is_of_family(delta, smallest) and size < smallest.size * (1 - resolution):
            moved = delta.at((delta.magnitude or 0.0) * size / delta.size)
            reach[delta.seed] = max(reach.get(delta.seed, moved), moved, key=order)
    return sorted(filter(is_new, reach.values()), key=order)[:NEARLY]


def _is_of_family(delta: Perturbation, like: Perturbation) -> bool:
    """Return whether both are single, of one family and to one side of 0, at whatever seeds."""
    if len(delta.parts) > 1 or not delta.size:
        return False
    return (delta.family, delta.options, _is_positive(delta)) == (like.family, like.options, _is_positive(like))


def _is_positive(delta: Perturbation) -> bool:
    return (delta.magnitude or 0.0) > 0
