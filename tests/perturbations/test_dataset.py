"""What the dataset families do to data, label by label."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from alignment_checks import perturbations as pt
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.realization import realize

FRACTIONS = st.floats(0, 1)
SEEDS = st.integers(0, 2**16 - 1)
few = settings(max_examples=25, deadline=None)
FORMS = ["indices", "int32", "one_hot", "zero_one", "zero_one_column", "bits"]


def labels_in(form, blobs):
    """Return `blobs` with its labels in another form."""
    x, y = blobs.data
    targets = {
        "indices": y,
        "int32": y.to(torch.int32) * 10 - 3,
        "one_hot": one_hot(y, 4).double(),
        "zero_one": (y == 1).double(),
        "zero_one_column": (y == 1).double()[:, None],
        "bits": torch.stack([y == 0, y >= 0], 1).double(),
    }[form]
    return replace(blobs, data=(x, targets))


def applied(setup, family, magnitude, seed=0, **more):
    """Return the data under one perturbation of the setup's first run."""
    delta = Perturbation(family, magnitude, 1.0, seed, **more)
    return delta, delta.applied(realize(setup, 0)).data


def changed(before, after):
    """Return which examples differ, as a boolean array."""
    return (before != after).reshape(len(before), -1).any(1).numpy()


# --------------------------------------------------------------------------------------------------------- label_noise


@pytest.mark.parametrize("form", FORMS)
@few
@given(rate=FRACTIONS, seed=SEEDS)
def test_a_flipped_label_is_another_one_and_stays_in_its_form(form, blobs, rate, seed):
    setup = labels_in(form, blobs)
    delta, (_, noisy) = applied(setup, "label_noise", rate, seed)
    clean = setup.data[1]
    assert (noisy.shape, noisy.dtype) == (clean.shape, clean.dtype)
    assert set(map(tuple, noisy.reshape(24, -1).tolist())) <= permitted(form, clean)
    labels = (noisy.argmax(1), clean.argmax(1)) if form == "one_hot" else (noisy, clean)
    assert delta.achieved(setup) == pytest.approx(float((labels[0] != labels[1]).double().mean()))


def permitted(form, clean):
    if form == "one_hot":
        return set(map(tuple, torch.eye(4).tolist()))
    return (
        {(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)} if form == "bits" else {(v,) for v in clean.unique().tolist()}
    )


@pytest.mark.parametrize("form", FORMS)
@few
@given(seed=SEEDS)
def test_at_rate_one_every_label_is_another_one(form, blobs, seed):
    setup = labels_in(form, blobs)
    delta, (_, noisy) = applied(setup, "label_noise", 1.0, seed)
    assert changed(setup.data[1], noisy).all()
    assert delta.achieved(setup) == 1.0


@given(SEEDS)
@settings(max_examples=5, deadline=None)
def test_label_noise_is_symmetric_over_the_other_classes(blobs, seed):
    labels = torch.cat([torch.arange(4), torch.full((7996,), 2)])  # nearly all are 2; there are four classes
    many = replace(blobs, data=(torch.zeros(8000, 5), labels))
    _, (_, noisy) = applied(many, "label_noise", 0.5, seed)
    counts = np.bincount(noisy.numpy(), minlength=4) / 8000
    np.testing.assert_allclose(counts, [1 / 6, 1 / 6, 1 / 2, 1 / 6], atol=0.03)  # 5 standard deviations


@few
@given(rate=FRACTIONS, seed=SEEDS)
def test_what_losses_ignore_is_no_class_and_stays_where_it_is(blobs, rate, seed):
    x, y = blobs.data
    padded = torch.where(torch.arange(24) % 4 == 0, -100, y)
    delta, (_, noisy) = applied(replace(blobs, data=(x, padded)), "label_noise", rate, seed)
    assert torch.equal(noisy == -100, padded == -100)
    assert delta.achieved(replace(blobs, data=(x, padded))) == float((noisy != padded)[padded != -100].double().mean())


# -------------------------------------------------------------------------------------------------- coupled randomness


@pytest.mark.parametrize("form", FORMS)
@few
@given(rates=st.tuples(FRACTIONS, FRACTIONS), seed=SEEDS)
def test_a_larger_rate_flips_a_superset_to_the_same_labels(form, blobs, rates, seed):
    setup = labels_in(form, blobs)
    small, large = (applied(setup, "label_noise", rate, seed)[1][1] for rate in sorted(rates))
    clean = setup.data[1]
    flipped = small != clean
    assert torch.equal(large[flipped], small[flipped])


@few
@given(st.tuples(FRACTIONS, FRACTIONS), SEEDS)
def test_a_larger_fraction_swaps_a_superset(blobs, fractions, seed):
    x, _ = blobs.data
    setup = replace(blobs, data=(x, torch.arange(24)))
    small, large = (applied(setup, "label_permutation", f, seed)[1][1] for f in sorted(fractions))
    swapped = small != torch.arange(24)
    assert torch.equal(large[swapped], small[swapped])


@few
@given(st.tuples(FRACTIONS, FRACTIONS), SEEDS)
def test_a_larger_fraction_leaves_out_a_superset(blobs, fractions, seed):
    setup = replace(blobs, data=(blobs.data[0], torch.arange(24)))
    small, large = (set(applied(setup, "subsample", f, seed)[1][1].tolist()) for f in sorted(fractions))
    assert large <= small


@pytest.mark.parametrize("size", [10, 24, 60])
@few
@given(fractions=st.tuples(FRACTIONS, FRACTIONS), seed=SEEDS)
def test_a_larger_fraction_replaces_a_superset_by_the_same_examples(size, blobs, fractions, seed):
    strange = (torch.arange(5.0 * size).reshape(size, 5) + 100, torch.arange(size) + 100)
    small, large = (redrawn(blobs, fraction, seed, strange) for fraction in sorted(fractions))
    taken = changed(blobs.data[1], small[1])
    assert torch.equal(large[0][taken], small[0][taken])
    assert torch.equal(large[1][taken], small[1][taken])


@few
@given(st.floats(0.01, 1), SEEDS)
def test_feature_noise_grows_along_one_direction(blobs, sigma, seed):
    clean = blobs.data[0]
    once, whole = (applied(blobs, "feature_noise", s, seed)[1][0] - clean for s in (sigma, 1.0))
    torch.testing.assert_close(once, sigma * whole, rtol=1e-9, atol=1e-12)


# --------------------------------------------------------------------------------------- permutation, noise, subsample


@pytest.mark.parametrize("form", FORMS)
@few
@given(fraction=FRACTIONS, seed=SEEDS)
def test_label_permutation_preserves_the_class_counts(form, blobs, fraction, seed):
    setup = labels_in(form, blobs)
    delta, (_, swapped) = applied(setup, "label_permutation", fraction, seed)
    assert sorted(swapped.tolist()) == sorted(setup.data[1].tolist())
    assert delta.achieved(setup) == changed(setup.data[1], swapped).mean() <= fraction


@few
@given(st.floats(0.01, 1), SEEDS)
def test_feature_noise_is_in_units_of_each_features_standard_deviation(blobs, sigma, seed):
    x = torch.cat([blobs.data[0] * torch.tensor([1e-3, 1.0, 1e3, 1e6, 0.0])] * 20)
    setup = replace(blobs, data=(x, blobs.data[1].repeat(20)))
    delta, (noisy, labels) = applied(setup, "feature_noise", sigma, seed)
    added = (noisy - x).std(0, correction=0)[:4] / x.std(0, correction=0)[:4]
    np.testing.assert_allclose(added, sigma, rtol=0.2)
    assert torch.equal(noisy[:, 4], x[:, 4])
    assert labels is setup.data[1]
    assert delta.achieved(setup) == pytest.approx(sigma, rel=0.1)


@few
@given(FRACTIONS, SEEDS)
def test_subsample_keeps_examples_whole_in_order_and_at_least_one(blobs, fraction, seed):
    setup = replace(blobs, data=(blobs.data[0], torch.arange(24)))
    delta, (x, index) = applied(setup, "subsample", fraction, seed)
    assert torch.equal(x, setup.data[0][index])
    assert index.tolist() == sorted(set(index.tolist()))
    assert len(index) >= 1
    assert delta.achieved(setup) == pytest.approx(1 - len(index) / 24)


def test_subsample_of_everything_keeps_one(blobs):
    assert len(applied(blobs, "subsample", 1.0)[1][1]) == 1


# -------------------------------------------------------------------------------------------------------------- redraw


def redrawn(setup, fraction, seed, pool):
    delta = Perturbation("redraw", fraction, 1.0, seed, (("pool", "p"),), payload=pool)
    return delta.applied(realize(setup, 0)).data


@pytest.mark.parametrize("size", [10, 24, 60])
@few
@given(fraction=FRACTIONS, seed=SEEDS)
def test_redraw_replaces_whole_examples_by_whole_examples_of_the_pool(size, blobs, fraction, seed):
    pool = (torch.arange(5.0 * size).reshape(size, 5) + 100, torch.arange(size) + 100)
    x, y = redrawn(blobs, fraction, seed, pool)
    taken = changed(blobs.data[1], y)
    source = y[taken] - 100
    assert torch.equal(x[taken], pool[0][source].double())
    assert torch.equal(x[~taken], blobs.data[0][~taken])
    assert x.dtype == torch.float64
    if size >= 24:
        assert len(set(source.tolist())) == len(source), "an example was taken twice"


@few
@given(SEEDS)
def test_a_fraction_of_one_redraws_the_whole_dataset(blobs, seed):
    pool = (torch.zeros(30, 5), torch.arange(30) + 100)
    delta = Perturbation("redraw", 1.0, 1.0, seed, (("pool", "p"),), payload=pool)
    assert bool((delta.applied(realize(blobs, 0)).data[1] >= 100).all())
    assert delta.achieved(blobs) == 1.0


@given(st.data())
@few
def test_the_strategy_of_redraw_carries_its_pool(blobs, data):
    delta = data.draw(pt.redraw(max_fraction=0.5, pool=blobs.data))
    assume(delta.magnitude > 0.1)
    assert bool(torch.isin(delta.applied(realize(blobs, 0)).data[0], blobs.data[0]).all())
