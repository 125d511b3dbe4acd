"""Fieller's set of the alignment factor: where its ends are, and that skewness moves each to its own side."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_checks.asymptotics.ratios import fieller, fieller_set, ratio
from alignment_checks.asymptotics.regimes import Regime, outlook, together
from alignment_checks.asymptotics.stationarity import Mean

EPSILON = 2.0**-52
skew = st.floats(-0.5, 0.5)
denominators = st.floats(5, 50) | st.floats(-50, -5)


def spread(delta, left, shared, pursued):
    """Return MCSE(D_a) of a = a₀ + δ."""
    return math.sqrt(left.error**2 - 2 * delta * shared + delta**2 * pursued.error**2)


@given(skew, denominators, st.floats(-0.9, 0.9), st.sampled_from([0.05, 0.01, 1e-4]))
def test_at_its_ends_the_studentized_mean_is_at_halls_quantiles(skewness, denominator, correlation, level):
    """Under a, mean D_a = (a₀ − a)·mean ΔG has mean 0 and this skewness: it is between them for all a of the set."""
    left, pursued = Mean(0.0, 0.3, 400.0, skewness), Mean(denominator, 0.2, 400.0)
    shared = correlation * left.error * pursued.error
    studentized = sorted(
        -(a - 2.0) * denominator / spread(a - 2.0, left, shared, pursued)
        for a in fieller_set(2.0, left, pursued, shared, level)
    )
    assert studentized == pytest.approx(left.reach(level), rel=1e-9)


@given(denominators, st.floats(-0.9, 0.9))
def test_without_skewness_it_is_fiellers(denominator, correlation):
    left, pursued = Mean(0.0, 0.3, 400.0), Mean(denominator, 0.2, 400.0)
    shared = correlation * left.error * pursued.error
    low, high = fieller(denominator, left.error**2, shared, pursued.error**2, left.reach(0.05)[1]) or (0.0, 0.0)
    assert fieller_set(0.0, left, pursued, shared, 0.05) == pytest.approx((low, high))


def test_where_the_denominator_is_not_clear_of_0_there_is_no_end():
    assert fieller_set(1.0, Mean(0.0, 1.0, 400.0), Mean(1.0, 1.0, 400.0), 0.0, 0.05) == (-math.inf, math.inf)


def test_of_a_clear_denominator_stricter_levels_may_not_be_clear():
    """Clear of 0 by 2.5 standard errors: at 95 % it is a number, at 99.99 % any."""
    left, pursued = Mean(0.0, 0.1, 400.0), Mean(1.0, 0.4, 400.0)
    ends = [fieller_set(1.0, left, pursued, 0.0, level) for level in (0.05, 1e-4)]
    assert all(map(math.isfinite, ends[0]))
    assert ends[1] == (-math.inf, math.inf)


def test_what_is_skew_reaches_further_to_one_side():
    """θ of slow noise, L = θ²/2 and G = |θ|: what is left of L, less α·|θ|, has dips, and α is more often too low."""
    random = np.random.default_rng(0)
    theta, further = np.full(40, 5.0), []
    path = []
    for noise in random.normal(size=(1001, 40)):
        path.append(theta)
        theta = theta - 0.1 * (theta + noise)
    for row in np.array(path).T:
        base, mesa = row**2 / 2, np.abs(row)
        both = together(outlook(base, EPSILON, 0.0), outlook(mesa, EPSILON, 0.0), base, mesa, EPSILON)
        found = ratio(base, mesa, *both, EPSILON)
        if found.regime is Regime.STATIONARY:
            further.append(found.limit.high - found.limit.value > found.limit.value - found.limit.low)
    assert len(further) >= 30
    assert np.mean(further) >= 0.9
