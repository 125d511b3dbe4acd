"""A lower precision: trained in, and measured in the setup's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import alignment_checks as ac
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.realization import realize


def delta(family, magnitude, seed=0):
    return Perturbation(family, magnitude, max(1.0, abs(magnitude)), seed)


def trained(setup, deltas, backend="loop", **more):
    return ac.run(setup, deltas, backend=backend, device="cpu", **more)


@pytest.mark.parametrize(
    ("own", "bits", "dtype", "achieved"),
    [
        (torch.float64, 0.5, torch.float32, 29),
        (torch.float64, 29.0, torch.float32, 29),
        (torch.float64, 30.0, torch.float16, 42),
        (torch.float64, 45.0, torch.bfloat16, 45),
        (torch.float64, 60.0, torch.bfloat16, 45),
        (torch.float32, 1.0, torch.float16, 13),
        (torch.float32, 14.0, torch.bfloat16, 16),
        (torch.bfloat16, 3.0, None, 0),
    ],
)
def test_precision_is_the_widest_dtype_that_gives_up_so_many_bits(blobs, own, bits, dtype, achieved):
    setup, one = replace(blobs, dtype=own), delta("precision", bits)
    assert one.applied(realize(setup, 0)).dtype == dtype
    assert one.achieved(setup) == achieved


@pytest.mark.parametrize("backend", ["loop", "lanes"])
@pytest.mark.parametrize("mesa", [ac.gradient_l1, ac.step_l1, ac.decayed_gradient_l1(0.1)], ids=lambda m: m.name)
def test_a_run_in_a_lower_precision_is_measured_in_the_setups_own(blobs, backend, mesa):
    """θ(t) is that of a run in float32, up to its rounding; L(t) is the loss in float64 at exactly that θ(t)."""
    setup = replace(blobs, mesa_objective=mesa)
    came = trained(setup, [delta("precision", 1.0)], backend)
    low = trained(replace(setup, dtype=torch.float32), None, backend)
    np.testing.assert_allclose(came.base, low.base, rtol=1e-5)
    np.testing.assert_allclose(came.mesa, low.mesa, rtol=1e-4)
    (end,), (x, y) = came.end, setup.data
    module = setup.model().double()
    module.load_state_dict(end.parameters)
    assert nn.functional.cross_entropy(module(x), y).item() == pytest.approx(came.base[0, -1], rel=1e-12)
    assert all(torch.equal(value, value.float().double()) for value in end.parameters.values())
    assert came.resolution == torch.finfo(torch.float64).eps


@pytest.mark.parametrize("bits", [1.0, 42.0, 45.0])
def test_precision_in_lanes_equals_the_loop_step_by_step(blobs, bits):
    """Rounding is discontinuous, and so one step each is what can be compared, up to the last bit of that dtype."""
    model = lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 3))  # noqa: E731
    setup = replace(blobs, model=model, batch_size=8, steps=1)
    lanes, loop = (trained(setup, [delta("precision", bits)], b, seeds=[0, 3, 4]) for b in ("lanes", "loop"))
    eps = torch.finfo(delta("precision", bits).applied(realize(setup, 0)).dtype).eps
    np.testing.assert_allclose(lanes.base[:, 0], loop.base[:, 0], rtol=1e-12)
    np.testing.assert_allclose(lanes.base[:, 1], loop.base[:, 1], rtol=8 * eps)
    np.testing.assert_allclose(lanes.mesa[:, 1], loop.mesa[:, 1], rtol=64 * eps)
