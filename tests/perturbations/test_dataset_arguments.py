"""What a perturbation of the dataset achieves, and the datasets and arguments that are refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import find

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.realization import realize


def applied(setup, family, magnitude, seed=0, **more):
    """Return the data under one perturbation of the setup's first run."""
    delta = Perturbation(family, magnitude, 1.0, seed, **more)
    return delta, delta.applied(realize(setup, 0)).data


def changed(before, after):
    """Return which examples differ, as a boolean array."""
    return (before != after).reshape(len(before), -1).any(1).numpy()


def redrawn(setup, fraction, seed, pool):
    delta = Perturbation("redraw", fraction, 1.0, seed, (("pool", "p"),), payload=pool)
    return delta.applied(realize(setup, 0)).data


def test_achieved_is_what_was_really_done():
    """5 % of 37 labels is not 5 %."""
    data = (torch.ones(37, 2), torch.arange(37) % 2)
    setup = ac.TrainingSetup(lambda: torch.nn.Linear(2, 2), data, torch.nn.functional.cross_entropy, torch.optim.SGD, 1)
    done = {Perturbation("label_noise", 0.05, 0.05, seed).achieved(setup) * 37 for seed in range(20)}
    assert done == {round(count) for count in done}
    assert len(done) > 1


@pytest.mark.parametrize(
    ("family", "targets", "said"),
    [
        ("label_noise", torch.randn(24, 1), "needs class labels: integers, one-hot rows, or 0./1. floats; got"),
        ("label_noise", torch.ones(24, dtype=torch.int64), "needs at least two classes; the targets hold one"),
        ("label_noise", torch.rand(24, 3), "got torch.float64 targets of shape (24, 3)"),
    ],
)
def test_targets_that_are_no_labels_are_refused(blobs, family, targets, said):
    with pytest.raises(ValueError) as caught:
        applied(replace(blobs, data=(blobs.data[0], targets)), family, 0.5)
    assert said in str(caught.value)


def test_noise_on_features_that_are_integers_is_refused(blobs):
    with pytest.raises(ValueError, match="feature_noise needs floating-point inputs; this setup's are all integers"):
        applied(replace(blobs, data=(torch.ones(24, 5, dtype=torch.int64), blobs.data[1])), "feature_noise", 0.5)


@pytest.mark.parametrize("family", ["label_noise", "label_permutation", "feature_noise", "subsample", "redraw"])
def test_a_dataset_family_needs_a_dataset(family, blobs):
    bowl = replace(blobs, model=lambda: torch.nn.ParameterList([torch.ones(1)]), data=None)
    with pytest.raises(ValueError, match=rf"{family} perturbs a dataset; this setup has none \(data=None\)"):
        applied(bowl, family, 0.5, payload=(torch.ones(1, 1),))


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ((), "must be tensors whose first axes agree, as `data` is"),
        ((torch.ones(3, 5), torch.ones(4)), "must be tensors whose first axes agree"),
        ((torch.ones(0, 5), torch.ones(0)), "holds no examples; expected at least one"),
    ],
)
def test_a_pool_that_is_no_dataset_is_refused(pool, said):
    with pytest.raises(ValueError, match=said):
        pt.redraw(max_fraction=0.5, pool=pool)


def test_a_pool_of_another_shape_is_refused(blobs):
    with pytest.raises(ValueError, match=r"expected examples of shapes \[\(5,\), \(\)\], got \[\(6,\), \(\)\]"):
        redrawn(blobs, 0.5, 0, (torch.ones(30, 6), torch.zeros(30)))


def test_a_pool_whose_labels_are_floats_is_refused(blobs):
    x, y = blobs.data
    with pytest.raises(ValueError, match=r"must be of the dtypes of `data`.*torch.int64\], got .*Cast it as `data` is"):
        redrawn(blobs, 0.5, 0, (x, y + 0.5))


def test_a_pool_whose_features_are_whole_numbers_is_refused(blobs):
    x, y = blobs.data
    with pytest.raises(ValueError, match=r"must be of the dtypes of `data`, .*got \[torch.int64, torch.int64\]"):
        redrawn(blobs, 0.5, 0, (x.long(), y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_of_a_pool_are_cast_to_the_dtype_of_the_data(blobs, dtype):
    x, y = blobs.data
    redrawn_x, _ = redrawn(blobs, 1.0, 0, (torch.zeros_like(x, dtype=dtype), y))
    assert redrawn_x.dtype is x.dtype
    assert not redrawn_x.any()


@pytest.mark.parametrize("value", [0, -0.1, 1.5, float("nan"), "0.1", True, None])
@pytest.mark.parametrize("family", [pt.label_noise, pt.label_permutation, pt.subsample])
def test_a_fraction_outside_of_its_range_is_refused(family, value):
    with pytest.raises(ValueError) as caught:
        family(value)
    assert f"must be a number above 0, at most 1; got {value!r}" in str(caught.value)


def test_a_pool_that_its_owner_changes_later_changes_no_run(blobs):
    x, y = (part.clone() + 1 for part in blobs.data)
    delta = find(pt.redraw(max_fraction=1.0, pool=(x, y)), lambda _: True).at(1.0)
    before = delta.applied(realize(blobs, 0)).data
    x.zero_()
    assert all(torch.equal(a, b) for a, b in zip(delta.applied(realize(blobs, 0)).data, before, strict=True))
