"""Small models of small images, and perturbations to train them under."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks.perturbations import Perturbation

CPU = torch.device("cpu")


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)),
    "convolution": lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
    "batch norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Dropout(0.3), nn.Linear(5, 3)),
}


DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def pictures(model, dtype, **changes):
    random = torch.Generator().manual_seed(1)
    y = torch.arange(12) % 3
    x = torch.randn(12, 1, 6, 6, generator=random) + y[:, None, None, None]
    plain = ac.TrainingSetup(
        model=MODELS[model],
        data=(x, y),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        steps=4,
        dtype=dtype,
    )
    return replace(plain, **changes)


GAINS = [Perturbation("init_gain", m, 1.0, 0) for m in (-0.5, 0.0, 0.3, 0.8)]


NOISES = [Perturbation("feature_noise", m, 1.0, s) for m, s in ((0.1, 1), (0.5, 2), (1.0, 3))]


LABELS = [Perturbation("label_noise", m, 1.0, s) for m, s in ((0.2, 1), (0.6, 2))]


KNOWN = [*GAINS, *NOISES, *LABELS]
