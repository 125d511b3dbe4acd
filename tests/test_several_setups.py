"""Setups that are trained at once are each trained as by itself."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import alignment_checks as ac
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.runs import Part, company, run_parts


def stepping_otherwise(setup):
    """Return setups that differ from one another in how they step, in their seed, and in nothing else."""
    sgd, adam = torch.optim.SGD, torch.optim.Adam
    return [
        setup,
        *(
            replace(setup, optimizer=partial(sgd, lr=lr, momentum=momentum))
            for lr, momentum in ((0.05, 0.0), (0.2, 0.5))
        ),
        replace(setup, optimizer=partial(adam, lr=0.01)),
        replace(setup, scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)),
        replace(setup, batch_size=5),
        replace(setup, seed=3),
    ]


@pytest.mark.parametrize("backend", ["lanes", "loop"])
def test_setups_trained_at_once_are_each_trained_as_by_itself(blobs, backend):
    setups = stepping_otherwise(replace(blobs, dtype=torch.float64))
    deltas = [IDENTITY, Perturbation("init_gain", 0.7, 1.0, 0)]
    together = run_parts([Part(setup, deltas) for setup in setups], device="cpu", backend=backend, planned=0)
    for setup, found in zip(setups, together, strict=True):
        alone = ac.run(setup, deltas, backend="loop")
        assert found.setup is setup
        np.testing.assert_allclose(found.base, alone.base, rtol=1e-8)
        np.testing.assert_allclose(found.mesa, alone.mesa, rtol=1e-8)
        assert [run.seed for run in found.runs] == [run.seed for run in alone.runs]


def test_models_of_equal_shapes_keep_no_company(blobs):
    def built(activation):
        return lambda: torch.nn.Sequential(torch.nn.Linear(5, 4), activation(), torch.nn.Linear(4, 3))

    setups = [replace(blobs, model=built(kind), dtype=torch.float64) for kind in (torch.nn.ReLU, torch.nn.Tanh)]
    assert company(setups[0]) != company(setups[1])
    assert company(setups[0]) == company(replace(setups[0], optimizer=partial(torch.optim.Adam, lr=0.01), seed=5))
    assert company(setups[0]) != company(replace(setups[0], steps=setups[0].steps + 1))
    together = run_parts([Part(setup) for setup in setups], device="cpu", backend="auto", planned=0)
    for setup, found in zip(setups, together, strict=True):
        np.testing.assert_allclose(found.base, ac.run(setup).base, rtol=1e-8)
