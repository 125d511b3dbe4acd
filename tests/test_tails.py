import numpy as np
import pytest

from alignment_checks import tails
from alignment_checks.tails import Interval

T = np.arange(1001.0)


@pytest.mark.parametrize("rate", [0.97, 0.99, 0.995])
def test_extrapolation_is_exact_for_one_exponential(rate: float) -> None:
    found = tails.extrapolated(2 + 3 * rate**T, 1e-13)
    assert found is not None
    assert found.value == pytest.approx(2, abs=1e-9)
    assert found.holds(2.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_extrapolation_is_exact_for_one_power_law(power: float) -> None:
    found = tails.extrapolated(2 + 3 * np.maximum(T, 1) ** -power, 1e-13)
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
def test_extrapolation_holds_the_limit_of_mixtures(series: tails.Vector) -> None:
    found = tails.extrapolated(series, 1e-13)
    assert found is not None
    assert found.holds(1.0)
    assert found.high - found.low < np.ptp(series)


@pytest.mark.parametrize("series", [-np.log(T + 1), -T, 1.001**T, np.sqrt(T)], ids=["log", "line", "growth", "root"])
def test_extrapolation_refuses_what_has_no_limit(series: tails.Vector) -> None:
    assert tails.extrapolated(series, 1e-13) is None


@pytest.mark.parametrize("decay", [0.98**T, np.exp(-4 * T / 1000), 5 / (T + 5)], ids=["fast", "slow", "power"])
def test_damped_oscillation_holds_its_limit(decay: tails.Vector) -> None:
    series = 1 + decay * (1.3 + np.cos(0.3 * T))
    assert tails.is_damped(series, 1e-13)
    found = tails.damped(series, 1e-13)
    assert found is not None
    assert found.holds(1.0)


def test_noise_is_not_damped() -> None:
    random = np.random.default_rng(0)
    assert sum(tails.is_damped(random.normal(size=1000), 1e-13) for _ in range(200)) <= 2


def test_birkhoff_beats_the_plain_mean_on_a_quasiperiodic_orbit() -> None:
    orbit = np.cos(0.7 * T) + 0.3 * np.cos(1.9 * T + 1)
    assert abs(tails.birkhoff(orbit)) < 1e-12 < 1e-4 < abs(orbit.mean())
    assert tails.recurrent_mean(2 + orbit, 0.0).holds(2.0)


@pytest.mark.parametrize(("cycle", "p"), [((1.0, -1.0), 2), ((1.0, -2.0, 3.0, 0.5), 4), (tuple(range(7)), 7)])
def test_period(cycle: tuple[float, ...], p: int) -> None:
    assert tails.period(np.resize(cycle, 500), 1e-13) == p


@pytest.mark.parametrize("series", [T, np.cos(2 * np.pi * T / 1000), 0.99**T, np.cos(0.7 * T)])
def test_no_period(series: tails.Vector) -> None:
    assert tails.period(series, 1e-13) is None


def autoregressive(coefficient: float, size: int, random: np.random.Generator) -> tails.Vector:
    noise, series = random.normal(size=size + 300), np.zeros(size + 300)
    for t in range(1, size + 300):
        series[t] = coefficient * series[t - 1] + noise[t]
    return series[300:]


@pytest.mark.parametrize("coefficient", [-0.8, 0.0, 0.5, 0.9])
def test_standard_error_counts_autocorrelation(coefficient: float) -> None:
    random = np.random.default_rng(1)
    errors = [tails.mean_with_error(autoregressive(coefficient, 2000, random)).error for _ in range(20)]
    assert np.mean(errors) == pytest.approx(1 / (1 - coefficient) / np.sqrt(2000), rel=0.2)


def test_transient_is_dropped_and_a_stationary_series_kept_whole() -> None:
    random = np.random.default_rng(2)
    noise = random.normal(size=(50, 1000))
    assert sum(tails.transient(row) > 0 for row in noise) <= 2
    assert all(20 <= tails.transient(row + 20 * np.exp(-np.arange(1000) / 10)) <= 200 for row in noise)


def test_trend_is_found_and_noise_has_none() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(size=(200, 1000))
    assert sum(tails.has_trend(row) for row in noise) <= 3
    assert all(tails.has_trend(row + np.arange(1000) / 1000) for row in noise)


def test_constant_has_no_error() -> None:
    mean = tails.mean_with_error(np.full(100, 3.0))
    assert (mean.value, mean.error) == (3.0, 0.0)


def test_interval_above_a_bound() -> None:
    assert Interval(-1.0, -2.0, 1.0).above(0.0) == Interval(0.0, 0.0, 1.0)
    assert Interval(1.0, 0.5, 2.0).above(None) == Interval(1.0, 0.5, 2.0)
    assert Interval(-2.0, -3.0, -1.0).above(0.0) == Interval(-2.0, -3.0, -1.0)
