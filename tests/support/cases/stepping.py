"""Optimizers to step lanes by, what is descended with them, and how they are held against the loop."""

import inspect
import re

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

import alignment_checks as ac
from alignment_checks import perturbations as pt

SEEDS = range(3)
MANY = range(12)
"""Enough for a batch to pay in however few steps, though they do not fill it: `auto` tries lanes first."""


class Bowl(nn.Module):
    """A smooth, coupled function of a matrix, a vector and a number, with a parameter that it does not use."""

    def __init__(self, *shapes):
        super().__init__()
        self.of = nn.ParameterList([nn.Parameter(torch.randn(shape) + 0.5) for shape in shapes or ((3, 2), (2,), ())])
        self.spare = nn.Parameter(torch.ones(2))

    def forward(self):
        total = sum(p.square().sum() for p in self.of)
        return (1 + total).log() + sum(torch.cosh(0.3 * p).mean() for p in self.of)


def bowl(optimizer, *, steps=50, model=Bowl, **more):
    return ac.TrainingSetup(model, None, lambda outputs, _: outputs, optimizer, steps, dtype=torch.float64, **more)


def assert_equal_the_loop(setup, *arguments, backend="lanes", rtol=1e-8, **more):
    """At every step, and where the runs end. Return the runs, as that backend has them."""
    runs, loop = (ac.run(setup, *arguments, backend=b, device="cpu", **more) for b in (backend, "loop"))
    assert np.isfinite(loop.base).all()
    np.testing.assert_allclose(runs.base, loop.base, rtol=rtol)
    np.testing.assert_allclose(runs.mesa, loop.mesa, rtol=rtol)
    for mine, oracle in zip(runs.end, loop.end, strict=True):
        assert mine.learning_rate == oracle.learning_rate
        for name, value in oracle.parameters.items():
            torch.testing.assert_close(mine.parameters[name], value, rtol=10 * rtol, atol=1e-12)
    return runs


def stepped(trajectory):
    """Return (the way that all runs took, why)."""
    (kind,) = {(run.backend, run.reason) for run in trajectory.runs}
    backend, reason = kind
    if backend == "loop":
        return "loop", reason
    found = re.search(r"stepped by (one optimizer for each lane|vmap over optimizer.step\(\))", reason or "")
    return (found[1] if found else "one optimizer over stacked lanes"), reason


STACKED, VMAPPED, PER_LANE = (
    "one optimizer over stacked lanes",
    "vmap over optimizer.step()",
    "one optimizer for each lane",
)


OPTIMIZERS = [c for c in vars(torch.optim).values() if inspect.isclass(c) and issubclass(c, Optimizer)]


def named(value):
    return value.__name__ if inspect.isclass(value) else ",".join(f"{k}={v}" for k, v in value.items()) or "default"


ELEMENTWISE = [
    c for c in OPTIMIZERS if c is not Optimizer and c.__name__ not in ("Adafactor", "LBFGS", "Muon", "SparseAdam")
]


class Mine(Optimizer):
    """A user's own optimizer: `update(parameter, gradient, state, t)` is what is taken off the parameter."""

    def __init__(self, parameters, lr=0.05, **more):
        super().__init__(parameters, {"lr": lr, **more})
        self.t = 0

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, group["lr"] * self.update(p, p.grad, self.state[p]))
        self.t += 1

    def move(self, p, by):
        p.sub_(by)

    def update(self, p, g, state):
        return g


class Lamb(Mine):
    """The trust ratio of each tensor: a norm of all its elements."""

    def update(self, p, g, state):
        moved = g + self.defaults.get("weight_decay", 0) * p
        return moved * p.norm() / (moved.norm() + 1e-3)


class Assigning(Mine):
    """Puts another tensor into the parameter."""

    def move(self, p, by):
        p.data = p.data - by


class Items(Mine):
    def update(self, p, g, state):
        return g / (1 + g.norm().item())


def clip(parameters):
    clip_grad_norm_([p for p in parameters if p.grad is not None], 0.3)


class Clipping(torch.optim.SGD):
    """A subclass that clips before it steps."""

    def step(self, closure=None):
        clip(self.param_groups[0]["params"])
        return super().step(closure)


def delta(family, magnitude):
    return pt.Perturbation(family, magnitude, 2.0, 0)


RATES = [delta("learning_rate", m) for m in (1.0, 0.5, 0.25, -1.0)]


CHANGES = [delta("momentum", m) for m in (-0.2, -0.1, -0.3, -0.05)]
