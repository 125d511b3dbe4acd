"""Cycles and tori: what is recognized, and weighted Birkhoff averages."""

import numpy as np
import pytest

from alignment_checks.intervals import Vector
from alignment_checks.recurrence import birkhoff, period, recurrent_mean

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
