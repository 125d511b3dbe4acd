"""Where a run amplifies rounding, lanes come as far from the loop as the loop from itself, moved by its last bit."""

from functools import partial

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import alignment_checks as ac

SEEDS = range(4)
STEPS = 50
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}
OPTIMIZERS = {
    "SGD": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
    "RMSprop": torch.optim.RMSprop,
}


def deep(activation, toward):
    """Return a factory of a model, each weight moved by its last bit toward a number; None leaves them."""

    def model():
        layers = [nn.Linear(4, 6), activation(), nn.Linear(6, 6), activation(), nn.Linear(6, 3)]
        made = nn.Sequential(*layers).double()
        with torch.no_grad():
            for p in made.parameters() if toward is not None else ():
                p.copy_(torch.nextafter(p, torch.full_like(p, toward)))
        return made

    return model


def apart(found, loop):
    """Return how far runs are from others at each t, relative to these; 0 where either is no number."""
    with np.errstate(all="ignore"):
        far = np.abs(found.base - loop.base) / np.abs(loop.base)
    return np.where(np.isfinite(far), far, 0.0)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from([mse_loss, cross_entropy]),
    st.floats(-1, 2),
)
def test_lanes_come_no_farther_from_the_loop_than_a_last_bit_takes_it(activation, optimizer, objective, power):
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=random), torch.arange(30) % 3
    y = y if objective is cross_entropy else torch.randn(30, 3, generator=random)
    step = partial(OPTIMIZERS[optimizer], lr=10**power)

    def trained(toward, backend):
        model = deep(ACTIVATIONS[activation], toward)
        setup = ac.TrainingSetup(model, (x, y), objective, step, STEPS, dtype=torch.float64)
        return ac.run(setup, seeds=SEEDS, backend=backend, device="cpu")

    loop, lanes = trained(None, "loop"), trained(None, "lanes")
    moved = [apart(trained(toward, "loop"), loop) for toward in (-9.0, 0.0, 9.0)]
    bound = np.maximum.accumulate(np.max(moved, 0), axis=1)
    assert (apart(lanes, loop) <= np.maximum(1e-10, 100 * bound)).all()
