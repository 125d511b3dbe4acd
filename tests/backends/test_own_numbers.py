"""Lanes of a number each: schedules that read what lanes do not have, and steps that read a number in any way."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks.perturbations import Perturbation

RATES = [Perturbation("learning_rate", magnitude, 1.0, 0) for magnitude in (-0.9, -0.5, 0.0, 0.7)]
STEPS = 40


def assert_lanes_equal_the_loop(optimizer, scheduler=None):
    """Return why lanes were not stepped in the fastest way."""
    x, y = torch.randn(24, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
    model = lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))  # noqa: E731
    setup = ac.TrainingSetup(model, (x, y), cross_entropy, optimizer, STEPS, dtype=torch.float64, scheduler=scheduler)
    lanes, loop = (ac.run(setup, RATES, seeds=[0, 1], backend=backend, device="cpu") for backend in ("lanes", "loop"))
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-8)
    np.testing.assert_allclose(lanes.mesa, loop.mesa, rtol=1e-8)
    return lanes.runs[0].reason


class Holding:
    """A scheduler that was given its optimizer's state at the start, and reads it by `how`."""

    def __init__(self, optimizer, how):
        self.optimizer, self.read = optimizer, how(optimizer)
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def step(self):
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate / (1 + self.read())


MOVED = [partial(torch.optim.SGD, lr=0.3, momentum=0.9), partial(torch.optim.Adam, lr=0.05)]


def moved(state):
    return sum(float(value.norm()) for kept in state.values() for value in kept.values() if value is not None)


HELD = {
    "values": lambda optimizer: partial(moved, optimizer.state),
    "length": lambda optimizer: partial(len, optimizer.state),
    "a method": lambda optimizer: partial(lambda get, p: get(p) is not None, optimizer.state.get, _first(optimizer)),
    "an item": lambda optimizer: partial(lambda state, p: len(state[p]), optimizer.state, _first(optimizer)),
    "membership": lambda optimizer: partial(lambda state, p: p in state, optimizer.state, _first(optimizer)),
    "a copy": lambda optimizer: partial(lambda state: len(dict(state)), optimizer.state),
    "state_dict": lambda optimizer: lambda: len(optimizer.state_dict()["state"]),
}


def _first(optimizer):
    return optimizer.param_groups[0]["params"][0]


@pytest.mark.parametrize("how", HELD)
@pytest.mark.parametrize(
    "optimizer",
    [partial(torch.optim.SGD, lr=0.3, momentum=0.9), partial(torch.optim.Adam, lr=0.05)],
    ids=["SGD", "Adam"],
)
def test_a_schedule_that_holds_the_optimizers_state_is_that_of_the_loop(how, optimizer):
    reason = assert_lanes_equal_the_loop(optimizer, partial(Holding, how=HELD[how]))
    assert "its scheduler looks at the optimizer's state" in reason


class Scaled(torch.optim.Optimizer):
    def __init__(self, parameters, of, lr=0.1):
        super().__init__(parameters, {"lr": lr})
        self.of = of

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self.of(group["lr"]) * p.grad)


READS = {
    "math.sqrt": math.sqrt,
    "math.pow": lambda lr: math.pow(lr, 0.5),
    "math.hypot": lambda lr: math.hypot(lr, 0.1),
    "math.fsum": lambda lr: math.fsum([lr, 0.1]),
    "math.copysign": lambda lr: math.copysign(0.1, lr),
    "math.isnan": lambda lr: 0.3 if math.isnan(lr) else lr,
    "math.isclose": lambda lr: 0.2 if math.isclose(lr, 0.1) else 0.1,
    "max": lambda lr: max(lr, 0.12),
    "a branch": lambda lr: 0.2 if lr > 0.1 else 0.05,
    "a format": lambda lr: float(f"{lr:.3f}"),
    "a set": lambda lr: 0.3 if lr in {0.1} else 0.1,
    "a dict": lambda lr: {0.1: 0.3}.get(lr, 0.1),
    "round": lambda lr: round(lr, 2),
    "numpy": lambda lr: float(np.sqrt(lr)),
    "a tensor": torch.tensor,
}


@pytest.mark.parametrize("name", READS)
def test_a_step_that_reads_a_lanes_number_is_that_of_the_loop(name):
    assert_lanes_equal_the_loop(partial(Scaled, of=READS[name]))
