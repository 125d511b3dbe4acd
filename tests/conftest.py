"""What more than one test file uses. torch is imported here, once: a second import in one process crashes."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_pre_hook

import alignment_checks as ac

pytest_plugins = ["pytester"]
pytest.register_assert_rewrite("cases")

# What a test promises, it promises on a busy machine.
settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


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


@pytest.fixture(scope="session")
def mlp() -> ac.TrainingSetup:
    """Two classes that overlap a little: 40 examples, 4-6-2, trained for 40 steps."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.randn(40, 4, generator=random, dtype=torch.float64) + 1.5 * y[:, None]
    return ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)),
        data=(x, y),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.5),
        steps=40,
        dtype=torch.float64,
    )


@dataclass
class Steps:
    taken: int = 0


@pytest.fixture
def steps():
    """Count the steps that optimizers take, all of them."""
    count = Steps()

    def one_more(*_):
        count.taken += 1

    handle = register_optimizer_step_pre_hook(one_more)
    yield count
    handle.remove()
