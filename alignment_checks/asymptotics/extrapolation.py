"""The limit of a series that converges: Aitken and power-law extrapolation, and fluctuations that die away.

Every function here takes the series of one run as a NumPy vector, index t, and knows nothing of training.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from alignment_checks.asymptotics.intervals import Interval, Vector, hull

SLOWEST = 0.2
"""A power law t^-p slower than this is not told from a logarithm, which has no limit."""

WANING = 12
"""An exponent that shrinks from one quarter-octave of time to the next is taken to shrink on by so many times that."""

MARGIN = 0.05
"""An extrapolation may fall short by at least this part of how far it goes: power laws come with logarithms."""


def is_monotone(tail: Vector, floor: float) -> bool:
    """Return whether a tail goes one way only, up to rounding: its total variation is its net change."""
    variation = float(np.abs(np.diff(tail)).sum())
    return variation <= 1.01 * abs(float(tail[-1] - tail[0])) + floor


def extrapolated(series: Vector, floor: float) -> Interval | None:
    """Return the limit of a series that ends monotone, or None where no limit is in sight.

    Aitken's Δ² is exact for a + b·rᵗ on an arithmetic grid and for a + b·t^-p on a geometric one (Sidi, *Practical
    Extrapolation Methods*, 2003, chapters 15 and 1). A sum of either kind has its limit between the last value and the
    power law's, so both, and what they differ by when the grid changes, span the interval; so does a power law slower
    than either where the exponent is seen to grow smaller, as that of a slow tail does when faster ones have died.
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
    slower = _slower(series, floor)
    return None if slower is None else hull(value, [last, beyond, slower, *powers, *exponentials]).wider(floor)


def _slower(series: Vector, floor: float) -> float | None:
    """Return the limit where the tail's exponent goes on to grow smaller; the last value where it does not so.

    None where that leaves no limit in sight: a tail that is slow, and grows slower.
    """
    changes = np.diff(_at(series, 2.0 ** np.arange(-0.75, 0.1, 0.25)))
    sizes, last = np.abs(changes), float(series[-1])
    if not (sizes > 4 * floor).all():
        return last
    before, recent = 4 * np.log2(sizes[:-1] / sizes[1:])
    exponent = recent - WANING * (before - recent)
    if recent >= before:
        return last
    if exponent <= SLOWEST and recent < 1:
        return None
    ratio = 2 ** (-max(float(exponent), SLOWEST) / 4)
    return last + float(changes[-1]) * float(ratio / (1 - ratio))


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
    rate, error = slope(x, np.log(sizes + 0.01 * floor + np.finfo(float).tiny))
    return rate < -0.4 and rate < -6 * error


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


def slope(x: Vector, y: Vector) -> tuple[float, float]:
    """Return the slope of least squares and its standard error."""
    centred = x - x.mean()
    found = float(centred @ y / (centred @ centred))
    left = y - y.mean() - found * centred
    return found, float(np.sqrt(left @ left / (len(x) - 2) / (centred @ centred)))
