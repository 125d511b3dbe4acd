"""A buffer that the model puts another tensor in the place of is kept from step to step, as one that it writes into."""

import numpy as np
import pytest
import torch
from cases.oracle import plainly
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac

CPU = torch.device("cpu")
STEPS = 9


class Averaged(nn.Module):
    """Inputs less their average so far."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.layer(x - self.mean)


class Remembering(Averaged):
    """Keeps a view of the inputs, whose memory is not its own."""

    def forward(self, x):
        before, self.mean = self.mean, x[-1]
        return self.layer(x - before)


class Counting(nn.Module):
    """A buffer of a part, counted by another tensor each time."""

    def __init__(self):
        super().__init__()
        self.part = nn.BatchNorm1d(4)
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        self.part.running_mean = self.part.running_mean + 1
        return self.layer(self.part(x) + 0.1 * self.part.running_mean)


def examples():
    random = torch.Generator().manual_seed(0)
    return torch.randn(23, 4, generator=random, dtype=torch.float64), torch.arange(23) % 3


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("model", [Averaged, Remembering, Counting])
@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_buffers_that_are_replaced_are_kept_from_step_to_step(model, batch_size, backend):
    setup = ac.TrainingSetup(
        model,
        examples(),
        cross_entropy,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        STEPS,
        batch_size=batch_size,
        dtype=torch.float64,
    )
    before = [part.clone() for part in setup.data]
    found = ac.run(setup, seeds=range(3), backend=backend, device="cpu")
    assert {one.backend for one in found.runs} == {backend}
    for seed, row in enumerate(found.base):
        np.testing.assert_allclose(row, plainly(setup, seed), rtol=1e-12)
    assert all(torch.equal(part, same) for part, same in zip(setup.data, before, strict=True))
