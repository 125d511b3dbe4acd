"""What more than one test file uses. torch is imported here, once: a second import in one process crashes."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def blobs() -> ac.TrainingSetup:
    """Return a small classification: 24 examples of 5 features in 3 classes, an MLP, SGD, 6 steps, all in float64.

    A test that needs another one takes `dataclasses.replace` of it.
    """
    random = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 3
    x = torch.randn(24, 5, generator=random, dtype=torch.float64) + y[:, None]
    return ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)),
        data=(x, y),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=6,
        dtype=torch.float64,
    )
