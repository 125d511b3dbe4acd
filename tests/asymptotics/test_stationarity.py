"""Random series: transients, standard errors that count autocorrelation, and trends."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from alignment_checks.asymptotics.intervals import Vector
from alignment_checks.asymptotics.stationarity import FEW, Autoregression, Mean, has_trend, mean_with_error, transient


def autoregressive(coefficient: float, size: int, random: np.random.Generator) -> Vector:
    noise, series = random.normal(size=size + 300), np.zeros(size + 300)
    for t in range(1, size + 300):
        series[t] = coefficient * series[t - 1] + noise[t]
    return series[300:]


@pytest.mark.parametrize("coefficient", [-0.8, 0.0, 0.5, 0.9])
def test_standard_error_counts_autocorrelation(coefficient: float) -> None:
    random = np.random.default_rng(1)
    errors = [mean_with_error(autoregressive(coefficient, 2000, random)).error for _ in range(20)]
    assert np.mean(errors) == pytest.approx(1 / (1 - coefficient) / np.sqrt(2000), rel=0.2)


def test_transient_is_dropped_and_a_stationary_series_kept_whole() -> None:
    random = np.random.default_rng(2)
    noise = random.normal(size=(50, 1000))
    assert sum(transient(row) > 0 for row in noise) <= 2
    assert all(20 <= transient(row + 20 * np.exp(-np.arange(1000) / 10)) <= 200 for row in noise)


def test_trend_is_found_and_noise_has_none() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(size=(200, 1000))
    assert sum(has_trend(row) for row in noise) <= 3
    assert all(has_trend(row + np.arange(1000) / 1000) for row in noise)


def test_constant_has_no_error() -> None:
    mean = mean_with_error(np.full(100, 3.0))
    assert (mean.value, mean.error) == (3.0, 0.0)


def test_no_quiet_stretch_is_picked_from_a_skew_series() -> None:
    """The square of slow noise is low for long, and high in bursts: what begins after a burst is no less random."""
    random = np.random.default_rng(4)
    assert sum(transient(autoregressive(0.9, 1000, random) ** 2) > 0 for _ in range(100)) <= 5


def test_a_transient_of_two_scales_is_dropped_whole() -> None:
    random, t = np.random.default_rng(5), np.arange(1000)
    slow = 3 * 0.98**t
    for _ in range(50):
        cut = transient(autoregressive(0.5, 1000, random) + 100 * 0.8**t + slow)
        assert slow[cut:].sum() / (1000 - cut) < 2 / math.sqrt(1000), "left in, it is less than a standard error"


@given(st.floats(-0.6, 0.6), st.floats(25, 1000))
def test_the_interval_of_a_skew_mean_is_halls(skewness: float, effective: float) -> None:
    """At its ends, Hall's function of the studentized mean is at Student's quantiles, to either side."""
    found = Mean(3.0, 2.0, effective, skewness).interval

    def transformed(x: float) -> float:
        return x + skewness * x**2 / 3 + skewness**2 * x**3 / 27 + skewness / 6

    ends = [transformed((3.0 - end) / 2.0) for end in (found.high, found.low)]
    quantile = Mean(3.0, 2.0, effective).reach(0.05)[1]
    assert ends == pytest.approx([-quantile, quantile], abs=1e-4)
    assert found.low < 3.0 < found.high


def test_an_interval_is_longer_on_the_side_of_the_long_tail() -> None:
    random = np.random.default_rng(6)
    mean = mean_with_error(random.exponential(size=500))
    assert mean.interval.high - mean.value > 1.05 * (mean.value - mean.interval.low)
    turned = mean_with_error(-random.exponential(size=500))
    assert turned.value - turned.interval.low > 1.05 * (turned.interval.high - turned.value)


@given(st.floats(20, 500), st.floats(0.1, 10), st.floats(0.001, 0.05))
def test_heavy_tails_and_fewer_values_reach_further(effective: float, kurtosis: float, level: float) -> None:
    """The variance of a variance is 2 + κ, in units of its square: the error is known the more poorly."""
    plain, heavy, fewer = (
        Mean(0.0, 1.0, size, 0.0, tails).reach(level)[1]
        for size, tails in ((effective, 0.0), (effective, kurtosis), (effective / 2, 0.0))
    )
    assert plain <= heavy
    assert plain <= fewer
    assert Mean(0.0, 1.0, effective, 0.0, -1.0).reach(level)[1] == plain


def test_kurtosis_is_that_of_independent_values() -> None:
    random = np.random.default_rng(7)
    normal, heavy = (
        np.mean([mean_with_error(made(size=2000)).kurtosis for _ in range(20)])
        for made in (random.normal, random.lognormal)
    )
    assert normal == pytest.approx(0.0, abs=0.3)
    assert heavy > normal + 1


def test_slow_noise_that_looks_fast_is_allowed_to_be_slow() -> None:
    """400 values of autoregressive noise at 0.98 are worth 4; those that seem to be worth 12 scatter too little."""
    random, seen = np.random.default_rng(8), []
    for _ in range(300):
        mean = mean_with_error(autoregressive(0.98, 400, random))
        if mean.effective >= 12:
            seen.append((mean.interval.holds(0.0), replace(mean, slow=None).interval.holds(0.0)))
    assert len(seen) > 20
    allowed, plain = np.mean(seen, axis=0)
    assert plain < 0.9 < allowed


@pytest.mark.parametrize(("coefficient", "size"), [(0.0, 400), (0.5, 400), (0.8, 2000)])
def test_of_many_values_the_interval_is_students_own(coefficient: float, size: int) -> None:
    random = np.random.default_rng(9)
    means = [mean_with_error(autoregressive(coefficient, size, random)) for _ in range(20)]
    assert all(mean.effective >= FEW and mean.interval == replace(mean, slow=None).interval for mean in means)


@given(st.floats(-0.5, 1.1), st.integers(20, 500), st.floats(1e-6, 0.04))
def test_the_stricter_the_level_the_slower_it_may_be_up_to_two_independent_values(
    coefficient: float, blocks: int, level: float
) -> None:
    found = Autoregression(coefficient, blocks, 2.0)
    assert 0 < found.reach(0.05) < found.reach(level) <= 2.0 * norm.isf(level / 2) * (1 + 1e-12)


def test_the_coefficient_is_free_of_its_bias() -> None:
    random = np.random.default_rng(10)
    found = [Autoregression.of(autoregressive(0.9, 200, random)) for _ in range(400)]
    assert np.mean([one.coefficient for one in found]) == pytest.approx(0.9, abs=0.005)


def test_values_that_alternate_leave_nothing_more_open() -> None:
    found = Autoregression.of((-1.0) ** np.arange(50))
    assert found.coefficient < -1
    assert found.reach(0.05) == 0.0
