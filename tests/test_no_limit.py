"""Where there is no limit, there is a name and no number."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from cases.limits import bowl, descent, has_no_number, holds, limits

from alignment_checks.asymptotics.ratios import fieller
from alignment_checks.limits import Regime, alignment_factor_limit, capability_limit
from alignment_checks.trajectory import Trajectory


def test_divergence_is_told_with_its_step() -> None:
    trajectory = descent(bowl, [2.0], 100, lr=1.0)
    at = trajectory.runs[0].outcome.diverged_at
    for found in limits(trajectory):
        assert found.regime is Regime.DIVERGED
        assert found.method == f"diverged at step {at}"
        assert has_no_number(found)


def test_growth_that_has_not_passed_all_bounds_drifts() -> None:
    base, *_ = limits(descent(bowl, [2.0], 100, lr=0.67))
    assert base.regime is Regime.DRIFTING
    assert has_no_number(base)


def test_a_line_drifts_and_its_gradient_does_not() -> None:
    base, mesa, alpha = limits(descent(lambda x: x.sum(), [2.0], 100, objective_infimum=None))
    assert base.regime is Regime.DRIFTING
    assert has_no_number(base)
    assert (mesa.regime, mesa.value) == (Regime.FIXED, 0.0)
    assert alpha.regime is Regime.UNDEFINED


@pytest.mark.parametrize("steps", [99, 100, 101, 102, 300])
def test_changes_that_stay_as_they_are_are_not_said_to_grow(steps: int) -> None:
    base, *_ = limits(descent(lambda x: x.sum(), [2.0], steps, objective_infimum=None))
    assert base.method == "its changes do not shrink as those of a converging run do"


def replaced(base: np.ndarray, mesa: np.ndarray) -> Trajectory:
    """Return a trajectory with series of our own making."""
    old = descent(bowl, [2.0], 2)
    runs = (dataclasses.replace(old.runs[0], infimum=None),)
    series = {"base": base[None].copy(), "mesa": mesa[None].copy(), "t": np.arange(len(base))}
    return dataclasses.replace(old, **series, runs=runs)


def test_alpha_exists_where_both_drift_together() -> None:
    random, t = np.random.default_rng(0), np.arange(2001.0)
    mesa = 500 + 0.01 * t + np.sqrt(t)
    noise = np.concatenate([[0.0], random.normal(scale=0.1, size=2000)])
    for base in (3 * mesa, 3 * mesa + noise):
        capability, _, alpha = limits(replaced(base, mesa))
        assert capability.regime is alpha.regime is Regime.DRIFTING
        assert has_no_number(capability)
        assert holds(alpha, 3.0)
        assert alpha.high - alpha.low < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", range(-9, -2))
@pytest.mark.parametrize("steps", [2, 5, 200])
def test_a_slope_is_no_alpha_where_the_way_is_too_short_to_bend(steps: int, exponent: int, dtype: torch.dtype) -> None:
    """On a quadratic α_∞ is ½·|θ(0)|, half the slope of L on G at the start; little of the way looks straight."""
    creeping = descent(lambda x: 0.5 * x.square().sum(), [1.0], steps, lr=10.0**exponent, dtype=dtype)
    alpha = alignment_factor_limit(creeping)[0]
    assert has_no_number(alpha) or holds(alpha, 0.5), alpha


def test_alpha_does_not_exist_where_they_drift_apart() -> None:
    t = np.arange(2001.0)
    alpha = alignment_factor_limit(replaced(np.sqrt(t), 1 + t))[0]
    assert alpha.regime is Regime.DRIFTING
    assert has_no_number(alpha)


def test_fieller_covers_the_ratio_and_refuses_a_denominator_not_clear_of_0() -> None:
    random, covered, refused = np.random.default_rng(0), [], []
    for _ in range(60):
        common = random.normal(size=1001)
        base, mesa = 4 + common + random.normal(size=1001), 8 + common
        base[0] = mesa[0] = 10
        covered.append(holds(alignment_factor_limit(replaced(base, mesa))[0], 3.0))
        refused.append(alignment_factor_limit(replaced(base, mesa + np.where(np.arange(1001) > 0, 2.0, 0)))[0].regime)
    assert np.mean(covered) >= 0.88
    assert refused.count(Regime.UNDEFINED) >= 52


def test_fieller_is_the_set_that_it_says() -> None:
    mean, variances, z = 2.0, (0.3, 0.1, 0.2), 1.96
    low, high = fieller(mean, *variances, z) or (0.0, 0.0)
    for delta in (low, high):
        spread = variances[0] - 2 * delta * variances[1] + delta**2 * variances[2]
        assert abs(delta * mean) == pytest.approx(z * math.sqrt(spread))


def test_of_is_checked() -> None:
    with pytest.raises(ValueError, match="'base' or 'mesa'"):
        capability_limit(descent(bowl, [2.0], 2), of="both")
