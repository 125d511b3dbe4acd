"""The mean of a series that is random about it: its transient, its standard error, and what speaks against a mean.

Every function here takes the series of one run as a NumPy vector, index t, and knows nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from alignment_checks.extrapolation import slope
from alignment_checks.intervals import Interval, Vector

LEVEL = 0.95
"""Confidence of the intervals that are statistical."""

QUIET = 3.0
"""An error so many times the least is taken for the least, lest a quiet stretch be picked."""

BLOCKS = 512
"""Autocorrelation is estimated on at most about this many block means."""


def transient(series: Vector) -> int:
    """Return how many values to drop before averaging, at most half: MSER-5 (White, Simulation 69(6), 1997), twice.

    The place of the least error alone is often a quiet stretch, where a mean of squares is too low; so it first cuts
    where the error is first within `QUIET` times the least, and then looks once more at what is left.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=1000)
    >>> noise[:100] += np.linspace(50, 0, 100)
    >>> 80 < transient(noise) < 220
    True
    """
    if len(series) < 20:
        return len(series) // 2
    rough = min(_cut(series, QUIET), len(series) // 2)
    return min(rough + _cut(series[rough:], 1.0), len(series) // 2)


def _cut(series: Vector, within: float, batch: int = 5) -> int:
    """Return twice the first cut whose error is within so many times the least; 0 if what it drops is no different."""
    size = len(series) // batch
    means = series[len(series) - size * batch :].reshape(size, batch).mean(axis=1)
    means = means - means[size // 2 :].mean()
    left = np.arange(size, 0, -1)
    sums, squares = means[::-1].cumsum()[::-1], np.square(means)[::-1].cumsum()[::-1]
    errors = ((squares - sums**2 / left) / left.astype(float) ** 2)[: size // 2 + 1]
    cut = len(series) - size * batch + batch * int((errors <= within * errors.min()).argmax())
    return 2 * cut if _differs(series[:cut], series[cut:]) else 0


def _differs(head: Vector, tail: Vector) -> bool:
    """Return whether the mean of a head is off by more than chance, so that dropping it is no pick among excursions."""
    if not len(head):
        return False
    mean = mean_with_error(tail)
    error = mean.error * float(np.sqrt(len(tail) / len(head)))
    return not abs(float(head.mean()) - mean.value) <= 4 * error


@dataclass(frozen=True)
class Mean:
    """A mean, its Monte Carlo standard error, and the effective number of independent values in it."""

    value: float
    error: float
    effective: float

    @property
    def quantile(self) -> float:
        """How many standard errors the interval reaches: Student's t, see `reach`."""
        return reach(self.effective)

    @property
    def interval(self) -> Interval:
        """The interval of confidence `LEVEL`."""
        return Interval(self.value, self.value, self.value).wider(self.quantile * self.error)


def reach(effective: float) -> float:
    """Return Student's two-sided quantile at `LEVEL` for an effective size, known itself as poorly as a variance."""
    return float(stdtrit(min(max(effective / 8, 1.0), 30.0), 0.5 + LEVEL / 2))


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
    return Mean(value, scale * error, min(effective, float(len(blocks))))


def has_trend(values: Vector, blocks: int = 24) -> bool:
    """Return whether block means go up or down beyond what their scatter about a line explains (level 0.001)."""
    means = np.array([part.mean() for part in np.array_split(values, blocks)])
    rise, error = slope(np.arange(blocks, dtype=float), means)
    return abs(rise) > float(stdtrit(blocks - 2, 0.9995)) * error


def has_uneven_scatter(values: Vector) -> bool:
    """Return whether the variance of one half is more than 8 times that of the other."""
    first, second = (float(half.var()) for half in np.array_split(values, 2))
    return max(first, second) > 8 * min(first, second)
