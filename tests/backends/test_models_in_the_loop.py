"""What torch cannot batch, or draws where nobody sees it, is trained in the loop, with the reason."""

import random
import re
from functools import partial

import numpy as np
import pytest
import torch
from cases.models import IMAGES, SIGNALS, VECTORS, classifying, conv
from torch import nn
from torch.nn.functional import dropout
from torch.utils.checkpoint import checkpoint

import alignment_checks as ac


class InputNoise(nn.Module):
    """Writes random numbers into a tensor that all lanes share."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x + torch.empty_like(x).normal_(std=0.1))


class Coin(nn.Module):
    """Skips a layer by a random number of Python's (stochastic depth)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(self.first(x) if random.random() < 0.5 else x)


class Packed(nn.Module):
    """A recurrent layer with dropout, over sequences that are packed."""

    def __init__(self):
        super().__init__()
        self.layer, self.read = nn.LSTM(6, 4, num_layers=2, dropout=0.5), nn.Linear(4, 3)

    def forward(self, x):
        out, _ = nn.utils.rnn.pad_packed_sequence(self.layer(nn.utils.rnn.pack_sequence(list(x)))[0])
        return self.read(out[-1])


class Recomputed(nn.Module):
    """Dropout that is computed again on the way back (activation checkpointing)."""

    def __init__(self, again=True):
        super().__init__()
        self.first, self.second, self.again = nn.Linear(6, 6), nn.Linear(6, 3), again

    def forward(self, x):
        if not self.again:
            random.random()  # so that it draws from torch's own generator, too
        return self.second(checkpoint(self.inner, x, use_reentrant=False) if self.again else self.inner(x))

    def inner(self, x):
        return dropout(torch.tanh(self.first(x)), 0.5, self.training)


LEFT = {
    "checkpointing": (VECTORS, Recomputed, "draws random numbers that cannot be drawn for each lane apart"),
    "batch norm that counts": (
        IMAGES,
        conv(partial(nn.BatchNorm2d, 4, momentum=None), nn.Tanh, flat=64),
        "torch.func cannot batch it: .*item",
    ),
    "dropout of packed sequences": (
        SIGNALS,
        Packed,
        "draws random numbers that cannot be drawn for each lane apart",
    ),
    "noise on what is shared": (VECTORS, InputNoise, "torch.func cannot batch it: .*inplace"),
    "a coin of Python's": (VECTORS, Coin, "draws random numbers that cannot be drawn for each lane apart"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_batched_goes_through_the_loop_and_says_why(name):
    inputs, model, why = LEFT[name]
    states = torch.get_rng_state(), random.getstate()
    first, again = (ac.run(classifying(inputs, model, steps=3), seeds=range(16)) for _ in range(2))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert {run.backend for run in first.runs} == {"loop"}
    assert all(re.search(why, run.reason) for run in first.runs)
    assert np.array_equal(first.base, again.base)


def test_what_is_computed_again_on_the_way_back_draws_again_what_it_drew():
    setups = (classifying(VECTORS, partial(Recomputed, again=again), steps=5) for again in (False, True))
    once, again = (ac.run(setup).base for setup in setups)
    np.testing.assert_allclose(again, once, rtol=1e-12)


class Graph(nn.Module):
    """A layer on a graph, whose adjacency is sparse: a buffer, or drawn with the model and unknown to torch."""

    def __init__(self, *, known):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        edges = torch.eye(10, dtype=torch.float64) if known else (torch.rand(10, 10) < 0.3).double()
        if known:
            self.register_buffer("edges", edges.to_sparse())
        else:
            self.edges = edges.to_sparse()

    def forward(self, x):
        return torch.sparse.mm(self.edges, self.layer(x))


class Ragged(nn.Linear):
    """A layer over sequences of two lengths."""

    def forward(self, x):
        nested = torch.nested.nested_tensor([x[:3], x[3:]], layout=torch.jagged, requires_grad=False)
        return torch.cat([*super().forward(nested).unbind()])


@pytest.mark.parametrize("model", [partial(Graph, known=True), partial(Graph, known=False), partial(Ragged, 6, 3)])
def test_models_of_sparse_and_of_nested_tensors_train_in_the_loop(model):
    setup = classifying(VECTORS, model, steps=4, optimizer=partial(torch.optim.SGD, lr=0.01))
    found, looped = (ac.run(setup, seeds=range(20), backend=backend) for backend in ("auto", "loop"))
    assert {run.backend for run in found.runs} == {"loop"}
    assert all(run.reason for run in found.runs)
    np.testing.assert_array_equal(found.base, looped.base)
    assert (found.base[:, -1] < found.base[:, 0]).all()
