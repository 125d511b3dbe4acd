"""Definitions 1 and 2 at finite T, trained and held against closed forms."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from cases.measures import EXACT, bowl, recorded
from hypothesis import given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks.setups.realization import realize


def geometric(ratio, steps):
    """Return Σ_{t=1..T} ratioᵗ."""
    return ratio * (1 - ratio**steps) / (1 - ratio) if ratio != 1 else float(steps)


def on_a_quadratic(curvature, start, lr, steps):
    """Return C_B and C_M of gradient descent on ½λθ², from geometric sums."""
    ratio = 1 - lr * curvature
    base = 0.5 * curvature * start**2 * (geometric(ratio**2, steps) / steps - 1)
    mesa = curvature * abs(start) * (geometric(abs(ratio), steps) / steps - 1)
    return base, mesa


curvatures = st.floats(0.1, 4.0)


starts = st.floats(0.2, 5.0) | st.floats(-5.0, -0.2)


step_ratios = st.floats(0.02, 0.98) | st.floats(1.05, 1.95)


@settings(max_examples=40, deadline=None)
@given(curvature=curvatures, start=starts, step_ratio=step_ratios, steps=st.integers(1, 40))
def test_capability_and_alignment_on_a_quadratic_are_the_geometric_sums(curvature, start, step_ratio, steps):
    trajectory = ac.run(bowl(curvature, start, step_ratio / curvature, steps))
    base, mesa = on_a_quadratic(curvature, start, step_ratio / curvature, steps)
    assert ac.capability(trajectory)[0] == pytest.approx(base, rel=EXACT)
    assert ac.improvement(trajectory)[0] == pytest.approx(-base, rel=EXACT)
    assert ac.capability(trajectory, of="mesa")[0] == pytest.approx(mesa, rel=EXACT)
    assert ac.alignment_factor(trajectory)[0] == pytest.approx(base / mesa, rel=EXACT)


@settings(max_examples=30, deadline=None)
@given(curvature=curvatures, start=starts, step_ratio=step_ratios, steps=st.integers(1, 40))
def test_the_dimensionless_forms_are_the_literal_ones_in_units_of_what_there_was_to_gain(
    curvature, start, step_ratio, steps
):
    trajectory = ac.run(bowl(curvature, start, step_ratio / curvature, steps))
    base, mesa = on_a_quadratic(curvature, start, step_ratio / curvature, steps)
    base, mesa = base / (0.5 * curvature * start**2), mesa / (curvature * abs(start))
    assert ac.capability(trajectory, normalized=True)[0] == pytest.approx(base, rel=EXACT)
    assert ac.capability(trajectory, of="mesa", normalized=True)[0] == pytest.approx(mesa, rel=EXACT)
    assert ac.improvement(trajectory, of="mesa", normalized=True)[0] == pytest.approx(-mesa, rel=EXACT)
    assert ac.alignment_factor(trajectory, normalized=True)[0] == pytest.approx(base / mesa, rel=EXACT)


@pytest.mark.parametrize("start", [0.5, -3.0])
def test_alignment_on_a_quadratic_tends_to_half_the_distance(start):
    """α_T → |θ(0)|/2, whatever the curvature and the step: what is off at T is of order 1/T."""
    t = np.arange(200_001)
    path = start * 0.5**t
    trajectory = recorded([0.5 * 3.0 * path**2], [3.0 * abs(path)])
    assert ac.alignment_factor(trajectory)[0] == pytest.approx(abs(start) / 2, rel=1e-5)
    shorter = recorded([0.5 * 3.0 * path[:101] ** 2], [3.0 * abs(path[:101])])
    assert abs(ac.alignment_factor(shorter)[0] - abs(start) / 2) > 1e-3


def test_linear_regression_is_one_quadratic_for_each_eigenvalue():
    """With the ½ in the loss, L(t) − L* = Σ ½λᵢ cᵢ² ρᵢ²ᵗ; the gradient is rotated back before its 1-norm is taken."""
    random = torch.Generator().manual_seed(3)
    x = torch.randn(12, 3, generator=random, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    y = y + 0.3 * torch.randn(12, 1, generator=random, dtype=torch.float64)
    lr, steps = 0.2, 30
    setup = ac.TrainingSetup(
        model=lambda: torch.nn.Linear(3, 1, bias=False),
        data=(x, y),
        objective=lambda outputs, targets: 0.5 * (outputs - targets).square().sum(-1),
        optimizer=partial(torch.optim.SGD, lr=lr),
        steps=steps,
        dtype=torch.float64,
    )
    trajectory = ac.run(setup)
    hessian, best = (x.T @ x / 12).numpy(), torch.linalg.lstsq(x, y).solution.numpy().ravel()
    values, vectors = np.linalg.eigh(hessian)
    start = trajectory.base[0, 0]
    residual = 0.5 * float((x @ torch.from_numpy(best)[:, None] - y).square().mean())
    weight = realize(setup, setup.seed).parameters["weight"].numpy().ravel()
    modes = vectors.T @ (weight - best)
    t = np.arange(steps + 1)[:, None]
    decay = (1 - lr * values) ** t
    assert start == pytest.approx(residual + (0.5 * values * modes**2).sum(), rel=EXACT)
    base = residual + (0.5 * values * (decay * modes) ** 2).sum(1)
    mesa = np.abs((decay * modes * values) @ vectors.T).sum(1)
    expected = (base[1:] - base[0]).mean(), (mesa[1:] - mesa[0]).mean()
    assert ac.capability(trajectory)[0] == pytest.approx(expected[0], rel=EXACT)
    assert ac.capability(trajectory, of="mesa")[0] == pytest.approx(expected[1], rel=EXACT)
    assert ac.alignment_factor(trajectory)[0] == pytest.approx(expected[0] / expected[1], rel=EXACT)


def test_on_a_separable_example_t_times_loss_tends_to_one_over_lr_times_its_squared_norm():
    """Logistic loss without a bias: t·L(t) → 1/(η‖x‖²), and C_T's bias is of order log T / T."""
    x, lr, steps = [2.0, 1.0], 0.5, 4000
    setup = ac.landscape(
        lambda w: torch.nn.functional.softplus(-(w * torch.tensor(x, dtype=torch.float64)).sum()),
        [0.0, 0.0],
        optimizer=partial(torch.optim.SGD, lr=lr),
        steps=steps,
    )
    trajectory = ac.run(setup)
    assert steps * trajectory.base[0, -1] == pytest.approx(1 / (lr * 5.0), rel=0.01)
    bias = ac.capability(trajectory)[0] + math.log(2)
    assert bias == pytest.approx(math.log(steps) / (lr * 5.0 * steps), rel=0.3)
