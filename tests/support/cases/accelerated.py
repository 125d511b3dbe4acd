"""Setups of every kind, to be trained on an accelerator and on a CPU."""

from functools import partial

import numpy as np
import simulated
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler as schedules

import alignment_checks as ac
from cases.stepping import Items, Lamb

WEIGHTS = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


def data():
    random = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 3
    return torch.randn(24, 1, 6, 6, generator=random, dtype=torch.float64) + y[:, None, None, None], y


def setup(**changed):
    plain = {
        "model": MODELS["mlp"],
        "data": data(),
        "objective": cross_entropy,
        "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        "steps": 20,
        "dtype": torch.float64,
    }
    return ac.TrainingSetup(**plain | changed)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.cells, self.out = kind(6, 4, batch_first=True, **options), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.cells(x[:, 0])[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.layer(x[:, 0]).mean(1))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.table((2 * x[:, 0, 0].abs()).long().clamp(max=4)).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(36, 36), nn.Linear(36, 36), nn.Linear(36, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.out(self.two(self.one(x.flatten(1)).tanh()))


class Holding(nn.Module):
    """Holds a tensor that torch does not know of, and makes another where its author's CPU was."""

    def __init__(self):
        super().__init__()
        self.out, self.mask = nn.Linear(36, 3), torch.arange(36, dtype=torch.float64).ne(3).double()

    def forward(self, x):
        return self.out(x.flatten(1) * self.mask + 0.01 * torch.arange(36))


class Weighted:
    def __init__(self):
        self.weights = {"of classes": WEIGHTS}

    def __call__(self, outputs, targets):
        return cross_entropy(outputs, targets, weight=self.weights["of classes"])

    def method(self, outputs, targets):
        return self(outputs, targets)


def layers(*inner, width=5):
    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), *(make() for make in inner), nn.Linear(width, 3))


MODELS = {
    "mlp": layers(nn.Tanh),
    "convolution": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    ),
    "batch norm": layers(partial(nn.BatchNorm1d, 5), nn.ReLU),
    "layer norm": layers(partial(nn.LayerNorm, 5), nn.ReLU),
    "dropout": layers(partial(nn.Dropout, 0.3)),
    "attention": Attention,
    "embedding": Embedded,
    "LSTM": partial(Recurrent, nn.LSTM, num_layers=2, dropout=0.3),
    "GRU": partial(Recurrent, nn.GRU),
    "tied": Tied,
    "holding": Holding,
}
OPTIMIZERS = {
    "SGD with a tensor": partial(torch.optim.SGD, lr=torch.tensor(0.1)),
    "Adam": torch.optim.Adam,
    "lists": partial(torch.optim.Adam, foreach=True),
    "fused": partial(torch.optim.Adam, fused=True),
    "norms": Lamb,
    "reads": Items,
    "Adafactor": torch.optim.Adafactor,
    "diverging": partial(torch.optim.SGD, lr=1e200),
}
SETUPS = {
    **{name: {"model": model} for name, model in MODELS.items()},
    **{name: {"optimizer": optimizer} for name, optimizer in OPTIMIZERS.items()},
    "a schedule": {"scheduler": partial(schedules.StepLR, step_size=2)},
    "a schedule of the loss": {"scheduler": partial(schedules.ReduceLROnPlateau, patience=1)},
    "minibatches": {"batch_size": 7},
    "sparse records": {"record_every": 3},
    "the step pursued": {"mesa_objective": ac.step_l1},
    "weights in a partial": {"objective": partial(cross_entropy, weight=WEIGHTS)},
    "weights in a module": {"objective": nn.CrossEntropyLoss(weight=WEIGHTS)},
    "weights in an object": {"objective": Weighted()},
    "weights behind a method": {"objective": Weighted().method},
    "weights made": {"objective": lambda o, t: cross_entropy(o, t, weight=torch.tensor([1.0, 2.0, 3.0]).double())},
    "a mesa-objective that makes": {
        "mesa_objective": lambda g, _: sum((v.abs() * torch.ones(())).sum() for v in g.values())
    },
}


def rounding():
    """Return how far two devices may be apart in float64: a real one adds up in its own order, and has its own exp."""
    accelerator = torch.accelerator.current_accelerator()
    return 1e-12 if accelerator and accelerator.type == simulated.NAME else 1e-8


def assert_alike(here, there, rtol=None):
    """Two trajectories, of two devices."""
    rtol = rounding() if rtol is None else rtol
    np.testing.assert_allclose(here.base, there.base, rtol=rtol)
    np.testing.assert_allclose(here.mesa, there.mesa, rtol=10 * rtol, atol=rtol * np.nanmax(there.mesa[:, 0]))
    assert [run.backend for run in here.runs] == [run.backend for run in there.runs]
    assert [run.outcome for run in here.runs] == [run.outcome for run in there.runs]
    for mine, other in zip(here.end, there.end, strict=True):
        assert mine.learning_rate == other.learning_rate
        near = {"rtol": max(1e-9, rtol), "atol": max(1e-11, rtol), "equal_nan": True}
        torch.testing.assert_close(dict(mine.parameters), dict(other.parameters), **near)
