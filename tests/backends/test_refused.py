"""What cannot be batched goes through the loop, which is said, with the reason."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import alignment_checks as ac


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        out = self.layer(x)
        return out if out.sum() > 0 else -out


class Hidden(nn.Module):
    """Dropout inside of torch's own C++, where nobody sees it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(5, 3, num_layers=2, dropout=0.5)

    def forward(self, x):
        return self.layer(nn.utils.rnn.pack_sequence([x]))[0].data


class Clipped(nn.Module):
    """Weights kept within bounds by the forward pass itself."""

    def __init__(self, clip):
        super().__init__()
        self.layer, self.clip = nn.Linear(5, 3), clip

    def forward(self, x):
        with torch.no_grad():
            self.clip(self.layer.weight)
        return self.layer(x)


class Renormed(nn.Module):
    """Rows of weights are scaled down as they are looked up: not that anything of it was to see in the first rows."""

    def __init__(self):
        super().__init__()
        self.rows, self.layer = nn.Embedding(3, 5, max_norm=50.0), nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x + self.rows((x[:, 0] > 0).long()))


WRITES = "the model writes into its own parameters"

REFUSED = {
    "clips its weights": ({"model": lambda: Clipped(lambda w: w.clamp_(-0.2, 0.2))}, WRITES),
    "clips their data": ({"model": lambda: Clipped(lambda w: w.data.clamp_(-0.2, 0.2))}, WRITES),
    "clips them as a list": ({"model": lambda: Clipped(lambda w: torch._foreach_clamp_max_([w], 9.0))}, WRITES),
    "renorms its embedding": ({"model": Renormed}, WRITES),
    "hidden randomness": (
        {"model": lambda: Hidden()},
        "the model draws random numbers that cannot be drawn for each lane apart",
    ),
    "branch": ({"model": Branching}, "torch.func cannot batch it: .*data-dependent control flow"),
    "lbfgs": ({"optimizer": torch.optim.LBFGS}, "LBFGS is given a closure"),
}


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_batched_goes_through_the_loop_and_says_why(blobs, changes, reason):
    setup = replace(blobs, steps=2, **changes)
    auto, loop = (ac.run(setup, seeds=range(16), backend=backend) for backend in ("auto", "loop"))
    assert {run.backend for run in auto.runs} == {"loop"}
    (said,) = {run.reason for run in auto.runs}
    assert re.search(reason, said)
    assert np.array_equal(auto.base, loop.base)


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED)
def test_lanes_asked_for_raise_with_the_reason(blobs, changes, reason):
    with pytest.raises(RuntimeError, match=f"backend='lanes' cannot train this setup: {reason}.*auto.* takes the loop"):
        ac.run(replace(blobs, steps=2, **changes), backend="lanes")
