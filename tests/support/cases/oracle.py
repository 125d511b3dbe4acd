"""How the loop is run and held against the truth."""

from functools import partial

import numpy as np
import torch
from hypothesis import settings

import alignment_checks as ac

few = settings(max_examples=30, deadline=None)
run = partial(ac.run, backend="loop", device="cpu")


def sgd(lr, **options):
    return partial(torch.optim.SGD, lr=lr, **options)


def close(came, expected):
    """Compare at every t, to 1e-9 relative."""
    np.testing.assert_allclose(came, expected, rtol=1e-9, atol=0)
