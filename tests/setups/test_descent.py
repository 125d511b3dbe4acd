"""Whether G is a training process's own objective: it is plain descent's alone."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, ReduceLROnPlateau, StepLR

import alignment_checks as ac
from alignment_checks.setups.descent import pursues_gradient
from alignment_checks.setups.realization import realize

SGD = partial(torch.optim.SGD, lr=0.1)


class Clipped(torch.optim.SGD):
    """Gradient descent that clips its gradient inside the step."""

    def step(self, closure=None):
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 1.0)
        return super().step(closure)


class Signed(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = p.grad.sign()
        return super().step(closure)


class Closured(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


def pursues(optimizer, start=(1.0, -2.0), steps=10, **more):
    setup = ac.landscape(lambda x: x.square().sum(), start, optimizer=optimizer, steps=steps, **more)
    return pursues_gradient(realize(setup, setup.seed))


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD,
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.5),
        partial(torch.optim.SGD, lr=1e-8),
        partial(torch.optim.SGD, lr=100.0, maximize=True),
    ],
)
def test_descent_that_rests_where_the_gradient_vanishes_pursues_it(optimizer):
    assert pursues(optimizer)
    assert pursues(optimizer, mesa_objective=ac.gradient_l2)


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.SGD, lr=0.1, weight_decay=0.01),
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.RMSprop,
        torch.optim.Adagrad,
        torch.optim.Rprop,
        partial(Clipped, lr=0.1),
        partial(Signed, lr=0.1),
        partial(Closured, lr=0.1),
        torch.optim.LBFGS,
    ],
)
def test_what_rests_elsewhere_or_is_not_in_proportion_to_the_gradient_does_not(optimizer):
    assert not pursues(optimizer)
    assert not pursues(optimizer, mesa_objective=ac.gradient_l2)


def test_weight_decay_shows_also_where_the_weights_start_at_zero():
    assert not pursues(partial(torch.optim.SGD, lr=0.1, weight_decay=0.01), start=(0.0, 0.0))


@pytest.mark.parametrize(
    "mesa", [ac.step_l1, ac.decayed_gradient_l1(0.01), ac.MesaObjective("mine", ac.gradient_l1.function)]
)
def test_another_mesa_objective_is_taken_for_what_its_author_says(mesa):
    assert pursues(torch.optim.Adam, mesa_objective=mesa)
    assert pursues(SGD, scheduler=partial(StepLR, step_size=2), mesa_objective=mesa)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (partial(StepLR, step_size=3), False),
        (partial(StepLR, step_size=300), True),
        (partial(CosineAnnealingLR, T_max=10), False),
        (partial(LambdaLR, lr_lambda=lambda t: 1 / (1 + t)), False),
        (ReduceLROnPlateau, False),
        (partial(ConstantLR, factor=0.1, total_iters=5), True),
        (partial(LambdaLR, lr_lambda=lambda t: 1.0), True),
    ],
    ids=["steps", "no step yet", "cosine", "1/t", "plateau", "warm-up", "constant"],
)
def test_annealing_stops_away_from_where_the_gradient_vanishes_and_a_warm_up_does_not(scheduler, expected):
    assert pursues(SGD, scheduler=scheduler) is expected


def test_looking_changes_neither_the_weights_nor_the_random_state():
    setup = ac.landscape(lambda x: x.square().sum(), (1.0, -2.0), optimizer=SGD, steps=3)
    run = realize(setup, 0)
    before, random = {name: value.clone() for name, value in run.parameters.items()}, torch.get_rng_state()
    pursues_gradient(run)
    assert all(torch.equal(value, before[name]) for name, value in run.parameters.items())
    assert torch.equal(random, torch.get_rng_state())
