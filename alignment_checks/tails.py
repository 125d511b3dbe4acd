"""What the tail of one series says of its limit: extrapolation, weighted Birkhoff averages, means with their error.

Every function here takes the series of one run as a NumPy vector, index t, and knows nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Vector = npt.NDArray[np.float64]

LEVEL = 0.95
"""Confidence of the intervals that are statistical."""

SLOWEST = 0.2
"""A power law t^-p slower than this is not told from a logarithm, which has no limit."""

MARGIN = 0.05
"""An extrapolation may fall short by at least this part of how far it goes: power laws come with logarithms."""

QUIET = 3.0
"""An error so many times the least is taken for the least, lest a quiet stretch be picked."""

BLOCKS = 512
"""Autocorrelation is estimated on at most about this many block means."""


@dataclass(frozen=True)
class Interval:
    """A number and the interval that it lies in."""

    value: float
    low: float
    high: float

    def plus(self, shift: float) -> Interval:
        """Return the interval moved by a number that is known exactly."""
        return Interval(self.value + shift, self.low + shift, self.high + shift)

    def wider(self, by: float) -> Interval:
        """Return the interval with `by` more on both sides."""
        return replace(self, low=self.low - by, high=self.high + by)

    def above(self, infimum: float | None) -> Interval:
        """Return the part of the interval that a known lower bound leaves."""
        if infimum is None or self.high < infimum:
            return self
        return Interval(max(self.value, infimum), max(self.low, infimum), self.high)

    def holds(self, number: float) -> bool:
        """Return whether `number` is in the interval."""
        return self.low <= number <= self.high


def hull(value: float, numbers: list[float]) -> Interval:
    """Return the smallest interval that holds `value` and all of `numbers`."""
    return Interval(value, min(value, *numbers), max(value, *numbers))


# ------------------------------------------------------------------------------------------------------ extrapolation


def is_monotone(tail: Vector, floor: float) -> bool:
    """Return whether a tail goes one way only, up to rounding: its total variation is its net change."""
    variation = float(np.abs(np.diff(tail)).sum())
    return variation <= 1.01 * abs(float(tail[-1] - tail[0])) + floor


def extrapolated(series: Vector, floor: float) -> Interval | None:
    """Return the limit of a series that ends monotone, or None where no limit is in sight.

    Aitken's Δ² is exact for a + b·rᵗ on an arithmetic grid and for a + b·t^-p on a geometric one (Sidi, *Practical
    Extrapolation Methods*, 2003, chapters 15 and 1). A sum of either kind has its limit between the last value and the
    power law's, so both, and what they differ by when the grid changes, span the interval.
    """
    powers = [_aitken(series, (1 / ratio**2, 1 / ratio, 1.0), floor) for ratio in (2.0, 2.0**0.5)]
    if not all(_decelerates(series, ratio, floor) for ratio in (2.0, 2.0**0.5)):
        return None
    exponentials = [_aitken(series, (1 - 2 * part, 1 - part, 1.0), floor) for part in (0.25, 0.125)]
    value = exponentials[-1] if _is_exponential(series, floor) else powers[-1]
    last = float(series[-1])
    far = max(powers, key=lambda limit: abs(limit - last))
    margin = max(abs(powers[0] - powers[1]), MARGIN * abs(far - last))
    beyond = far + margin * float(np.sign(far - last))
    return hull(value, [last, beyond, *powers, *exponentials]).wider(floor)


def _aitken(series: Vector, parts: tuple[float, float, float], floor: float) -> float:
    """Return Aitken's Δ² of the values at these parts of the run; the last value where they have met already."""
    first, second, third = _at(series, parts)
    before, after = second - first, third - second
    if abs(after) <= floor or not 0 < after * before < before * before:
        return float(third)
    return float(third + after * after / (before - after))


def _decelerates(series: Vector, ratio: float, floor: float) -> bool:
    """Return whether changes over equal ratios of time shrink as those of t^-p with p ≥ `SLOWEST` do."""
    first, second, third = _at(series, (1 / ratio**2, 1 / ratio, 1.0))
    return bool(abs(third - second) <= floor + ratio**-SLOWEST * abs(second - first))


def _is_exponential(series: Vector, floor: float) -> bool:
    """Return whether log|change| is straighter against t than against log t, over the last half."""
    end = len(series) - 1
    times = np.linspace(0.5 * end, end, 25)
    changes = np.abs(np.diff(_at(series, times / end)))
    middle = 0.5 * (times[1:] + times[:-1])
    seen = changes > floor
    if seen.sum() < 4:
        return True
    return _misfit(middle[seen], np.log(changes[seen])) <= _misfit(np.log(middle[seen]), np.log(changes[seen]))


def decay(series: Vector, floor: float) -> tuple[float, float]:
    """Return how fast a tail's changes shrink: (rate, 0) of e^(−rate·t), or (0, p) of t^-p; (0, 0) where they do not.

    Examples
    --------
    >>> t = np.arange(1.0, 1001.0)
    >>> [round(float(x), 2) for x in decay(np.exp(-0.01 * t), 1e-12)], [round(float(x), 1) for x in decay(1 / t, 1e-12)]
    ([0.01, 0.0], [0.0, 1.0])
    """
    exponential = _is_exponential(series, floor)
    parts = (0.75, 0.875, 1.0) if exponential else (0.25, 0.5, 1.0)
    first, second, third = _at(series, parts)
    before, after = abs(second - first), abs(third - second)
    if not after < before:
        return 0.0, 0.0
    shrunk = float(np.log(before / max(after, floor)))
    return (8 * shrunk / (len(series) - 1), 0.0) if exponential else (0.0, shrunk / float(np.log(2)))


def _misfit(x: Vector, y: Vector) -> float:
    return float(np.square(y - np.polyval(np.polyfit(x, y, 1), x)).sum())


def _at(series: Vector, parts: npt.ArrayLike) -> Vector:
    end = len(series) - 1
    return np.asarray(np.interp(np.asarray(parts) * end, np.arange(end + 1), series))


def is_damped(series: Vector, floor: float) -> bool:
    """Return whether what fluctuates in the last half dies away, at least as fast as t^-0.4 and beyond doubt."""
    if len(series) < 64:
        return False
    parts = np.array_split(series[len(series) // 2 :], 8)
    sizes = np.array([_roughness(part) for part in parts])
    x = np.log(np.linspace(0.5, 1.0, 17)[1::2])
    slope, error = _slope(x, np.log(sizes + 0.01 * floor + np.finfo(float).tiny))
    return slope < -0.4 and slope < -6 * error


def damped(series: Vector, floor: float) -> Interval | None:
    """Return the limit of a series whose fluctuations die away, or None where its running mean has none."""
    last = series[-max(4, len(series) // 8) :]
    low, high = float(last.min()), float(last.max())
    around = Interval(0.5 * (low + high), low, high).wider(high - low + floor)
    means = moving_mean(series, max(2, len(series) // 16))
    if not is_monotone(means[len(means) // 2 :], floor):
        return replace(around, value=float(last.mean()))
    slow = extrapolated(means, floor)
    if slow is None:
        return around if abs(float(means[-1] - means[len(means) // 2])) <= high - low else None
    return hull(slow.value, [slow.low, slow.high, around.low, around.high])


def _roughness(part: Vector) -> float:
    """Return the standard deviation about a straight line."""
    x = np.arange(len(part), dtype=float)
    return float(np.std(part - np.polyval(np.polyfit(x, part, 1), x)))


def moving_mean(series: Vector, width: int) -> Vector:
    """Return the means of all `width` consecutive values."""
    centre = float(series.mean())
    sums = np.concatenate([[0.0], np.cumsum(series - centre)])
    return np.asarray(centre + (sums[width:] - sums[:-width]) / width)


# ------------------------------------------------------------------------------------------- weighted Birkhoff averages


def birkhoff(values: Vector) -> float:
    """Return the average weighted by the bump exp(−1/(s(1−s))), s in (0, 1).

    On a quasiperiodic orbit with a smooth observable it converges faster than any power of the length (Das, Saiki,
    Sander and Yorke, *Quantitative quasiperiodicity*, Nonlinearity 30, 2017).

    Examples
    --------
    >>> t = np.arange(2000)
    >>> abs(birkhoff(np.cos(t))) < 1e-12 < 1e-5 < abs(float(np.cos(t).mean()))
    True
    """
    s = np.arange(1, len(values) + 1) / (len(values) + 1)
    weights = np.exp(-1 / (s * (1 - s)))
    centre = float(values[-1])
    return centre + float(weights @ (values - centre) / weights.sum())


def recurrent_mean(tail: Vector, floor: float) -> Interval:
    """Return the weighted Birkhoff average of a tail, with what shorter windows make of it as its uncertainty."""
    value = birkhoff(tail)
    size = len(tail)
    windows = (tail[: size // 2], tail[size // 2 :], tail[size // 4 :], tail[size // 4 : -size // 4])
    spread = max(abs(birkhoff(window) - value) for window in windows)
    return Interval(value, value, value).wider(5 * spread + floor)


def period(tail: Vector, floor: float, longest: int = 64) -> int | None:
    """Return the least period of a tail, or None: it comes back to within 10⁻³ of what it does in between."""
    window = tail[-min(len(tail) // 3, 4096) :]
    for p in range(2, min(longest, len(window) // 3) + 1):
        amplitude = float(np.ptp(window[-p:]))
        away = float(np.abs(window[p:] - window[:-p]).max())
        if amplitude > floor and away <= floor + 1e-3 * amplitude:
            return p
    return None


def is_quasiperiodic(tail: Vector) -> bool:
    """Return whether weighted Birkhoff averages agree far better than those of noise or chaos can.

    Those of noise differ by about N^-½ standard deviations. Several powers of the series and several windows have to
    agree, since one pair may do so by chance.
    """
    scaled = (tail - tail.mean()) / tail.std()
    third = len(scaled) // 3
    windows = [scaled[:third], scaled[third : 2 * third], scaled[2 * third :]]
    averages = np.array([[birkhoff(window**power) for window in windows] for power in (1, 2, 3)])
    return bool(np.ptp(averages, axis=1).max() <= 0.03 / np.sqrt(third))


# -------------------------------------------------------------------------------------------- means with their error


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
    slope, error = _slope(np.arange(blocks, dtype=float), means)
    return abs(slope) > float(stdtrit(blocks - 2, 0.9995)) * error


def has_uneven_scatter(values: Vector) -> bool:
    """Return whether the variance of one half is more than 8 times that of the other."""
    first, second = (float(half.var()) for half in np.array_split(values, 2))
    return max(first, second) > 8 * min(first, second)


def _slope(x: Vector, y: Vector) -> tuple[float, float]:
    """Return the slope of least squares and its standard error."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    left = y - y.mean() - slope * centred
    return slope, float(np.sqrt(left @ left / (len(x) - 2) / (centred @ centred)))
