"""Parameter groups are those that a factory makes of one run's parameters, whatever it looks at."""

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedules

import alignment_checks as ac
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.runs import Part, run_parts

SEEDS = range(5)


class Anchored(torch.optim.Optimizer):
    """Pulls each parameter towards where it began, and has moments from its init on."""

    def __init__(self, groups, lr=0.1, **options):
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, **options})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"start": p.detach().clone(), "moment": torch.zeros_like(p), "steps": 0}

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["steps"] += 1
                state["moment"].lerp_(p.grad, 0.1).add_(p - state["start"], alpha=group["weight_decay"])
                p.sub_(state["moment"], alpha=group["lr"])


def by_axes(parameters, cls=torch.optim.AdamW, **options):
    """Decay matrices alone, as those who train language models do."""
    wide, rest = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
    return cls([{"params": wide, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=0.02, **options)


def by_elements(parameters, cls=torch.optim.SGD, **options):
    return cls([{"params": [p], "lr": 0.1 / p.numel() ** 0.5} for p in parameters], lr=0.1, **options)


def by_width(parameters):
    """Let those of another kind be trained otherwise, and have one group be told by `requires_grad` alone."""
    trained = [p for p in parameters if p.requires_grad]
    last = [p for p in trained if p.shape[0] == 3 and p.dim() == 1]
    others = [p for p in trained if all(p is not one for one in last)]
    return torch.optim.Adam([{"params": others}, {"params": last, "betas": (0.5, 0.9)}], lr=0.05)


def by_numbers(parameters):
    """Decay what begins far from 0: in each run other parameters."""
    large = [float(p.detach().abs().mean()) > 0.24 for p in parameters]
    pairs = list(zip(parameters, large, strict=True))
    groups = [[p for p, one in pairs if one is kind] for kind in (True, False)]
    return torch.optim.SGD([{"params": groups[0], "weight_decay": 1.0}, {"params": groups[1]}], lr=0.02)


FACTORIES = {
    "axes": by_axes,
    "axes, lists": partial(by_axes, foreach=True),
    "axes, fused": partial(by_axes, fused=True),
    "axes, state from the init on": partial(by_axes, cls=torch.optim.Adagrad),
    "axes, momentum": partial(by_axes, cls=torch.optim.SGD, momentum=0.9, nesterov=True),
    "axes, other state": partial(by_axes, cls=Anchored),
    "elements": by_elements,
    "elements, other state": partial(by_elements, cls=Anchored),
    "width": by_width,
}
SCHEDULES = {
    "constant": None,
    "by the step": partial(schedules.StepLR, step_size=7),
    "by the loss": partial(schedules.ReduceLROnPlateau, patience=0, factor=0.5, threshold=0.1),
}


def model():
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3))


@pytest.fixture
def setup(blobs):
    return replace(blobs, model=model, steps=50, dtype=torch.float64)


ONE_RATE = {("axes, fused", "by the loss")}
"""What takes one number for all lanes, where each has its own: a fused kernel."""


@pytest.mark.parametrize(("factory", "schedule"), sorted({*product(FACTORIES, SCHEDULES)} - ONE_RATE))
def test_groups_by_what_stacking_changes_are_stepped_stacked_and_as_in_the_loop(setup, factory, schedule):
    setup = replace(setup, optimizer=FACTORIES[factory], scheduler=SCHEDULES[schedule])
    found, looped = (ac.run(setup, seeds=SEEDS, backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, looped.base, rtol=1e-8)
    np.testing.assert_allclose(found.mesa, looped.mesa, rtol=1e-8)
    assert {run.reason for run in found.runs} == {None}


def test_groups_of_other_parameters_in_each_run_are_stepped_lane_by_lane(setup):
    setup = replace(setup, optimizer=by_numbers)
    found, looped = (ac.run(setup, seeds=SEEDS, backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, looped.base, rtol=1e-8)
    assert "one optimizer for each lane" in found.runs[0].reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cls", [torch.optim.AdamW, torch.optim.Adagrad, Anchored])
def test_their_bits_do_not_depend_on_other_runs(setup, cls, dtype):
    decayed = [partial(by_axes, cls=cls), partial(by_elements, cls=cls)]
    setups = [replace(setup, optimizer=one, dtype=dtype, steps=9) for one in decayed]
    deltas = [IDENTITY, Perturbation("learning_rate", 0.5, 1.0, 0)]
    found = run_parts([Part(one, deltas, seeds=SEEDS) for one in setups], device="cpu", backend="lanes", planned=0)
    for one, together in zip(setups, found, strict=True):
        for at, delta in enumerate(deltas):
            alone = ac.run(one, [delta], seeds=[3, 1], backend="lanes")
            np.testing.assert_array_equal(together.base[5 * at + 3], alone.base[0])
            np.testing.assert_array_equal(together.base[5 * at + 1], alone.base[1])
