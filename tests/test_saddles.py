"""Saddles and plateaus: what a run's end tells where its series looks converged."""

import dataclasses
import math
from functools import partial
from typing import Any

import pytest
import torch
from cases.limits import descent, has_no_number, holds, limits, saddle
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import SGD

import alignment_checks as ac
from alignment_checks.asymptotics.endpoints import endpoint
from alignment_checks.limits import Regime, capability_limit


@pytest.mark.parametrize("steps", [100, 600])
def test_exactly_on_the_stable_manifold_of_a_saddle_a_run_is_fixed(steps: int) -> None:
    base, _, alpha = limits(descent(saddle, [1.0, 0.0], steps, objective_infimum=-0.25))
    assert base.regime is alpha.regime is Regime.FIXED
    assert "at a saddle" in base.remark
    assert holds(base, -0.5)


def test_close_to_it_a_run_is_on_a_plateau() -> None:
    for found in limits(descent(saddle, [1.0, 1e-9], 100, objective_infimum=-0.25)):
        assert found.regime is Regime.PLATEAU
        assert "least curvature -1" in found.method
        assert has_no_number(found)


@pytest.mark.parametrize(("off", "steps"), [(1e-12, 50), (1e-12, 100), (1e-12, 200), (1e-8, 100)])
def test_what_a_setup_says_of_its_infimum_hides_no_saddle_above_it(off: float, steps: int) -> None:
    """L is 0 there, and 0 is the infimum of a setup that says nothing else."""
    for found in limits(descent(saddle, [1.0, off], steps)):
        assert found.regime is Regime.PLATEAU
        assert has_no_number(found)


def test_a_saddle_at_the_infimum_that_a_setup_states_has_its_name() -> None:
    assert "at a saddle" in limits(descent(saddle, [1.0, 0.0], 300))[0].remark


@pytest.mark.parametrize("start", [[0.0], [0.0, 0.0, 0.0]])
def test_a_maximum_is_called_that_and_no_saddle(start: list[float]) -> None:
    """Among the fixed points of gradient descent there are maxima: no direction goes up from there."""
    hills = limits(descent(lambda p: (p.square() - 1).square().sum(), start, 50))
    assert hills[0].remark == "at a maximum, least curvature -4"


def test_after_its_escape_it_is_fixed() -> None:
    base, _, alpha = limits(descent(saddle, [1.0, 1e-9], 600, objective_infimum=-0.25))
    assert base.regime is Regime.FIXED
    assert base.value == pytest.approx(-0.75, abs=1e-9)
    assert alpha.value == pytest.approx(0.75, abs=1e-6)


def ridge(p: Tensor, bends: tuple[float, float]) -> Tensor:
    """Return a saddle with two ways down, the first of which is bent the more."""
    return 0.5 * p[0] ** 2 - 0.5 * (bends[0] * p[1] ** 2 + bends[1] * p[2] ** 2) + 0.25 * (p[1] ** 4 + p[2] ** 4)


@pytest.mark.parametrize("bends", [(1.5, 1.0), (1.0, 1.0), (1.0, 1.5)])
@pytest.mark.parametrize("start", [[1.0, 0.0, 1e-9], [1.0, 1e-9, 0.0], [1.0, 1e-9, 1e-9]])
def test_a_way_down_counts_whichever_of_several_the_run_is_on(bends: tuple[float, float], start: list[float]) -> None:
    """Also where it is not the one of least curvature, and where two are bent alike, so that no one of them is it."""
    for found in limits(descent(partial(ridge, bends=bends), start, 100, objective_infimum=None)):
        assert found.regime is Regime.PLATEAU
    on_none = limits(descent(partial(ridge, bends=bends), [1.0, 0.0, 0.0], 100, objective_infimum=None))[0]
    assert on_none.regime is Regime.FIXED
    assert "at a saddle" in on_none.remark


@pytest.mark.parametrize("off", [1e-6, 1e-9, 1e-12])
def test_the_escape_is_foretold_to_its_order_of_magnitude(off: float) -> None:
    """The distance from the saddle grows by a tenth at each step."""
    end = endpoint(descent(saddle, [1.0, off], 60, objective_infimum=-0.25), 0, lowest=0.0)
    truth = math.log(1 / off) / math.log(1.1) - 60
    assert end.escape_in == pytest.approx(truth, rel=0.2)


def wavering(p: Tensor) -> Tensor:
    """Return a saddle's way down, at y = 0, beside what descent of |x| goes up and down in."""
    return p[0].abs() - 0.05 * p[1] ** 2 + 0.0125 * p[1] ** 4


def restless(p: Tensor) -> Tensor:
    """Return the same, beside what descent is chaotic in at a rate of 1.8."""
    return 0.25 * p[0] ** 4 - 0.5 * p[0] ** 2 - 0.01 * p[1] ** 2 + 6.25e-6 * p[1] ** 4


@pytest.mark.parametrize(
    ("function", "start", "lr", "on_manifold"),
    [(wavering, 1.03, 0.1, Regime.PERIODIC), (restless, 0.3, 1.8, Regime.STATIONARY)],
)
def test_a_run_that_goes_up_and_down_may_be_leaving_a_saddle_too(
    function: Any, start: float, lr: float, on_manifold: Regime
) -> None:
    options: dict[str, Any] = {"lr": lr, "objective_infimum": None}
    for found in limits(descent(function, [start, 1e-10], 400, **options)):
        assert found.regime is Regime.PLATEAU
        assert has_no_number(found)
    assert limits(descent(function, [start, 0.0], 400, **options))[0].regime is on_manifold


@pytest.mark.parametrize("steps", range(300, 306))
@pytest.mark.parametrize("lr", [1.24, 1.7])
def test_a_cycle_that_comes_by_where_it_goes_down_is_no_plateau(lr: float, steps: int) -> None:
    """Of periods 4 and 3, the latter across the ridge of two wells, whose bottom it never comes to."""
    cycle = descent(lambda x: (x**4 / 4 - x**2 / 2).sum(), [0.3], steps, lr=lr, objective_infimum=None)
    assert capability_limit(cycle)[0].regime is Regime.PERIODIC


def test_a_cycle_beside_a_saddle_that_has_long_not_left_it_is_no_plateau() -> None:
    """Of sign descent: its slopes change slowly there, and L would have come down had it been leaving."""
    random = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(24, size, generator=random, dtype=torch.float64) for size in (4, 1))
    setup = ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)),
        data=(x, torch.sin(2 * x.sum(1, keepdim=True)) + noise),
        objective=mse_loss,
        optimizer=partial(torch.optim.Adam, lr=0.02, betas=(0.0, 0.0)),
        steps=1500,
        dtype=torch.float64,
        seed=7,
    )
    assert limits(ac.run(setup))[0].regime is Regime.PERIODIC


class Gated(nn.Module):
    """A weight beside a product of two, which start near 0: a saddle that no minibatch has any noise across."""

    def __init__(self, near: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.factors = nn.Parameter(torch.full((2,), near))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x[:, :1] + self.factors.prod() * x[:, 1:]


@pytest.mark.parametrize(("near", "steps", "regime"), [(1e-13, 400, Regime.PLATEAU), (0.0, 1500, Regime.STATIONARY)])
def test_noise_does_not_hide_a_saddle_that_it_has_no_part_in(near: float, steps: int, regime: Regime) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(64, 2, generator=random, dtype=torch.float64)
    y = 2 * x[:, :1] + x[:, 1:] + 0.1 * torch.randn(64, 1, generator=random, dtype=torch.float64)
    slow = partial(SGD, lr=0.02)
    noisy = ac.TrainingSetup(partial(Gated, near), (x, y), mse_loss, slow, steps, batch_size=8, dtype=x.dtype)
    base, _, alpha = limits(ac.run(noisy))
    assert base.regime is regime
    assert regime is Regime.STATIONARY or has_no_number(alpha)


def test_noise_that_carries_a_run_over_a_ridge_is_no_plateau() -> None:
    """Descent with noise, from well to well: on the ridge it goes down, to where it has been all the time."""
    noise = ac.perturbations.Perturbation("gradient_noise", 1.0, 1.0, 0)
    fast = partial(SGD, lr=0.3)
    wells = ac.landscape(
        lambda p: (p**4 / 4 - p**2 / 2).sum(), [0.5, -0.5], optimizer=fast, steps=500, objective_infimum=None
    )
    trajectory = ac.run(wells, [noise], seeds=range(12))
    ends = [endpoint(trajectory, row, lowest=-1.0) for row in range(12)]
    found = [one.regime for one in capability_limit(trajectory)]
    assert sum(end.escape is not None for end in ends) >= 2, "some are on their way down a ridge"
    assert Regime.PLATEAU not in found
    assert found.count(Regime.STATIONARY) >= 8


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
    assert "saddle" not in base.remark
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
    assert "saddle" not in found.remark


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
    assert "curvature not seen" in found.remark
