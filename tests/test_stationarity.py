"""Random series: transients, standard errors that count autocorrelation, and trends."""

import numpy as np
import pytest

from alignment_checks.intervals import Vector
from alignment_checks.stationarity import has_trend, mean_with_error, transient


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
