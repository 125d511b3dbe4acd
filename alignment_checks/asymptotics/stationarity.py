"""The mean of a series that is random about it: its transient, its standard error, and what speaks against a mean.

Every function here takes the series of one run as a NumPy vector, index t, and knows nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment_checks.asymptotics.distributions import normal_quantile, student_quantile
from alignment_checks.asymptotics.extrapolation import slope
from alignment_checks.asymptotics.intervals import Ends, Interval, Vector, confident

BATCH = 5
"""A transient is looked for in the means of so many values."""

BLOCKS = 512
"""Autocorrelation is estimated on at most about this many block means."""

TREND_BLOCKS = 24
"""A trend is looked for in the means of so many blocks."""

POORLY = 7
"""The error of a mean is taken to be known as poorly as from so many times fewer values than the mean is worth.

It is the least that keeps every row of 400 values in the table of `tests/benchmarks/operating_characteristics.py` at
93 % but those of the slowest noise: the row covered least (800 series of each) was at 90, 92, 92, 93 and 94 % with 2,
4, 5, 7 and 8, and of 1000 values the row covered most at 97 to 98 % with any. Were nothing but the coefficient of an
autoregression unknown, it would be 2: the relative variance of its long-run variance is 4 over the effective size.
"""

FEW = 30
"""Of a mean that is worth fewer values, it is allowed for that the autocorrelation may be stronger than it looks."""


def transient(series: Vector) -> int:
    """Return how many values to drop before averaging, at most half: twice as many as come before the mean is crossed.

    The crossing rule (Fishman, *Concepts and Methods in Discrete Event Digital Simulation*, 1973), on means of five
    values and about the mean of the second half. A transient that fluctuations cross is as small as they are, and at
    twice that time negligible. Nothing is dropped where what comes before is off by no more than chance. The cut of the
    least standard error (MSER) is often where a quiet stretch begins, so that means of squares come out too low.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=1000)
    >>> noise[:100] += np.linspace(50, 0, 100)
    >>> 80 < transient(noise) < 220
    True
    """
    half = len(series) // 2
    if len(series) < 4 * BATCH:
        return half
    first = len(series) % BATCH
    means = series[first:].reshape(-1, BATCH).mean(axis=1)
    above = means > means[len(means) // 2 :].mean()
    crossed = first + BATCH * (int((above != above[0]).argmax()) or len(means))
    cut = min(2 * crossed, half)
    return cut if _differs(series[:crossed], series[cut:]) else 0


def _differs(head: Vector, tail: Vector) -> bool:
    """Return whether the mean of a head is off by more than chance, so that dropping it is no pick among excursions."""
    mean = mean_with_error(tail)
    error = mean.error * float(np.sqrt(len(tail) / len(head)))
    return not abs(float(head.mean()) - mean.value) <= 4 * error


@dataclass(frozen=True)
class Autoregression:
    """A first-order autoregression, as fitted to the block means of a series.

    Attributes
    ----------
    coefficient : float
        Its bias removed, which is −(1 + 4ρ)/N (Marriott and Pope, Biometrika 41, 1954).
    blocks : int
        N.
    spread : float
        The standard deviation of the block means.
    """

    coefficient: float
    blocks: int
    spread: float

    @classmethod
    def of(cls, blocks: Vector) -> Autoregression:
        """Fit the means of blocks, which are not all equal."""
        centred, size = blocks - blocks.mean(), len(blocks)
        found = float(centred[1:] @ centred[:-1] / (centred @ centred))
        return cls(found + (1 + 4 * found) / size, size, float(blocks.std()))

    def reach(self, level: float) -> float:
        """Return how far off its mean may be, where the coefficient may be as large as its own upper bound at a level.

        However large that is, the series is taken to be worth two independent values.
        """
        quantile, most = -normal_quantile(level / 2), self.blocks / 2
        upper = self.coefficient + quantile * float(np.sqrt(max(0.0, 1 - self.coefficient**2) / self.blocks))
        times = min(max(0.0, 1 + upper) / (1 - upper), most) if upper < 1 else most
        return quantile * self.spread * float(np.sqrt(times / (self.blocks - times)))


@dataclass(frozen=True)
class Mean:
    """A mean, its Monte Carlo standard error, and what says how far it may be off.

    Attributes
    ----------
    value, error : float
    effective : float
        The effective number of independent values in it.
    skewness : float
        Of the mean.
    kurtosis : float
        In excess of a normal one, of the independent values.
    slow : Autoregression or None
        What it is like if it is slower than it looks.
    """

    value: float
    error: float
    effective: float
    skewness: float = 0.0
    kurtosis: float = 0.0
    slow: Autoregression | None = None

    @property
    def interval(self) -> Interval:
        """The interval of 95 % confidence, longer on the side where a skew mean is more often far off."""
        return confident(self.value, self._ends)

    def _ends(self, level: float) -> Ends:
        low, high = self.reach(level)
        return self.value - high * self.error, self.value - low * self.error

    def reach(self, level: float) -> Ends:
        """Return between which multiples of its error the mean is off, but for a part `level` of the time.

        Student's quantiles: the error is itself known as poorly as from a `POORLY`-th as many independent values, and
        more poorly yet where these have heavy tails, as the variance of a variance is 2 + κ. Where they are `FEW`, the
        error may be too small altogether, since slow noise that happens to scatter little also looks fast: then the
        mean may be as far off as that of the slowest autoregression that its autocorrelation allows.
        """
        freedom = self.effective / (POORLY + max(self.kurtosis, 0.0))
        bound = -student_quantile(min(max(freedom, 1.0), 30.0), level / 2)
        low, high = self._unskewed(-bound), self._unskewed(bound)
        if self.slow is None or self.effective >= FEW:
            return low, high
        far = self.slow.reach(level) / self.error
        return min(low, -far), max(high, far)

    def _unskewed(self, bound: float) -> float:
        """Return T where g(T) is this bound, g(T) = T + κT²/3 + κ²T³/27 + κ/6 being as good as free of skewness κ.

        Hall, *On the removal of skewness by transformation*, JRSS B 54 (1992): L is never below its infimum, so where
        noise keeps it close, its mean is skew, and more often far too low than far too high.
        """
        if abs(self.skewness) < 1e-6:
            return bound
        return float(np.cbrt(1 + self.skewness * (bound - self.skewness / 6)) - 1) * 3 / self.skewness


def mean_with_error(values: Vector) -> Mean:
    """Return the mean of a stationary series, its standard error counting autocorrelation.

    Effective sample size and MCSE are arviz-stats' (Vehtari et al., Bayesian Analysis 16(2), 2021), on block means:
    that leaves the error as it is, lets values that alternate cancel, and is quick on long series.
    """
    # Here, and not above: it brings scipy's signal and stats along, longer to load than all the rest of the package.
    from arviz_stats.base.array import array_stats

    stats: Any = array_stats
    width = max(1, min(8, len(values) // 128), len(values) // BLOCKS)
    start = len(values) % width
    blocks = values[start:].reshape(-1, width).mean(axis=1)
    scale = float(np.ptp(blocks))
    value = float(values.mean())
    if scale == 0:
        return Mean(value, 0.0, float(len(blocks)))
    scaled = ((blocks - value) / scale)[np.newaxis]
    error = float(stats.mcse(scaled, chain_axis=0, draw_axis=1, method="mean"))
    effective = float(stats.ess(scaled, chain_axis=0, draw_axis=1, method="mean"))
    effective = min(effective, float(len(blocks)))
    return Mean(value, scale * error, effective, *_shape(values, effective), Autoregression.of(blocks))


def _shape(values: Vector, effective: float) -> tuple[float, float]:
    """Return the skewness of a mean and the excess kurtosis of the independent values in it: block means, as many."""
    many = int(min(max(effective, 8), len(values)))
    blocks = values[len(values) % many :].reshape(many, -1).mean(axis=1)
    spread = float(blocks.std())
    if not spread > 0:
        return 0.0, 0.0
    scaled = (blocks - blocks.mean()) / spread
    return float(np.mean(scaled**3)) / float(np.sqrt(many)), float(np.mean(scaled**4)) - 3


def has_trend(values: Vector) -> bool:
    """Return whether block means go up or down beyond what their scatter about a line explains (level 0.001)."""
    means = np.array([part.mean() for part in np.array_split(values, TREND_BLOCKS)])
    rise, error = slope(np.arange(TREND_BLOCKS, dtype=float), means)
    return abs(rise) > student_quantile(TREND_BLOCKS - 2, 0.9995) * error


def has_uneven_scatter(values: Vector) -> bool:
    """Return whether the variance of one half is more than 8 times that of the other."""
    first, second = (float(half.var()) for half in np.array_split(values, 2))
    return max(first, second) > 8 * min(first, second)
