"""Limits of series that converge: exact where the law is known, held where it is mixed, refused where there is none."""

import numpy as np
import pytest

from alignment_checks.asymptotics.extrapolation import damped, extrapolated, is_damped
from alignment_checks.asymptotics.intervals import Interval, Vector

T = np.arange(1001.0)


@pytest.mark.parametrize("rate", [0.97, 0.99, 0.995])
def test_extrapolation_is_exact_for_one_exponential(rate: float) -> None:
    found = extrapolated(2 + 3 * rate**T, 1e-13)
    assert found is not None
    assert found.value == pytest.approx(2, abs=1e-9)
    assert found.holds(2.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_extrapolation_is_exact_for_one_power_law(power: float) -> None:
    found = extrapolated(2 + 3 * np.maximum(T, 1) ** -power, 1e-13)
    assert found is not None
    assert found.value == pytest.approx(2, abs=1e-6)
    assert found.holds(2.0)


@pytest.mark.parametrize(
    "series",
    [
        1 + np.exp(-3 * T / 1000) + np.exp(-40 * T / 1000),
        1 + 0.99**T + 1 / (T + 5),
        1 + np.log(T + 20) / (T + 20),
        1 - 5 / (T + 50),
    ],
    ids=["two exponentials", "exponential and power", "power with a logarithm", "shifted power from below"],
)
def test_extrapolation_holds_the_limit_of_mixtures(series: Vector) -> None:
    found = extrapolated(series, 1e-13)
    assert found is not None
    assert found.holds(1.0)
    assert found.high - found.low < np.ptp(series)


@pytest.mark.parametrize("rate", [0.004, 0.006, 0.008, 0.01, 0.012])
@pytest.mark.parametrize("slow", [0.5 * (T + 3) ** -0.5, 0.1 * np.exp(-T / 2000)], ids=["power", "exponential"])
def test_a_tail_that_grows_slower_is_not_taken_to_be_at_its_limit_soon(rate: float, slow: Vector) -> None:
    """What has been fast has died or is dying, and how far the slow rest goes on is open: held, or in no sight."""
    found = extrapolated(1 + 3 * np.exp(-rate * T) + slow, 1e-13)
    assert found is None or found.holds(1.0)


@pytest.mark.parametrize("series", [-np.log(T + 1), -T, 1.001**T, np.sqrt(T)], ids=["log", "line", "growth", "root"])
def test_extrapolation_refuses_what_has_no_limit(series: Vector) -> None:
    assert extrapolated(series, 1e-13) is None


@pytest.mark.parametrize("decay", [0.98**T, np.exp(-4 * T / 1000), 5 / (T + 5)], ids=["fast", "slow", "power"])
def test_damped_oscillation_holds_its_limit(decay: Vector) -> None:
    series = 1 + decay * (1.3 + np.cos(0.3 * T))
    assert is_damped(series, 1e-13)
    found = damped(series, 1e-13)
    assert found is not None
    assert found.holds(1.0)


def test_noise_is_not_damped() -> None:
    random = np.random.default_rng(0)
    assert sum(is_damped(random.normal(size=1000), 1e-13) for _ in range(200)) <= 2


def test_interval_above_a_bound() -> None:
    assert Interval(-1.0, -2.0, 1.0).above(0.0) == Interval(0.0, 0.0, 1.0)
    assert Interval(1.0, 0.5, 2.0).above(None) == Interval(1.0, 0.5, 2.0)
    assert Interval(-2.0, -3.0, -1.0).above(0.0) == Interval(-2.0, -3.0, -1.0)
