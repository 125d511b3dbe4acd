"""The mean of a series that recurs, on a cycle or a torus: weighted Birkhoff averages.

Every function here takes the series of one run as a NumPy vector, index t, and knows nothing of training.
"""

from __future__ import annotations

import numpy as np

from alignment_checks.asymptotics.intervals import Interval, Vector

LINES = 1e-6
"""A spectrum is of lines where no larger part of the power is between them; weak chaos was seen to leave 3e-5."""

LONGEST = 64
"""The longest cycle that is told from a torus."""


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


def period(tail: Vector, floor: float) -> int | None:
    """Return the least period of a tail, or None: it comes back to within 10⁻³ of what it does in between."""
    window = tail[-min(len(tail) // 3, 4096) :]
    for p in range(2, min(LONGEST, len(window) // 3) + 1):
        amplitude = float(np.ptp(window[-p:]))
        away = float(np.abs(window[p:] - window[:-p]).max())
        if amplitude > floor and away <= floor + 1e-3 * amplitude:
            return p
    return None


def is_quasiperiodic(tail: Vector) -> bool:
    """Return whether a tail is on a torus, and neither random nor chaotic.

    Its weighted Birkhoff averages over three windows then agree far better than those of noise or chaos can (Sander and
    Meiss, *Birkhoff averages and rotational invariant circles*, Physica D 411, 2020), and its spectrum is of lines: one
    pair of averages may agree by chance. Where lines are too many to tell apart, as on a torus that is about to break
    up, those of its square and cube have to agree as well. They need not where lines are few: two frequencies close to
    a low-order resonance beat too slowly in them for the windows.
    """
    scaled = (tail - tail.mean()) / tail.std()
    third = len(scaled) // 3
    windows = [scaled[:third], scaled[third : 2 * third], scaled[2 * third :]]
    averages = np.array([[birkhoff(window**power) for window in windows] for power in (1, 2, 3)])
    apart = np.ptp(averages, axis=1) * np.sqrt(third)
    return bool(apart.max() <= 0.003 or (apart[0] <= 0.1 and off_lines(scaled) <= LINES))


def off_lines(series: Vector) -> float:
    """Return which part of a series' power is in none of its highest spectral lines, at most 16 of them.

    Between lines, Blackman's and Harris's window leaves 1e-9 (Harris, Proceedings of the IEEE 66, 1978): what is left
    of noise and chaos is their continuous spectrum.

    Examples
    --------
    >>> t = np.arange(1000)
    >>> off_lines(np.cos(t) + np.cos(1.01 * t)) < 1e-9, off_lines(np.random.default_rng(0).normal(size=1000)) > 0.1
    (True, True)
    """
    angle = 2 * np.pi * np.arange(len(series)) / len(series)
    window = np.array([0.35875, -0.48829, 0.14128, -0.01168]) @ np.cos(np.outer(np.arange(4), angle))
    power = np.square(np.abs(np.fft.rfft(window * (series - window @ series / window.sum()))))
    whole = float(power.sum())
    for _ in range(min(16, len(series) // 32)):
        highest = int(power.argmax())
        power[max(0, highest - 4) : highest + 5] = 0.0
    return float(power.sum()) / whole
