"""The mean of a series that recurs, on a cycle or a torus: weighted Birkhoff averages.

Every function here takes the series of one run as a NumPy vector, index t, and knows nothing of training.
"""

from __future__ import annotations

import numpy as np

from alignment_checks.intervals import Interval, Vector


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
