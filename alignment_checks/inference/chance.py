"""How often chance alone makes what holds fail: of one p-value among many, and what would tell it from chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from alignment_checks.asymptotics.distributions import normal_quantile
from alignment_checks.asymptotics.intervals import LEVELS, MOST_TIMES
from alignment_checks.inference.judgement import Judgement, Status

LEVEL = 0.05
"""A failure is told from chance at this level, unless said otherwise; a pass rests on plain 95 % intervals."""


@dataclass(frozen=True)
class Chance:
    """How often chance alone may make what holds fail, in a whole search.

    Attributes
    ----------
    level : float
    among : int or None
        None where what fails is confirmed under seeds that took no part in finding it: then only what is confirmed
        counts. Else a failure rests on the run that it was found in, and its p-value is multiplied by so many
        perturbations (Bonferroni): as many as can be judged, fixed before any is.
    """

    level: float = LEVEL
    among: int | None = None

    def confirmable(self, p_value: float | None) -> bool:
        """Return whether chance has a part in what fails, and other seeds are there to confirm it."""
        return p_value is not None and self.among is None

    def allowing(self, judgement: Judgement, among: int, already: int = 1) -> Judgement:
        """Return a judgement whose p-value allows for its being picked among so many; it did for `already` as many."""
        if self.among is None or judgement.status is not Status.FAIL or judgement.p_value is None:
            return judgement
        p_value = min(1.0, judgement.p_value * among / already)
        told = f"more steps would tell{_as_many(judgement.p_value, self.level * already / among)}"
        if judgement.p_value <= already * LEVELS[-1]:
            told = "and one run shows none smaller: several seeds, or fewer examples, would tell"
        return _at_level(judgement, p_value, self.level, f"picked among {among}, {told}")


def corrected(
    judgements: Sequence[Judgement], level: float, share: float = 1.0, more: str = "more seeds"
) -> list[Judgement]:
    """Return judgements that fail by chance together at most at `level`: p-values adjusted for their number.

    Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 6 (1979). What
    fails by no chance keeps its status; what fails no more is inconclusive.

    Parameters
    ----------
    judgements : sequence of Judgement
    level : float
    share : float in (0, 1]
        The part of the level that these may spend; their p-values are divided by it.
    more : str
        What would tell where it is more than the level.
    """
    known = {i: j.p_value for i, j in enumerate(judgements) if j.status is Status.FAIL and j.p_value is not None}
    adjusted = dict(zip(known, holm([p / share for p in known.values()]), strict=True))
    alone = {i: level * p / max(adjusted[i], p) if p > 0 else level for i, p in known.items()}
    told = {i: f"{more} would tell{_as_many(p, alone[i])}" for i, p in known.items()}
    return [_at_level(j, adjusted[i], level, told[i]) if i in adjusted else j for i, j in enumerate(judgements)]


def holm(p_values: Sequence[float], among: int | None = None) -> list[float]:
    """Return Holm's adjusted p-values, of tests that are the smallest `among` as many; None is those alone.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]), holm([0.01, 0.02], among=5)
    ([0.03, 0.06, 0.06], [0.05, 0.08])
    """
    m = len(p_values) if among is None else among
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, max(1, m - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _as_many(p_value: float, level: float) -> str:
    """Return how many times as many bring a p-value to a level, since errors go as their number to the power −½."""
    times = (normal_quantile(level / 2) / normal_quantile(p_value / 2)) ** 2 if 0 < p_value < 1 else math.inf
    return f", about {times:.2g} times as many" if 1 < times < MOST_TIMES else ""


def _at_level(judgement: Judgement, p_value: float, level: float, told: str) -> Judgement:
    if p_value <= level:
        return replace(judgement, p_value=p_value)
    needs = f"p = {p_value:.2g} is not below the level, {level:.2g}: {told}"
    return replace(judgement, status=Status.INCONCLUSIVE, p_value=p_value, needs=needs)
