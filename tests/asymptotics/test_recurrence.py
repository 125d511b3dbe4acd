"""Cycles and tori: what is recognized, and weighted Birkhoff averages."""

import numpy as np
import pytest

from alignment_checks.asymptotics.intervals import Vector
from alignment_checks.asymptotics.recurrence import birkhoff, is_quasiperiodic, period, recurrent_mean

T = np.arange(1001.0)


def test_birkhoff_beats_the_plain_mean_on_a_quasiperiodic_orbit() -> None:
    orbit = np.cos(0.7 * T) + 0.3 * np.cos(1.9 * T + 1)
    assert abs(birkhoff(orbit)) < 1e-12 < 1e-4 < abs(orbit.mean())
    assert recurrent_mean(2 + orbit, 0.0).holds(2.0)


@pytest.mark.parametrize(("cycle", "p"), [((1.0, -1.0), 2), ((1.0, -2.0, 3.0, 0.5), 4), (tuple(range(7)), 7)])
def test_period(cycle: tuple[float, ...], p: int) -> None:
    assert period(np.resize(cycle, 500), 1e-13) == p


@pytest.mark.parametrize("series", [T, np.cos(2 * np.pi * T / 1000), 0.99**T, np.cos(0.7 * T)])
def test_no_period(series: Vector) -> None:
    assert period(series, 1e-13) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [(2.104, 1.243), (1.841, 0.918), (1.787, 2.258), (1.473, 1.468), (2.037, 2.090), (0.592, 0.629)],
)
def test_frequencies_close_to_a_resonance_are_quasiperiodic(first: float, second: float) -> None:
    """Their squares and cubes beat more slowly than any window is long."""
    assert is_quasiperiodic(np.cos(first * T + 1) + 0.3 * np.cos(second * T))


@pytest.mark.parametrize("rate", [3.58, 3.6, 3.7, 4.0])
def test_chaos_is_not_quasiperiodic_however_weak(rate: float) -> None:
    """At 3.58 the orbit goes through narrow bands in turn: it nearly recurs."""
    x, orbits = np.random.default_rng(0).uniform(0.1, 0.4, size=50), []
    for _ in range(1500):
        x = rate * x * (1 - x)
        orbits.append(x)
    assert not any(is_quasiperiodic(orbit) for orbit in np.array(orbits[500:]).T)


def test_noise_is_not_quasiperiodic() -> None:
    random = np.random.default_rng(1)
    white = random.normal(size=(100, 1001))
    smooth = np.array([np.convolve(row, np.hanning(60), mode="valid") for row in white])
    for kind in (white, np.diff(white, axis=1), white.cumsum(axis=1), smooth):
        assert not any(is_quasiperiodic(row) for row in kind)
