"""`Perturbation`, the value, and the laws that every family keeps."""

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from cases.families import DRAWN, EVERY, POOL, SINGLE
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.vendor import pretty

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.families import FAMILIES
from alignment_checks.setups.fingerprints import content, fingerprint
from alignment_checks.setups.realization import realize

every_family = pytest.mark.parametrize("strategy", EVERY.values(), ids=EVERY)
every_single_family = pytest.mark.parametrize("strategy", SINGLE.values(), ids=SINGLE)
few = settings(max_examples=15, deadline=None)


def contents(run):
    """Return what a realization holds, tensor by tensor, as bytes."""
    parts = {**run.parameters, **{f"frozen {n}": v for n, v in run.constants.items()}}
    return {**{name: content(v) for name, v in parts.items()}, "data": [content(part) for part in run.data]}


# ------------------------------------------------------------------------------------------------ laws of every family


@every_family
@few
@given(st.data())
def test_magnitude_zero_is_the_identity_bit_for_bit(strategy, blobs, data):
    """Not equal tensors, but the same run, and so the same tensors."""
    delta = data.draw(strategy)
    nothing = (
        replace(delta, components=tuple(part.at(0.0) for part in delta.parts)) if delta.components else delta.at(0)
    )
    plain = realize(blobs, 0)
    assert nothing.applied(plain) is plain
    assert nothing.is_identity
    assert nothing.size == 0
    assert not np.any(nothing.achieved(blobs))


@every_family
@few
@given(st.data())
def test_a_perturbation_does_the_same_each_time_and_writes_into_nothing(strategy, blobs, data):
    delta, plain = data.draw(strategy), realize(blobs, 0)
    before = contents(plain)
    first, second = delta.applied(plain), delta.applied(plain)
    assert contents(first) == contents(second)
    assert fingerprint(first, plain) == fingerprint(second, plain)
    assert contents(plain) == before


@every_family
@few
@given(st.data())
def test_a_repr_evals_back(strategy, data):
    delta = data.draw(strategy)
    again = eval(repr(delta))
    assert again == delta
    assert hash(again) == hash(delta)
    assert pt.reattached(again, [delta]).parts[-1].payload is delta.parts[-1].payload


@every_family
@few
@given(st.data())
def test_what_hypothesis_says_of_a_failing_example_evals_back_too(strategy, data):
    delta = data.draw(strategy)
    assert pretty.pretty(delta) == repr(delta)
    assert eval(pretty.pretty([delta])) == [delta]


@every_single_family
@few
@given(st.data())
def test_draws_stay_within_the_domain_that_they_carry(strategy, data):
    delta = data.draw(strategy)
    assert abs(delta.magnitude) <= delta.limit
    assert delta.components == ()
    assert delta.parts == (delta,)
    assert delta.size == pytest.approx(abs(delta.magnitude) / delta.limit)
    assert str(delta.magnitude) != "-0.0"


@pytest.mark.parametrize(("call", "strategy"), DRAWN.items(), ids=EVERY)
def test_the_repr_of_a_strategy_is_the_call_that_made_it(call, strategy):
    assert repr(strategy) == call.replace("DIGEST", "a00ac53fffbd")


@every_family
@few
@given(st.data())
def test_the_text_for_people_names_the_family_and_never_raises(strategy, data):
    delta = data.draw(strategy)
    name = repr(strategy).split("(")[0]
    assert str(delta).startswith(f"{name}(")
    assert str(delta).endswith(")")
    assert ("seed=" in delta.described()) == any(part.family in SEEDED for part in delta.parts)


SEEDED = {
    "label_noise",
    "label_permutation",
    "feature_noise",
    "subsample",
    "redraw",
    "init_seed",
    "init_jitter",
    "gradient_noise",
    "custom",
}


@every_family
def test_a_perturbed_run_trains(strategy, blobs):
    delta = find(strategy, lambda d: d.size > 0.2, settings=settings(database=None, deadline=None))
    setup = replace(blobs, batch_size=8) if delta.family == "batch_size" else blobs
    plain, perturbed = ac.run(setup, [IDENTITY, delta], backend="loop").base
    assert np.isfinite(perturbed).all()
    assert not np.array_equal(plain, perturbed)


# --------------------------------------------------------------------------------- they are ordinary strategies


def test_hypothesis_finds_the_least_perturbation_of_a_property():
    found = find(pt.label_noise(max_rate=0.05), lambda delta: delta.magnitude >= 0.01, settings=settings(database=None))
    assert 0.01 <= found.magnitude <= 0.05
    assert found.seed == 0


@given(pt.label_noise(max_rate=0.5).filter(lambda delta: delta.magnitude > 0.1))
def test_strategies_can_be_filtered(delta):
    assert 0.1 < delta.magnitude <= 0.5


@given(st.lists(st.one_of(pt.init_gain(max_log2=1), pt.label_noise(max_rate=0.1)), min_size=40, max_size=40))
@settings(max_examples=5)
def test_strategies_can_be_alternatives(deltas):
    assert {delta.family for delta in deltas} <= {"init_gain", "label_noise"}


def test_both_alternatives_are_drawn():
    either = pt.init_gain(max_log2=1) | pt.label_noise(max_rate=0.1)
    for family in ("init_gain", "label_noise"):
        assert find(either, lambda d, family=family: d.family == family, settings=settings(database=None))


# --------------------------------------------------------------------------------------------------- the value itself


def test_a_perturbation_is_a_frozen_value():
    delta = Perturbation("label_noise", 0.03, 0.05, seed=7)
    assert repr(delta) == (
        "Perturbation(family='label_noise', magnitude=0.03, limit=0.05, seed=7, options=(), components=())"
    )
    assert delta.described() == "label_noise(rate=0.03, seed=7)"
    assert str(Perturbation("learning_rate", -0.0, 1.0, 0)) == "learning_rate(log2=0)"
    assert pickle.loads(pickle.dumps(delta)) == delta
    assert delta.at(0.01) == Perturbation("label_noise", 0.01, 0.05, seed=7)
    with pytest.raises(FrozenInstanceError):
        delta.magnitude = 0.1


def test_objects_that_are_not_plain_data_stay_out_of_equality_and_repr(blobs):
    one, other = (Perturbation("redraw", 0.5, 1.0, 3, (("pool", "abc"),), payload=p) for p in (POOL, None))
    assert one == other
    assert "tensor" not in repr(one)
    assert str(one) == "redraw(fraction=0.5, pool=abc)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.2, 0.1), "|magnitude| must be at most the family's limit 0.1; got 0.2"),
        ((-0.2, 0.1), "|magnitude| must be at most the family's limit 0.1; got -0.2"),
        ((float("nan"), 0.1), "magnitude and limit must be finite numbers; got nan and 0.1"),
        ((0.1, float("inf")), "magnitude and limit must be finite numbers; got 0.1 and inf"),
        (("0.1", 0.1), "magnitude and limit must be finite numbers; got '0.1' and 0.1"),
        ((None, None), "magnitude and limit must be finite numbers; got None and None"),
    ],
)
def test_a_magnitude_outside_of_its_domain_is_refused(arguments, said):
    with pytest.raises(ValueError) as caught:
        Perturbation("label_noise", *arguments, seed=0)
    assert said in str(caught.value)


def test_a_composition_has_no_magnitude_of_its_own():
    with pytest.raises(ValueError, match="no magnitude or limit of its own; pass None for both"):
        Perturbation("compose", 0.1, 1.0, 0, components=(IDENTITY, IDENTITY))


def test_a_family_that_nobody_knows_is_named_with_those_that_there_are(blobs):
    with pytest.raises(ValueError, match=r"no perturbation family is called 'label_noize'; there are label_noise, "):
        Perturbation("label_noize", 0.1, 1.0, 0).applied(realize(blobs, 0))


ZEROS = {
    "0.weight": torch.zeros(4, 5),
    "0.bias": torch.zeros(4),
    "2.weight": torch.zeros(3, 4),
    "2.bias": torch.zeros(3),
}
LOSABLE = {
    "redraw": SINGLE["redraw"],
    "objective_mix": SINGLE["objective_mix"],
    "custom": SINGLE["halved"],
    "init_interpolation": pt.init_interpolation(ZEROS),
}


@pytest.mark.parametrize("family", LOSABLE)
def test_a_value_that_lost_its_object_says_which_and_where_to_find_it(family, blobs):
    delta = find(LOSABLE[family], lambda d: d.magnitude > 0.1, settings=settings(database=None))
    lost = eval(repr(delta))
    (needed,) = (str(value) for name, value in delta.options if name in ("pool", "other", "apply"))
    with pytest.raises(ValueError, match=f"{family} needs its `.*` .{needed}., .*pass draws of that strategy to"):
        lost.applied(realize(blobs, 0))
    found = pt.reattached(lost, [IDENTITY, delta.at(0.0)])
    assert contents(found.applied(realize(blobs, 0))) == contents(delta.applied(realize(blobs, 0)))


def test_reattaching_takes_from_nobody_what_a_perturbation_still_has():
    delta = find(LOSABLE["redraw"], lambda d: True, settings=settings(database=None))
    assert pt.reattached(delta, []).payload is delta.payload


def test_the_identity_is_a_perturbation_too(blobs):
    plain = realize(blobs, 0)
    assert IDENTITY.applied(plain) is plain
    assert (str(IDENTITY), IDENTITY.is_identity, IDENTITY.achieved(blobs)) == ("identity", True, 0.0)


@pytest.mark.parametrize(
    ("family", "magnitude", "message"),
    [
        ("init_gain", 1500.0, r"init_gain: \|log2\| must be at most 1023; got 1500"),
        ("learning_rate", -1500.0, r"learning_rate: \|log2\| must be at most 1023; got -1500"),
        ("label_noise", 1.5, r"label_noise: \|rate\| must be at most 1; got 1.5"),
        ("subsample", 2.0, r"subsample: \|fraction\| must be at most 1; got 2"),
        ("label_noise", -0.5, r"label_noise: rate must be at least 0; got -0.5.* a magnitude that is not negative"),
        ("l2_penalty", -1.0, r"l2_penalty: weight must be at least 0; got -1"),
    ],
)
def test_a_magnitude_that_no_strategy_draws_is_refused_by_name(blobs, family, magnitude, message):
    """A perturbation made by hand, whose limit is as large: it would overflow, or mean nothing, or do nothing."""
    delta = Perturbation(family, magnitude, 2 * abs(magnitude), 0)
    with pytest.raises(ValueError, match=message):
        ac.run(blobs, [delta])


@every_single_family
@few
@given(st.data())
def test_a_family_takes_whatever_its_own_strategy_draws(strategy, data):
    delta = data.draw(strategy)
    assert FAMILIES[delta.family].accepts(delta.magnitude)


SIGNED = {"init_gain", "learning_rate", "momentum", "batch_size"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_takes_a_magnitude_below_0_only_where_its_strategy_draws_them(family, blobs):
    """Half of the labels flipped less than never is a dataset unharmed: what was asked for was not done."""
    strategy = SINGLE["halved" if family == "custom" else family]
    some = find(strategy, lambda d: True, settings=settings(database=None))
    delta = some.at(-some.limit)
    assert FAMILIES[family].accepts(delta.magnitude) == FAMILIES[family].signed == (family in SIGNED)
    if family in SIGNED:
        assert find(strategy, lambda d: d.magnitude < 0, settings=settings(database=None)).family == family
        delta.applied(realize(blobs, 0))
        return
    said = f"{FAMILIES[family].unit} must be at least 0" if delta.continuous else r"magnitude is 0 .* or 1 .*"
    for one in (delta, Perturbation("compose", None, None, 0, components=(IDENTITY, delta))):
        with pytest.raises(ValueError, match=f"{family}: {said}; got -"):
            one.applied(realize(blobs, 0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("magnitude", [float("nan"), float("inf"), -float("inf")])
def test_no_family_takes_a_magnitude_that_is_not_finite(family, magnitude):
    assert not FAMILIES[family].accepts(magnitude)
    for limit in (1.0, abs(magnitude)):
        with pytest.raises(ValueError, match="magnitude and limit must be finite numbers"):
            Perturbation(family, magnitude, limit, 0)
