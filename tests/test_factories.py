"""Factories without a hash are as good as any function."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.search import drawn


@dataclass
class Linear:
    width: int

    def __call__(self):
        return nn.Linear(5, self.width)


@dataclass
class Descent:
    lr: float

    def __call__(self, parameters):
        return torch.optim.SGD(parameters, lr=self.lr)


@dataclass
class Cooling:
    gamma: float

    def __call__(self, optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, self.gamma)


@dataclass
class Weighted:
    weight: float

    def __call__(self, outputs, targets):
        return self.weight * cross_entropy(outputs, targets)


@dataclass
class Norm:
    scale: float

    def __call__(self, push, parameters):
        return self.scale * sum(value.abs().sum() for value in push.values())


@pytest.mark.parametrize(
    ("changes", "strategy"),
    [
        ({"model": Linear(3)}, pt.init_gain(max_log2=1)),
        ({"optimizer": Descent(0.1)}, pt.learning_rate(max_log2=1)),
        ({"scheduler": Cooling(0.9)}, pt.init_gain(max_log2=1)),
        ({"objective": Weighted(2.0)}, pt.l2_penalty(max_weight=1)),
        ({"mesa_objective": Norm(2.0)}, pt.init_gain(max_log2=1)),
        ({}, pt.objective_mix(Weighted(2.0))),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else None,
)
def test_a_plain_dataclass_is_as_good_a_factory_as_any_function(blobs, changes, strategy):
    """It compares by value and has no hash; in lanes it trains what it trains in the loop."""
    setup = replace(blobs, **changes)
    deltas = [pt.IDENTITY, *drawn(strategy, 4, 0)]
    lanes, loop = (ac.run(setup, deltas, backend=backend) for backend in ("lanes", "loop"))
    assert {run.backend for run in lanes.runs} == {"lanes"}
    assert lanes.base == pytest.approx(loop.base, rel=1e-8)
    assert lanes.mesa == pytest.approx(loop.mesa, rel=1e-8)
    assert ac.check_capability_robust(setup, under=strategy, rtol=99, examples=4).status == "pass"
