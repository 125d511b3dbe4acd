"""Ten examples of each kind that models take, labels of three classes, and what is trained on them."""

from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac

_RANDOM = torch.Generator().manual_seed(3)
LABELS = torch.arange(10) % 3
VECTORS = torch.randn(10, 6, generator=_RANDOM, dtype=torch.float64) + LABELS[:, None]
IMAGES = torch.randn(10, 2, 6, 6, generator=_RANDOM, dtype=torch.float64) + LABELS[:, None, None, None]
SIGNALS = IMAGES[:, 0]
TOKENS = torch.randint(0, 7, (10, 4), generator=_RANDOM)


def mlp(*middle):
    return lambda: nn.Sequential(nn.Linear(6, 8), *(layer() for layer in middle), nn.Linear(8, 3))


def conv(*middle, flat):
    return lambda: nn.Sequential(nn.Conv2d(2, 4, 3), *(layer() for layer in middle), nn.Flatten(), nn.Linear(flat, 3))


def classifying(inputs, model, batch_size=None, **more):
    return ac.TrainingSetup(
        model=model,
        data=(inputs, LABELS),
        objective=cross_entropy,
        batch_size=batch_size,
        **{"optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.5), "steps": 50, "dtype": torch.float64} | more,
    )
