import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, softplus
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR

import alignment_checks as ac
from alignment_checks.endpoints import endpoint
from alignment_checks.limits import Estimate, Regime, alignment_factor_limit, capability_limit
from alignment_checks.ratios import fieller
from alignment_checks.trajectory import Trajectory

NO_NUMBER = (-math.inf, math.inf)


def descent(function: Callable[[Tensor], Tensor], start: list[float], steps: int, **options: Any) -> Trajectory:
    """Run gradient descent on a function."""
    optimizer = partial(SGD, lr=options.pop("lr", 0.1), momentum=options.pop("momentum", 0.0))
    return ac.run(ac.landscape(function, start, optimizer=optimizer, steps=steps, **options))


def limits(trajectory: Trajectory) -> tuple[Estimate, Estimate, Estimate]:
    """Return the limits of C_B, C_M and α of the first run."""
    both = (capability_limit(trajectory, of=of)[0] for of in ("base", "mesa"))
    return (*both, alignment_factor_limit(trajectory)[0])  # type: ignore[return-value]


def holds(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


def has_no_number(found: Estimate) -> bool:
    return math.isnan(found.value) and (found.low, found.high) == NO_NUMBER and bool(found.method)


def bowl(x: Tensor) -> Tensor:
    return 1.5 * x.square().sum()


def saddle(p: Tensor) -> Tensor:
    return 0.5 * (p[0] ** 2 - p[1] ** 2) + 0.25 * p[1] ** 4


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


# ------------------------------------------------------------------------------------------- saddles and plateaus


@pytest.mark.parametrize("steps", [100, 600])
def test_exactly_on_the_stable_manifold_of_a_saddle_a_run_is_fixed(steps: int) -> None:
    base, _, alpha = limits(descent(saddle, [1.0, 0.0], steps, objective_infimum=-0.25))
    assert base.regime is alpha.regime is Regime.FIXED
    assert "at a saddle" in base.method
    assert holds(base, -0.5)


def test_close_to_it_a_run_is_on_a_plateau() -> None:
    for found in limits(descent(saddle, [1.0, 1e-9], 100, objective_infimum=-0.25)):
        assert found.regime is Regime.PLATEAU
        assert "least curvature -1" in found.method
        assert has_no_number(found)


def test_after_its_escape_it_is_fixed() -> None:
    base, _, alpha = limits(descent(saddle, [1.0, 1e-9], 600, objective_infimum=-0.25))
    assert base.regime is Regime.FIXED
    assert base.value == pytest.approx(-0.75, abs=1e-9)
    assert alpha.value == pytest.approx(0.75, abs=1e-6)


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.ParameterList([nn.Parameter(0.02 * torch.randn(3, 3)) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for factor in self.factors:
            x = x @ factor.T
        return x


@pytest.mark.parametrize(("steps", "regime"), [(150, Regime.FIXED), (180, Regime.PLATEAU), (800, Regime.FIXED)])
def test_a_deep_linear_network_waits_at_its_saddles(steps: int, regime: Regime) -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x * torch.tensor([3.0, 1.0, 0.3])
    trajectory = ac.run(ac.TrainingSetup(Product, (x, y), mse_loss, partial(SGD, lr=0.1), steps, dtype=x.dtype))
    (found,) = capability_limit(trajectory)
    assert found.regime is regime
    assert has_no_number(found) or holds(found, -trajectory.base[0, 0])


@pytest.fixture(scope="module")
def digits() -> ac.TrainingSetup:
    from sklearn.datasets import load_digits

    data = load_digits()
    kept = (data.target == 3) | (data.target == 7)
    x, y = torch.tensor(data.data[kept] / 16, dtype=torch.float32), torch.tensor(data.target[kept] == 7).long()
    return ac.TrainingSetup(
        lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)),
        (x, y),
        cross_entropy,
        partial(SGD, lr=0.1),
        500,
        objective_infimum=None,
    )


def test_negative_curvature_alone_is_no_plateau(digits: ac.TrainingSetup) -> None:
    trajectory = ac.run(digits)
    assert -0.01 < endpoint(trajectory, 0, lowest=0.0).curvature < -0.001
    base, mesa, alpha = limits(trajectory)
    assert base.regime is mesa.regime is alpha.regime is Regime.FIXED
    assert "saddle" not in base.method
    assert holds(base, -trajectory.base[0, 0])
    assert holds(mesa, -trajectory.mesa[0, 0])
    assert base.high - base.low < 0.02


def test_where_the_infimum_leaves_no_way_down_curvature_is_not_looked_at(digits: ac.TrainingSetup) -> None:
    trajectory = ac.run(dataclasses.replace(digits, objective_infimum=0.0))
    assert math.isnan(endpoint(trajectory, 0, lowest=0.0).curvature)
    (found,) = capability_limit(trajectory)
    assert found.low == -trajectory.base[0, 0]


def test_weight_decay_at_a_curved_spot_is_no_plateau() -> None:
    decayed = partial(SGD, lr=0.1, weight_decay=2.0)
    setup = ac.landscape(lambda p: (p - 1).cos().sum(), [0.5], optimizer=decayed, steps=500, objective_infimum=-1.0)
    (found,) = capability_limit(ac.run(setup))
    assert found.regime is Regime.FIXED
    assert "saddle" not in found.method


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square().sum() + 1

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient * ctx.saved_tensors[0]


def test_what_cannot_be_differentiated_twice_is_said() -> None:
    (found,) = capability_limit(descent(lambda x: _Once.apply(x).square(), [1.0], 300))
    assert found.regime is Regime.FIXED
    assert "curvature not seen" in found.method


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


# ------------------------------------------------------------------------------------------- no limit, and no number


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
