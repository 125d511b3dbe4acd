import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alignment_checks.asymptotics.intervals import Vector
from alignment_checks.asymptotics.regimes import Outlook, Regime, outlook, together

T = np.arange(1001.0)
EPSILON = 2.0**-52


def read(series: Vector) -> Outlook:
    return outlook(series, EPSILON)


@pytest.mark.parametrize("regime", Regime)
def test_a_value_begins_with_the_name_and_goes_on_as_a_message(regime: Regime) -> None:
    name, message = regime.value.split(": ")
    assert name == regime.name.lower()
    assert message


@pytest.mark.parametrize(
    ("series", "regime", "limit"),
    [
        (np.full(1001, 3.0), Regime.FIXED, 3.0),
        (1 + 0.9**T, Regime.FIXED, 1.0),
        (1 + 0.99**T, Regime.FIXED, 1.0),
        (1 + 1 / (T + 5), Regime.FIXED, 1.0),
        (1 + 0.98**T * (1.3 + np.cos(0.3 * T)), Regime.FIXED, 1.0),
        (0.5 + (-1.0) ** T + 0.9**T, Regime.PERIODIC, 0.5),
        (np.resize([1.0, -2.0, 3.0, 0.5], 1001), Regime.PERIODIC, 0.625),
        (0.5 + (-1.0) ** T * (1 - np.exp(-3 * T / 1000)), Regime.PERIODIC, 0.5),
        (2 + np.cos(0.7 * T) + 0.3 * np.cos(1.9 * T + 1), Regime.QUASIPERIODIC, 2.0),
        (-T, Regime.DRIFTING, None),
        (-np.log(T + 1), Regime.DRIFTING, None),
        (1.001**T, Regime.DRIFTING, None),
        ((-1.0) ** T + 0.01 * T, Regime.DRIFTING, None),
        (np.arange(5.0), Regime.DRIFTING, None),
        (np.array([1.0, 0.5]), Regime.DRIFTING, None),
    ],
)
def test_deterministic_series(series: Vector, regime: Regime, limit: float | None) -> None:
    found = read(series)
    assert found.regime is regime
    if limit is None:
        assert math.isnan(found.limit.value)
        assert (found.limit.low, found.limit.high) == (-math.inf, math.inf)
    else:
        assert found.limit.holds(limit)
        assert found.limit.value == pytest.approx(limit, abs=2e-4)


def iterated(step: object, size: int, runs: int, seed: int) -> Vector:
    """Return orbits of a map, from seeded starts."""
    x = np.random.default_rng(seed).uniform(0.1, 0.4, size=runs)
    orbit = np.empty((runs, size))
    for t in range(size):
        orbit[:, t], x = x, step(x)  # type: ignore[operator]
    return orbit


@pytest.mark.parametrize("rate", [3.7, 4.0])
def test_chaos_is_stationary_and_its_interval_covers_the_mean(rate: float) -> None:
    def step(x: Vector) -> Vector:
        return rate * x * (1 - x)

    long = iterated(step, 3000, 2000, seed=0)[:, 500:].mean()
    found = [read(orbit) for orbit in iterated(step, 1001, 120, seed=1)]
    numbered = [one for one in found if one.regime is Regime.STATIONARY]
    assert len(numbered) >= 115
    assert np.mean([one.limit.holds(float(long)) for one in numbered]) >= 0.88


@pytest.mark.parametrize("coefficient", [0.0, 0.8])
def test_noise_after_a_transient_is_stationary_and_covered(coefficient: float) -> None:
    random, found = np.random.default_rng(2), []
    for _ in range(120):
        noise = random.normal(size=2001)
        for t in range(1, 2001):
            noise[t] += coefficient * noise[t - 1]
        found.append(read(noise + 10 * 0.9 ** np.arange(2001)))
    numbered = [one for one in found if one.regime is Regime.STATIONARY]
    assert len(numbered) >= 112
    assert np.mean([one.limit.holds(0.0) for one in numbered]) >= 0.86
    assert max(one.limit.high - one.limit.low for one in numbered) < 1


@pytest.mark.parametrize("coefficient", [0.8, 0.9])
def test_short_runs_of_slow_noise_are_given_wide_intervals_rather_than_picked_by_luck(coefficient: float) -> None:
    """400 values that are worth 40 or 20 independent ones: most are given a number, and those intervals cover."""
    random, found = np.random.default_rng(5), []
    for _ in range(150):
        noise = random.normal(size=701)
        for t in range(1, 701):
            noise[t] += coefficient * noise[t - 1]
        found.append(read(noise[300:]))
    numbered = [one for one in found if one.has_limit]
    assert len(numbered) >= 120
    assert np.mean([one.limit.holds(0.0) for one in numbered]) >= 0.9


def test_slow_trend_in_noise_and_random_walks_drift() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(size=(60, 1001))
    assert all(read(row - T / 500).regime is Regime.DRIFTING for row in noise)
    assert sum(read(row.cumsum()).has_limit for row in noise) <= 1


def test_noise_on_a_transient_as_long_as_the_run_drifts() -> None:
    """Half the run is dropped, and what the transient is then still worth is a bias that no standard error counts."""
    random = np.random.default_rng(4)
    found = [read(row + 100 * 0.99**T) for row in random.normal(size=(40, 1001))]
    assert {one.regime for one in found} == {Regime.DRIFTING}


def test_a_known_bound_cuts_the_interval() -> None:
    series = 1 / (T + 5)
    assert read(series).limit.low < 0
    assert outlook(series, EPSILON, 0.0).limit.low == 0.0


def test_one_run_has_one_name() -> None:
    levels, norms = (-1.0) ** T, np.ones(1001)
    base, mesa = together(read(levels), read(norms), levels, norms, EPSILON)
    assert base.regime is mesa.regime is Regime.PERIODIC
    assert mesa.limit.value == 1.0


def test_drift_of_one_leaves_the_other_its_limit() -> None:
    base, mesa = together(read(-T), read(np.ones(1001)), -T, np.ones(1001), EPSILON)
    assert (base.regime, mesa.regime) == (Regime.DRIFTING, Regime.FIXED)


def test_what_drifts_on_one_side_is_stationary_on_neither() -> None:
    """Both are of one θ(t): if L shows that it drifts, a mean of G over it is no limit, however it scatters."""
    noise = np.random.default_rng(6).normal(size=1001)
    levels, norms = noise - T / 100, noise**2
    assert (read(levels).regime, read(norms).regime) == (Regime.DRIFTING, Regime.STATIONARY)
    base, mesa = together(read(levels), read(norms), levels, norms, EPSILON)
    assert base.regime is mesa.regime is Regime.DRIFTING
    assert "L is drifting: its mean moves" in mesa.method
    assert math.isnan(mesa.limit.value)


@pytest.mark.parametrize("steps", [2, 5, 50, 300])
@pytest.mark.parametrize("pace", [1e-7, 4e-8])
def test_what_moves_within_its_rounding_stands_still_only_if_it_comes_to(steps: int, pace: float) -> None:
    """Values of single precision, down by an ulp or so a step: no step is above rounding, and all are one way."""
    single = np.float32(1.0) - np.float32(pace) * np.arange(steps + 1, dtype=np.float32)
    found = outlook(single.astype(float), 2.0**-23)
    assert found.regime is Regime.DRIFTING
    jitter = 1 + 2.0**-23 * np.random.default_rng(7).integers(-2, 3, size=301)
    assert outlook(jitter, 2.0**-23).regime is Regime.FIXED
    assert outlook(1 - 1e-5 * 0.9 ** np.arange(301.0), 2.0**-23).regime is Regime.FIXED


def test_kinks_do_not_hide_a_quasiperiodic_orbit() -> None:
    levels, norms = np.cos(0.7 * T) ** 2, np.abs(np.cos(0.7 * T))
    assert read(norms).regime is Regime.STATIONARY
    base, mesa = together(read(levels), read(norms), levels, norms, EPSILON)
    assert base.regime is mesa.regime is Regime.QUASIPERIODIC
    assert mesa.limit.holds(2 / np.pi)
    assert mesa.limit.high - mesa.limit.low < 0.01


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(float, st.integers(2, 130), elements=st.floats(-1e6, 1e6))
    | hnp.arrays(float, st.integers(2, 130), elements=st.sampled_from([0.0, 1.0, 1.0 + EPSILON]))
)
def test_every_series_gets_a_name(series: Vector) -> None:
    found = read(series)
    assert found.method
    assert found.has_limit == (not math.isnan(found.limit.value))
    assert not found.has_limit or found.limit.low <= found.limit.value <= found.limit.high
