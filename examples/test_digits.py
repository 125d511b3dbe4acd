"""The experiment of the post's author: tell handwritten 3s from 7s, and see what a change in the training does.

Data are the 362 scans of a 3 or a 7 in scikit-learn's `load_digits`; the model is an MLP 64-32-2 with ReLU, trained by
full-batch gradient descent on cross-entropy. What this file shows:

- capability C (how far the loss falls, on average over the run) hardly depends on which scans were drawn, and little on
  the init, but mislabelled scans cost it: mostly because nobody can have a low loss on wrong labels;
- alignment α (how much of the designer's loss L falls for each unit of what gradient descent itself pursues, G) is the
  more brittle of the two: it depends on where the run starts, through G(0). `failing/test_brittle.py` goes on there.

Each tolerance is what was measured, at worst over hundreds of draws, and a margin; `examples=50` is half the default
number of draws, for speed.
"""

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt


def scans():
    """Return the pixels in [0, 1] and the labels (0: a three, 1: a seven), the threes first."""
    digits = load_digits()
    chosen = [index for digit in (3, 7) for index in (digits.target == digit).nonzero()[0]]
    pixels = torch.tensor(digits.data[chosen] / 16, dtype=torch.float32)
    return pixels, torch.tensor(digits.target[chosen] == 7).long()


def digits_setup(**changes):
    """Return the training setup, with some of its arguments changed."""
    as_in_the_post = {
        "model": lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)),
        "data": scans(),
        "objective": cross_entropy,
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "steps": 200,
    }
    return ac.TrainingSetup(**{**as_in_the_post, **changes})


@pytest.fixture(scope="session")
def setup():
    return digits_setup()


@pytest.fixture(scope="session")
def halves():
    """Return a setup on every second scan, and the scans left out: two samples of the same population."""
    pixels, labels = scans()
    return digits_setup(data=(pixels[::2], labels[::2])), (pixels[1::2], labels[1::2])


# ---------------------------------------------------------------------------------------------------------- label noise


def test_capability_survives_label_noise(alignment, setup):
    # trained and scored on the noisy labels; measured: 43 % at worst, for noise raises the floor of L itself
    alignment.assert_capability_robust(setup, under=pt.label_noise(max_rate=0.05), rtol=0.55, examples=50)


def test_label_noise_in_training_alone_costs_less(alignment, setup):
    # trained on the noisy labels, scored on the clean ones; measured: 14 % at worst
    alignment.assert_capability_robust(setup, mesa_under=pt.label_noise(max_rate=0.05), rtol=0.20, examples=50)


def test_alignment_survives_label_noise(alignment, setup):
    # measured: 36 % at worst, and always downwards: G falls as ever, and L no longer with it
    alignment.assert_alignment_robust(setup, under=pt.label_noise(max_rate=0.05), rtol=0.45, examples=50)


# ----------------------------------------------------------------------------------------------- another draw of scans


def test_capability_survives_another_draw_of_scans(alignment, halves):
    half, others = halves
    # measured: 4 % at worst, for any share of the scans replaced, up to all of them
    alignment.assert_capability_robust(half, under=pt.redraw(max_fraction=1, pool=others), rtol=0.06, examples=50)


def test_alignment_survives_another_draw_of_scans(alignment, halves):
    half, others = halves
    # measured: 18 % at worst, most of it from G(0): the dimensionless α̃ moves by 6 %
    alignment.assert_alignment_robust(half, under=pt.redraw(max_fraction=1, pool=others), rtol=0.25, examples=50)


# -------------------------------------------------------------------------------------------------------- another init


def test_capability_survives_another_init(alignment, setup):
    # measured: 10 % at worst, over 500 seeds of PyTorch's own init
    alignment.assert_capability_robust(setup, under=pt.init_seed(), rtol=0.15, examples=50)


def test_alignment_survives_a_jitter_of_the_init(alignment, setup):
    # each tensor of weights moved by a tenth of its norm; measured: 13 % at worst. Another seed moves α by up to 200 %
    alignment.assert_alignment_robust(setup, under=pt.init_jitter(max_sigma=0.1), rtol=0.18, examples=50)


# --------------------------------------------------------------------------------------------------- another objective


def test_alignment_generalizes_to_the_error_probability(alignment, setup):
    # the same run, scored by mean(1 − p_y): no retraining. Compared in dimensionless form, since literally the two
    # objectives are 30 % apart from their units alone. Measured: 2.5 %, at mean(1 − p_y) itself
    alignment.assert_alignment_generalizes(setup, to=pt.objective_mix(ac.one_minus_p), rtol=0.04)
