"""Limits of runs that are known: fixed points, learning rates that end them, orbits, chaos and noise."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from cases.limits import bowl, descent, has_no_number, holds, limits
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR

import alignment_checks as ac
from alignment_checks.limits import Regime, alignment_factor_limit, capability_limit
from alignment_checks.perturbations import Perturbation

# --------------------------------------------------------------------------------------------------- fixed points


@pytest.mark.parametrize(("lr", "momentum"), [(0.1, 0.0), (0.5, 0.0), (0.1, 0.9)])
def test_quadratic(lr: float, momentum: float) -> None:
    base, mesa, alpha = limits(descent(bowl, [2.0], 600, lr=lr, momentum=momentum))
    for found, truth in ((base, -6.0), (mesa, -6.0), (alpha, 1.0)):
        assert found.regime is Regime.FIXED
        assert found.value == pytest.approx(truth, abs=1e-9)
        assert holds(found, truth)
        assert found.high - found.low < 1e-9


@pytest.mark.parametrize(("lr", "momentum"), [(0.01, 0.0), (0.1, 0.9)])
def test_quadratic_on_its_way(lr: float, momentum: float) -> None:
    base, mesa, alpha = limits(descent(bowl, [2.0], 120, lr=lr, momentum=momentum))
    for found, truth in ((base, -6.0), (mesa, -6.0), (alpha, 1.0)):
        assert found.regime is Regime.FIXED
        assert holds(found, truth)
        assert found.high - found.low < 0.5


def regression(steps: int, **options: Any) -> ac.TrainingSetup:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=random, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [2.0], [-1.0], [0.5]], dtype=torch.float64)
    y = y + 0.5 * torch.randn(64, 1, generator=random, dtype=torch.float64)
    optimizer = options.pop("optimizer", partial(SGD, lr=0.1))
    return ac.TrainingSetup(
        lambda: nn.Linear(4, 1, bias=False), (x, y), mse_loss, optimizer, steps, dtype=torch.float64, **options
    )


@pytest.mark.parametrize("steps", [40, 100, 400])
def test_linear_regression(steps: int) -> None:
    setup = regression(steps)
    x, y = setup.data or ()
    residual = float(mse_loss(x @ torch.linalg.lstsq(x, y).solution, y))
    trajectory = ac.run(setup)
    base, mesa, alpha = limits(trajectory)
    truth = residual - trajectory.base[0, 0], -trajectory.mesa[0, 0]
    assert holds(base, truth[0])
    assert holds(mesa, truth[1])
    assert holds(alpha, truth[0] / truth[1])
    assert base.value == pytest.approx(truth[0], abs=1e-9 if steps == 400 else 1e-6)


def test_separable_logistic_regression_has_a_power_law() -> None:
    x, y = torch.tensor([[1.0, 0.5]]), torch.ones(1, 1)
    setup = ac.TrainingSetup(
        lambda: nn.Linear(2, 1, bias=False),
        (x, y),
        lambda outputs, targets: softplus(-outputs * targets).mean(),
        partial(SGD, lr=0.5),
        1000,
        dtype=torch.float64,
        objective_infimum=None,
    )
    trajectory = ac.run(setup)
    base, mesa, _ = limits(trajectory)
    assert base.regime is Regime.FIXED
    assert holds(base, -trajectory.base[0, 0])
    assert base.value == pytest.approx(-trajectory.base[0, 0], abs=2e-4)
    assert holds(mesa, -trajectory.mesa[0, 0])


def test_a_start_at_a_critical_point_has_no_alignment_factor() -> None:
    base, mesa, alpha = limits(descent(lambda x: x.square().sum() + 5, [0.0], 100))
    assert base.value == mesa.value == 0
    assert base.regime is Regime.FIXED
    assert alpha.regime is Regime.UNDEFINED
    assert alpha.method.startswith("0/0")
    assert has_no_number(alpha)


# --------------------------------------------------------------------------------------------------- learning rates


@pytest.mark.parametrize(
    "schedule", [partial(ExponentialLR, gamma=0.97), partial(CosineAnnealingLR, T_max=1000)], ids=["0.97^t", "cosine"]
)
def test_a_learning_rate_that_goes_to_0_too_fast_stops_a_run(schedule: Any) -> None:
    trajectory = descent(bowl, [2.0], 1000, lr=0.002, scheduler=schedule)
    base, mesa, alpha = limits(trajectory)
    assert trajectory.mesa[0, -1] > 0.1
    assert base.regime is mesa.regime is alpha.regime is Regime.STOPPED
    assert base.value == pytest.approx(trajectory.base[0, -1] - 6, abs=1e-6)
    assert alpha.value == pytest.approx(base.value / mesa.value)


def test_geometric_steps_stop_where_their_sum_says() -> None:
    steps = 0.01 * 0.97 ** np.arange(5000)
    truth = 6 * float(np.prod(1 - 3 * steps)) ** 2 - 6
    (found,) = capability_limit(descent(bowl, [2.0], 1000, lr=0.01, scheduler=partial(ExponentialLR, gamma=0.97)))
    assert found.regime is Regime.STOPPED
    assert holds(found, truth)


@pytest.mark.parametrize(("rest", "regime"), [(0.0, Regime.STOPPED), (1e-5, Regime.DRIFTING), (1.0, Regime.STATIONARY)])
def test_where_the_rate_ends_what_went_round_its_mean_is_no_limit(rest: float, regime: Regime) -> None:
    """Noise, and in the last steps the learning rate falls: where it is 0, the run stays where it is."""
    noise = Perturbation("gradient_noise", 1.0, 1.0, 0)
    late = partial(LambdaLR, lr_lambda=lambda t: 1.0 if t < 390 else rest)
    setup = ac.landscape(bowl, [2.0, 1.0], optimizer=partial(SGD, lr=0.1), steps=400, scheduler=late)
    trajectory = ac.run(setup, [noise])
    base, mesa, alpha = limits(trajectory)
    assert base.regime is mesa.regime is alpha.regime is regime
    if regime is Regime.STOPPED:
        assert base.value == trajectory.base[0, -1] - trajectory.base[0, 0]
        assert base.high - base.low < 1e-9
    assert has_no_number(base) == has_no_number(alpha) == (regime is Regime.DRIFTING)


def _harmonic(t: int) -> float:
    return 1 / (1 + t / 20)


def test_annealing_with_an_infinite_sum_converges() -> None:
    (found,) = capability_limit(descent(bowl, [2.0], 1000, scheduler=partial(LambdaLR, lr_lambda=_harmonic)))
    assert found.regime is Regime.FIXED
    assert holds(found, -6.0)


def test_annealing_after_arrival_is_fixed() -> None:
    schedule = partial(CosineAnnealingLR, T_max=500)
    (found,) = capability_limit(descent(bowl, [2.0], 500, scheduler=schedule))
    assert found.regime is Regime.FIXED


# ------------------------------------------------------------------------------------------- orbits, chaos and noise


def test_descent_on_the_absolute_value_cycles_and_has_no_alignment_factor() -> None:
    base, mesa, alpha = limits(descent(lambda x: x.abs().sum(), [1.03], 500))
    assert base.regime is mesa.regime is Regime.PERIODIC
    assert base.value == pytest.approx(0.05 - 1.03, abs=1e-9)
    assert holds(base, 0.05 - 1.03)
    assert mesa.value == 0
    assert alpha.regime is Regime.UNDEFINED
    assert alpha.method == "the denominator is 0, the numerator is not"
    assert has_no_number(alpha)


def quartic(x: Tensor) -> Tensor:
    return (x**4 / 4 - x**2 / 2).sum()


@pytest.mark.parametrize(("lr", "period"), [(1.1, 2), (1.27, 4)])
def test_past_the_edge_of_stability_descent_cycles(lr: float, period: int) -> None:
    trajectory = descent(quartic, [0.3], 1500, lr=lr, objective_infimum=-0.25)
    base, mesa, alpha = limits(trajectory)
    assert base.regime is mesa.regime is alpha.regime is Regime.PERIODIC
    for found, series in ((base, trajectory.base[0]), (mesa, trajectory.mesa[0])):
        assert found.value == pytest.approx(series[-4 * period :].mean() - series[0], abs=1e-9)
    assert alpha.value == pytest.approx(base.value / mesa.value)


def test_chaotic_descent_is_stationary() -> None:
    base, mesa, alpha = limits(descent(quartic, [0.3], 3000, lr=1.8, objective_infimum=-0.25))
    x, levels, norms = np.linspace(0.1, 1.2, 2000), [], []
    for t in range(2500):
        gradient = x**3 - x
        if t >= 500:
            levels.append((x**4 / 4 - x**2 / 2).mean())
            norms.append(np.abs(gradient).mean())
        x = x - 1.8 * gradient
    truth = np.mean(levels) - float(quartic(torch.tensor([0.3], dtype=torch.float64))), np.mean(norms) - 0.273
    assert base.regime is mesa.regime is alpha.regime is Regime.STATIONARY
    assert holds(base, float(truth[0]))
    assert holds(mesa, float(truth[1]))
    assert holds(alpha, float(truth[0] / truth[1]))


def test_undamped_heavy_ball_is_quasiperiodic() -> None:
    start, momentum = 2.0, 1.0
    base, mesa, alpha = limits(descent(bowl, [start], 3000, momentum=momentum))
    assert base.regime is mesa.regime is alpha.regime is Regime.QUASIPERIODIC
    trace = 2 - 0.1 * 3  # θ(t) = a·cos(ωt) + b·sin(ωt), with 2·cos ω = 1 + β − ηλ
    sine = math.sqrt(1 - trace**2 / 4)
    b = (0.7 * start - start * trace / 2) / sine
    assert base.value == pytest.approx(1.5 * (start**2 + b**2) / 2 - 6, abs=1e-9)
    assert holds(mesa, 3 * math.hypot(start, b) * 2 / math.pi - 6)


def test_minibatch_noise_is_stationary_and_seeds_agree() -> None:
    trajectory = ac.run(regression(1000, batch_size=8), seeds=range(4))
    for found in (capability_limit(trajectory), capability_limit(trajectory, of="mesa")):
        assert {one.regime for one in found} == {Regime.STATIONARY}
    levels = [one.value + first for one, first in zip(capability_limit(trajectory), trajectory.base[:, 0], strict=True)]
    widths = [one.high - one.low for one in capability_limit(trajectory)]
    assert np.ptp(levels) < 2 * max(widths) < 0.01
    alphas = alignment_factor_limit(trajectory)
    assert {one.regime for one in alphas} == {Regime.STATIONARY}
    assert all("Fieller" in one.method and one.low < one.value < one.high for one in alphas)
