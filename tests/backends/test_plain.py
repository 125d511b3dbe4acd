"""What a run computes is what the plain loop of a tutorial computes, and it begins where that begins."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import alignment_checks as ac
from alignment_checks.setups.realization import built


class Twice(nn.Module):
    """Has a layer under two names."""

    def __init__(self, layer):
        super().__init__()
        self.before, self.layer, self.again, self.after = nn.Linear(5, 4), layer, layer, nn.Linear(4, 3)

    def forward(self, x):
        return self.after(self.again(torch.tanh(self.layer(self.before(x)))))


@pytest.mark.parametrize("layer", [partial(nn.Linear, 4, 4), partial(nn.BatchNorm1d, 4)], ids=["linear", "batch norm"])
@pytest.mark.parametrize("seeds", [[0], [1], [0, 1, 2]], ids=str)
def test_a_layer_that_stands_in_a_model_twice_is_trained_as_by_plain_torch(blobs, layer, seeds):
    setup = replace(blobs, model=lambda: Twice(layer()), seed=0)
    for backend in ("loop", "lanes"):
        found = ac.run(setup, seeds=seeds, backend=backend)
        np.testing.assert_allclose(found.base, [by_hand(setup, seed) for seed in seeds], rtol=1e-9)


def by_hand(setup, seed):
    """Return L(t) of a run, trained as the tutorials have it."""
    model = built(setup, seed)
    optimizer, losses = setup.optimizer(model.parameters()), []
    for _ in range(setup.steps + 1):
        optimizer.zero_grad()
        loss = setup.objective(model(setup.data[0]), setup.data[1])
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return losses


def test_a_run_begins_with_a_model_that_was_never_called(blobs):
    class Warm(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) * (2 if self.calls == 1 else 1)

    setup = replace(blobs, model=lambda: Warm(5, 3))
    first = setup.objective(built(setup, setup.seed)(setup.data[0]), setup.data[1])
    assert ac.run(setup).base[0, 0] == pytest.approx(first.item(), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_run_by_itself_costs_one_call_of_the_model_more_than_training(blobs, steps):
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(x)
            return super().forward(x)

    found = ac.run(replace(blobs, model=lambda: Counted(5, 3), steps=steps))
    assert len(calls) == 1 + steps + 1
    np.testing.assert_array_equal(found.base, ac.run(replace(blobs, model=lambda: nn.Linear(5, 3), steps=steps)).base)
