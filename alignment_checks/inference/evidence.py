"""What paired seeds tell of a number: its interval, how likely chance is, and how many seeds would tell more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignment_checks.asymptotics.distributions import student_probability, student_quantile
from alignment_checks.asymptotics.intervals import LEVELS, MOST_TIMES, Ends
from alignment_checks.inference.readings import Ratio

CONFIDENCE = 0.95

MOST_SEEDS = 10_000
"""More seeds than these are not said to decide anything."""


@dataclass(frozen=True)
class Evidence:
    """A number that is judged by its sign, over seeds.

    Attributes
    ----------
    low, high : float
        Between which it lies on these seeds: equal where what was measured is exact.
    error : float
        Its jackknife standard error over the seeds (Tukey 1958); 0 for one.
    seeds : int
    stricter : tuple of (float, float)
        `low` and `high` at each of `intervals.LEVELS`, of one run whose limit is a mean of random values; else empty.
    random : bool
        Whether it is of such a run.
    """

    low: float
    high: float
    error: float
    seeds: int
    stricter: tuple[Ends, ...] = ()
    random: bool = False

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval over seeds, around all that each of them leaves open."""
        reach = self._quantile() * self.error if self.seeds > 1 else 0.0
        return self.low - reach, self.high + reach

    @property
    def p_above(self) -> float | None:
        """Two-sided p-value of its being above 0; None for one seed that leaves nothing to chance."""
        return least_level([low > 0 for low, _ in self.stricter]) if self.seeds < 2 else self._p(self.low)

    @property
    def p_below(self) -> float | None:
        """The same of its being below 0."""
        return least_level([high < 0 for _, high in self.stricter]) if self.seeds < 2 else self._p(-self.high)

    @property
    def wanted(self) -> float:
        """About how many seeds bring its interval clear of 0: n·(half width / distance)²; inf where none would."""
        centre, low, high = 0.5 * (self.low + self.high), *self.interval()
        if not low <= 0 < high:
            return self.seeds
        within = 0.5 * (self.high - self.low)
        distance = abs(centre) - within
        return self.seeds * (self._quantile() * self.error / distance) ** 2 if distance > 0 else math.inf

    @property
    def narrower(self) -> float:
        """By how much what one run leaves open has to be narrower to be clear of 0; inf where nothing would do."""
        centre, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        return half / abs(centre) if centre != 0 else math.inf

    def _quantile(self) -> float:
        return student_quantile(self.seeds - 1, (1 + CONFIDENCE) / 2) if self.seeds > 1 else math.inf

    def _p(self, distance: float) -> float | None:
        if math.isnan(distance) or math.isnan(self.error):
            return None
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return min(1.0, 2 * student_probability(self.seeds - 1, -distance / self.error))


def least_level(clear: Sequence[bool]) -> float | None:
    """Return the p-value of what is clear of a bound at the first of `LEVELS`: the last it is still clear of at.

    None where there are no levels, since nothing is left to chance; 1 where it is not even clear at the first.

    Examples
    --------
    >>> least_level([True, True] + [False] * 24), least_level([False] * 26), least_level([])
    (0.025, 1.0, None)
    """
    if not clear:
        return None
    return min((level for level, is_clear in zip(LEVELS, clear, strict=True) if is_clear), default=1.0)


def jackknifed(
    form: Callable[..., Any], ratios: Sequence[Ratio], bounds: Ends, stricter: Sequence[Ends] = ()
) -> Evidence:
    """Return the evidence on a smooth function of ratios over the same seeds.

    Parameters
    ----------
    form : callable
        Of as many values, or arrays of them.
    ratios : sequence of Ratio
    bounds : (float, float)
        Between which the function lies on all seeds; read only where the ratios' values are known to intervals.
    stricter : sequence of (float, float)
        The same at each of `intervals.LEVELS`, of one run.
    """
    centre, n = float(form(*(ratio.value for ratio in ratios))), len(ratios[0].numerator)
    low, high = bounds if any(ratio.low != ratio.high for ratio in ratios) else (centre, centre)
    if n < 2:
        return Evidence(low, high, 0.0, n, tuple(stricter), any(ratio.stricter for ratio in ratios))
    left_out = form(*(ratio.left_out for ratio in ratios))
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    return Evidence(low, high, error, n)


def scattered(evidence: Sequence[Evidence]) -> bool:
    """Return whether it is scatter over seeds that leaves linear forms open which straddle 0: others may then tell."""
    return max(one.seeds for one in evidence) > 1 and _wanted(evidence) < MOST_SEEDS


def decisive(evidence: Sequence[Evidence]) -> str:
    """Return what would decide on linear forms, above 0 outside, that straddle 0."""
    seeds = max(one.seeds for one in evidence)
    if seeds < 2:
        return _more_steps(evidence)
    wanted = _wanted(evidence)
    if not wanted < MOST_SEEDS:
        return f"it lies at the tolerance: more than {MOST_SEEDS} seeds would be needed"
    return f"about {_rounded_up(max(wanted, seeds + 1))} seeds would decide it (now {seeds})"


def _wanted(evidence: Sequence[Evidence]) -> float:
    """Return about how many seeds would decide."""
    outside = [one.wanted for one in evidence if one.low > 0]
    return min(outside) if outside else max(one.wanted for one in evidence)


def _more_steps(evidence: Sequence[Evidence]) -> str:
    """Return what more steps would have to bring, of one run: of random values, the square as many."""
    outside = [one.narrower for one in evidence if one.low + one.high > 0]
    times = min(outside) if outside else max(one.narrower for one in evidence)
    if not times < MOST_TIMES:
        return "more steps; how many is unknown, since the tolerance is in the middle of the limit's interval"
    squared = any(one.random for one in evidence)
    many = f", about {_short(max(times, 1.05) ** 2)} times as many of them" if squared else ""
    return f"more steps: the limit's interval would have to be {_short(max(times, 1.05))} times narrower{many}"


def _short(number: float) -> str:
    return f"{number:.2g}" if number < 99 else str(_rounded_up(number))


def _rounded_up(number: float) -> int:
    """Return a number for people: up to two significant digits."""
    unit: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit
