"""Another batch size: multiplied, rounded, clipped, and the run of the setup that has it."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import alignment_checks as ac
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.realization import realize

SGD = partial(torch.optim.SGD, lr=0.1)


def delta(family, magnitude, seed=0):
    return Perturbation(family, magnitude, max(1.0, abs(magnitude)), seed)


def trained(setup, deltas, backend="loop", **more):
    return ac.run(setup, deltas, backend=backend, device="cpu", **more)


@pytest.mark.parametrize(
    ("size", "log2", "expected"),
    [(8, 1.0, 16), (8, -1.0, 4), (8, 0.3, 10), (8, 5.0, 24), (8, -9.0, 1), (None, -1.0, 12), (None, 2.0, None)],
)
def test_batch_size_is_multiplied_rounded_and_clipped(blobs, size, log2, expected):
    setup, one = replace(blobs, batch_size=size), delta("batch_size", log2)
    assert one.applied(realize(setup, 0)).batch_size == expected
    assert one.achieved(setup) == pytest.approx(math.log2((expected or 24) / (size or 24)))


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_a_run_of_another_batch_size_is_that_of_the_setup_that_has_it(blobs, backend):
    came = trained(replace(blobs, batch_size=8), [delta("batch_size", -1.0)], backend)
    assert np.array_equal(came.base, trained(replace(blobs, batch_size=4), None, backend).base)


def test_batch_size_too_small_a_change_is_the_same_run(blobs):
    plain = realize(replace(blobs, batch_size=8), 0)
    assert delta("batch_size", 0.01).applied(plain) is plain


def test_batch_size_without_data_is_refused():
    bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=SGD, steps=1)
    with pytest.raises(ValueError, match="batch_size needs a dataset; this setup has none"):
        trained(bowl, [delta("batch_size", -1.0)])
