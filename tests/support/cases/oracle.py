"""How the loop is run and held against the truth."""

from copy import deepcopy
from functools import partial

import numpy as np
import torch
from hypothesis import settings

import alignment_checks as ac
from alignment_checks.backends.minibatches import minibatches
from alignment_checks.setups.realization import CPU, realize

few = settings(max_examples=30, deadline=None)
run = partial(ac.run, backend="loop", device="cpu")


def sgd(lr, **options):
    return partial(torch.optim.SGD, lr=lr, **options)


def close(came, expected):
    """Compare at every t, to 1e-9 relative."""
    np.testing.assert_allclose(came, expected, rtol=1e-9, atol=0)


def plainly(setup, seed, *, evaluates=False):
    """Return L(t) of a loop of plain torch that measures a copy of its model, so that measuring leaves nothing behind.

    The copy is in training mode, or in eval mode where the loop `evaluates`.
    """
    run = realize(setup, seed)
    model, batches, (x, y) = run.module, minibatches(run, CPU), run.data
    optimizer, losses = setup.optimizer(model.parameters()), []
    for _ in range(setup.steps + 1):
        losses.append(setup.objective(deepcopy(model).train(not evaluates)(x), y).item())
        batch = next(batches)
        some = slice(None) if batch is None else batch
        optimizer.zero_grad()
        setup.objective(model(x[some]), y[some]).backward()
        optimizer.step()
    return losses
