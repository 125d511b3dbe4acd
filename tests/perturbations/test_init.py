"""What the init families do to θ(0)."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from torch import nn

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.realization import realize

SEEDS = st.integers(0, 2**16 - 1)
few = settings(max_examples=25, deadline=None)


def applied(setup, family, magnitude, seed=0, run=0, **more):
    """Return θ(0) under one perturbation of a run."""
    delta = Perturbation(family, magnitude, max(1.0, abs(magnitude)), seed, **more)
    return delta.applied(realize(setup, run)).parameters


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def drawn(strategy, magnitude):
    """Return the perturbation of a strategy at a magnitude."""
    return find(strategy, lambda delta: True, settings=settings(database=None)).at(magnitude)


# ----------------------------------------------------------------------------------------------------------- init_seed


@few
@given(SEEDS, st.integers(0, 100))
def test_init_seed_is_another_init_of_the_same_factory(blobs, seed, run):
    plain = realize(blobs, run)
    other = applied(blobs, "init_seed", 1.0, seed, run)
    assert {n: v.shape for n, v in other.items()} == {n: v.shape for n, v in plain.parameters.items()}
    assert not any(torch.equal(other[name], value) for name, value in plain.parameters.items())
    assert equal(other, applied(blobs, "init_seed", 1.0, seed, run))
    assert not equal(other, applied(blobs, "init_seed", 1.0, seed + 1, run))


def test_init_seed_draws_the_buffers_and_frozen_parameters_anew_too(blobs):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Linear(5, 4).requires_grad_(False)
            self.register_buffer("offset", torch.rand(4))
            self.head = nn.Linear(4, 3)

    setup = replace(blobs, model=Frozen)
    plain, other = realize(setup, 0), Perturbation("init_seed", 1.0, 1.0, 3).applied(realize(setup, 0))
    assert plain.constants.keys() == {"features.weight", "features.bias", "offset"}
    assert not any(torch.equal(other.constants[name], value) for name, value in plain.constants.items())


@pytest.mark.parametrize("magnitude", [0.5, -1.0])
def test_init_seed_is_all_or_nothing(blobs, magnitude):
    with pytest.raises(ValueError, match=rf"magnitude is 0 .* or 1 \(another\); got {magnitude}"):
        applied(blobs, "init_seed", magnitude)


# --------------------------------------------------------------------------------------------------------- init_jitter


@few
@given(st.floats(0.01, 1), SEEDS)
def test_jitter_has_the_asked_size_relative_to_each_tensors_norm(blobs, sigma, seed):
    wide = replace(blobs, model=lambda: nn.Sequential(nn.Linear(5, 300), nn.Linear(300, 3, bias=False)))
    plain, moved = realize(wide, 0).parameters, applied(wide, "init_jitter", sigma, seed)
    for name, value in plain.items():
        assert float((moved[name] - value).norm() / value.norm()) == pytest.approx(sigma, rel=0.25)
    assert Perturbation("init_jitter", sigma, 1.0, seed).achieved(wide) == pytest.approx(sigma, rel=0.25)


@few
@given(st.floats(0.01, 1), SEEDS)
def test_jitter_grows_along_one_direction(blobs, sigma, seed):
    plain = realize(blobs, 0).parameters
    some, whole = (applied(blobs, "init_jitter", s, seed) for s in (sigma, 1.0))
    for name, value in plain.items():
        torch.testing.assert_close(some[name] - value, sigma * (whole[name] - value), rtol=1e-9, atol=1e-12)


def test_jitter_leaves_a_tensor_of_zeros_where_it_is():
    setup = ac.landscape(torch.sum, [0.0, 0.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=1)
    assert equal(applied(setup, "init_jitter", 1.0), realize(setup, 0).parameters)
    assert Perturbation("init_jitter", 1.0, 1.0, 0).achieved(setup) == 0


# ----------------------------------------------------------------------------------------------------------- init_gain


@few
@given(st.floats(-4, 4))
def test_gain_is_a_power_of_two(blobs, log2):
    plain, scaled = realize(blobs, 0).parameters, applied(blobs, "init_gain", log2)
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], 2.0**log2 * value, rtol=1e-12, atol=0)


def test_gain_is_drawn_with_both_signs():
    for sign in (-1, 1):
        found = find(pt.init_gain(max_log2=2), lambda d, sign=sign: sign * d.magnitude > 1)
        assert abs(found.magnitude) <= found.limit == 2


# -------------------------------------------------------------------------------------------------- init_interpolation


def test_interpolation_at_one_is_exactly_there(blobs):
    there = {name: torch.rand_like(value) for name, value in realize(blobs, 0).parameters.items()}
    moved = drawn(pt.init_interpolation(there), 1.0).applied(realize(blobs, 0)).parameters
    assert equal(moved, there)


@few
@given(st.integers(0, 1000))
def test_interpolation_to_a_seed_at_one_is_exactly_the_init_under_it(blobs, other):
    assert equal(
        applied(blobs, "init_interpolation", 1.0, options=(("other", other),)), realize(blobs, other).parameters
    )


@few
@given(st.floats(0, 1))
def test_interpolation_moves_along_the_straight_line(blobs, k):
    here, there = realize(blobs, 0).parameters, realize(blobs, 9).parameters
    moved = applied(blobs, "init_interpolation", k, options=(("other", 9),))
    for name, value in here.items():
        torch.testing.assert_close(moved[name], (1 - k) * value + k * there[name], rtol=1e-12, atol=1e-15)


def test_interpolation_goes_to_the_state_dict_as_it_was_given(blobs):
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    strategy = pt.init_interpolation(model.state_dict())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model[0].weight.zero_()
    assert equal(drawn(strategy, 1.0).applied(realize(blobs, 0)).parameters, before)


def test_interpolation_names_a_state_dict_by_its_content():
    def option(value):
        return drawn(pt.init_interpolation({"w": torch.full((2,), value)}), 1.0).options

    assert option(1.0) == option(1.0) != option(2.0)


@pytest.mark.parametrize(
    ("other", "came"),
    [({"0.weight": torch.ones(4, 5)}, "nothing"), ({"0.weight": torch.ones(2, 2)}, r"\(2, 2\)")],
)
def test_a_state_dict_of_another_model_is_refused(blobs, other, came):
    with pytest.raises(ValueError, match=rf"`other` must hold '0\.\w+' of shape \(.*\); got {came}"):
        drawn(pt.init_interpolation(other), 0.5).applied(realize(blobs, 0))


@pytest.mark.parametrize("other", [1.5, True, [1], {"w": 3}])
def test_an_other_that_is_neither_state_dict_nor_seed_is_refused(other):
    with pytest.raises(TypeError, match=f"`other` must be a state dict or a seed; got {type(other).__name__}"):
        pt.init_interpolation(other)


# ---------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize(("family", "most"), [(pt.init_jitter, ""), (pt.init_gain, ", at most 1023")])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "1"])
def test_a_size_that_is_no_positive_number_is_refused(family, most, value):
    with pytest.raises(ValueError) as caught:
        family(value)
    assert f"must be a number above 0{most}; got {value!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "options"),
    [("init_seed", ()), ("init_jitter", ()), ("init_gain", ()), ("init_interpolation", (("other", 4),))],
)
def test_an_init_family_leaves_everything_but_the_init_alone(family, options, blobs):
    plain = realize(blobs, 0)
    run = Perturbation(family, 1.0, 1.0, 1, options).applied(plain)
    assert not equal(run.parameters, plain.parameters)
    assert run.data is plain.data
    assert run.objective == plain.objective
    assert (run.optimizer, run.scheduler, run.infimum) == (plain.optimizer, plain.scheduler, plain.infimum)


@pytest.mark.parametrize("family", [pt.init_gain, pt.learning_rate, pt.batch_size])
def test_a_power_of_two_that_is_no_float_is_refused_where_it_is_asked_for(family):
    with pytest.raises(ValueError, match=r"`max_log2` must be a number above 0, at most 1023; got 1024"):
        family(max_log2=1024)
    assert family(max_log2=1023) is not None


def test_the_largest_gain_is_still_a_number(blobs):
    bowl = replace(blobs, dtype=torch.float64)
    for magnitude in (-1023.0, 1023.0):
        scaled = Perturbation("init_gain", magnitude, 1023.0, 0).applied(realize(bowl, 0)).parameters
        assert all(value.isnan().sum() == 0 for value in scaled.values())
