"""Properties that do not hold, and what is said of them: `pytest examples/failing`. A plain `pytest examples` skips it.

The setup is that of `test_digits.py`: 3 against 7, an MLP 64-32-2, full-batch gradient descent.
"""

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt


@pytest.fixture(scope="session")
def setup():
    digits = load_digits()
    chosen = (digits.target == 3) | (digits.target == 7)
    return ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)),
        data=(torch.tensor(digits.data[chosen] / 16).float(), torch.tensor(digits.target[chosen] == 7).long()),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=200,
    )


def test_capability_survives_label_noise(alignment, setup):
    # a few wrong labels among 362 are enough
    alignment.assert_capability_robust(setup, under=pt.label_noise(max_rate=0.05), rtol=0.10)


def test_alignment_survives_another_scale_of_init_and_label_noise(alignment, setup):
    # two suspects, of whom one is innocent: the scale of the init alone breaks it, through G(0)
    both = pt.compose(pt.init_gain(max_log2=0.5), pt.label_noise(max_rate=0.01))
    alignment.assert_alignment_robust(setup, under=both, rtol=0.25)


def test_inner_aligned_under_label_noise(alignment, setup):
    # α is 0.099 on the clean labels; the floor is what breaks first, not the tolerance
    alignment.assert_inner_aligned(setup, under=pt.label_noise(max_rate=0.05), floor=0.09, rtol=0.50)
