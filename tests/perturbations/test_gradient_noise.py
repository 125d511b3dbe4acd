"""Noise on the gradient: added to the step, of the run's seed and its own, and not to what is recorded."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks.perturbations import IDENTITY, Perturbation

SGD = partial(torch.optim.SGD, lr=0.1)


def delta(family, magnitude, seed=0):
    return Perturbation(family, magnitude, max(1.0, abs(magnitude)), seed)


def trained(setup, deltas, backend="loop", **more):
    return ac.run(setup, deltas, backend=backend, device="cpu", **more)


def still(setup):
    """Return a setup that does nothing but add up what its steps are given."""
    return replace(setup, optimizer=partial(torch.optim.SGD, lr=1e-9))


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_noise_is_added_to_the_step_and_not_to_what_is_recorded(blobs, backend):
    plain, noisy = trained(still(blobs), [IDENTITY, delta("gradient_noise", 0.5, seed=4)], backend).base
    assert plain[0] == noisy[0]
    both = trained(blobs, [IDENTITY, delta("gradient_noise", 0.5, seed=4)], backend)
    assert both.mesa[0, 0] == pytest.approx(both.mesa[1, 0], rel=1e-12)
    assert (both.base[0, 1:] != both.base[1, 1:]).all()


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_noise_is_standard_normal_times_its_scale(backend):
    """Descent on a constant: each step moves θ by −lr·noise alone."""
    flat = ac.landscape(lambda x: 0 * x.sum(), [0.0] * 4000, optimizer=SGD, steps=2)
    (end,) = trained(flat, [delta("gradient_noise", 0.3, seed=2)], backend).end
    last, first = -end.step["point"] / 0.1, -(end.parameters["point"] - end.step["point"]) / 0.1
    for noise in (last, first):
        assert float(noise.mean()) == pytest.approx(0, abs=4 * 0.3 / math.sqrt(4000))
        assert float(noise.std()) == pytest.approx(0.3, rel=4 / math.sqrt(8000))
    assert abs(float(torch.corrcoef(torch.stack([first, last]))[0, 1])) < 4 / math.sqrt(4000)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 1), st.integers(0, 2**16 - 1), st.integers(0, 100))
def test_noise_is_coupled_in_its_scale_and_drawn_from_the_runs_seed_and_its_own(scale, own, seed):
    flat = ac.landscape(lambda x: 0 * x.sum(), [0.0, 0.0, 0.0], optimizer=SGD, steps=3)

    def end(magnitude, own=own, seed=seed):
        return trained(flat, [delta("gradient_noise", magnitude, own)], seeds=[seed]).end[0].parameters["point"]

    torch.testing.assert_close(end(scale), scale * end(1.0), rtol=1e-12, atol=0)
    assert not torch.allclose(end(1.0), end(1.0, own=own + 1))
    assert not torch.allclose(end(1.0), end(1.0, seed=seed + 1))


def test_noise_of_several_scales_shares_a_batch_and_equals_the_loop(blobs):
    setup = replace(blobs, batch_size=10, optimizer=partial(torch.optim.Adam, lr=0.05), steps=12)
    deltas = [delta("gradient_noise", 0.1 * scale, seed) for scale in (1, 3, 7) for seed in (0, 5)]
    lanes, loop = (trained(setup, deltas, backend, seeds=[0, 3]) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-9)
    np.testing.assert_allclose(lanes.mesa, loop.mesa, rtol=1e-9)
