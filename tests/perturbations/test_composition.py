"""Perturbations made of others, and of a user's own functions."""

from dataclasses import replace
from functools import partial

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.composition import acting, assembled
from alignment_checks.setups.realization import realize

few = settings(max_examples=25, deadline=None)
GAIN, NOISE, HALF = (
    Perturbation("init_gain", 1.0, 2.0, 0),
    Perturbation("feature_noise", 0.5, 1.0, 3),
    Perturbation("subsample", 0.5, 1.0, 4),
)


def find(strategy, condition=lambda delta: True):
    return hypothesis.find(strategy, condition, settings=settings(database=None, deadline=None))


def equal(a, b):
    same = [torch.equal(x, y) for x, y in zip(a.data, b.data, strict=True)]
    return all(same) and all(torch.equal(a.parameters[name], value) for name, value in b.parameters.items())


# ------------------------------------------------------------------------------------------------------------- compose


@few
@given(pt.subsample(max_fraction=0.5), pt.feature_noise(max_sigma=1))
def test_a_composition_applies_its_parts_in_order(blobs, first, then):
    plain = realize(blobs, 0)
    assert equal(assembled([first, then]).applied(plain), then.applied(first.applied(plain)))


@given(st.lists(st.sampled_from([GAIN, NOISE, HALF, GAIN.at(0.0), NOISE.at(-0.0)]), min_size=1, max_size=4))
def test_the_parts_of_a_composition_that_act_are_those_that_are_not_at_0(parts):
    delta = assembled(parts)
    moved = [part for part in parts if part.magnitude != 0]
    assert acting(delta) == (assembled(moved) if moved else delta)


@few
@given(pt.compose(pt.init_gain(max_log2=1), pt.label_noise(max_rate=0.5), pt.l2_penalty(max_weight=1)))
def test_a_composition_has_a_part_of_each_and_no_magnitude_of_its_own(blobs, delta):
    assert [part.family for part in delta.components] == ["init_gain", "label_noise", "l2_penalty"]
    assert (delta.family, delta.magnitude, delta.limit) == ("compose", None, None)
    assert delta.size == pytest.approx(sum(part.size for part in delta.parts))
    assert delta.kinds == {"init", "dataset", "objective"}
    assert len(delta.achieved(blobs)) == 3


def test_achieved_is_one_number_for_each_part_measured_where_it_acts(blobs):
    """Noise on the half that is left: each part is measured on what the parts before it left."""
    left, noise = assembled([HALF, Perturbation("label_noise", 1.0, 1.0, 0)]).achieved(blobs)
    assert left == HALF.achieved(blobs) > 0
    assert noise == 1.0


def test_parts_at_zero_are_the_identity(blobs):
    nothing = assembled([GAIN.at(0.0), NOISE.at(0.0)])
    plain = realize(blobs, 0)
    assert nothing.applied(plain) is plain
    assert nothing.is_identity
    assert nothing.achieved(blobs) == (0.0, 0.0)
    assert equal(assembled([GAIN.at(0.0), NOISE]).applied(plain), NOISE.applied(plain))


def test_compositions_within_compositions_are_flat():
    inner = pt.compose(pt.init_gain(max_log2=1), pt.label_noise(max_rate=0.1))
    delta = find(pt.compose(inner, pt.l2_penalty(max_weight=1)))
    assert [part.family for part in delta.parts] == ["init_gain", "label_noise", "l2_penalty"]
    assert not any(part.components for part in delta.parts)


def test_a_composition_of_one_is_that_one_and_of_none_the_identity():
    assert find(pt.compose(pt.init_gain(max_log2=1))).family == "init_gain"
    assert assembled([GAIN]) is GAIN
    assert assembled([]) is IDENTITY


def test_a_composition_reads_well():
    delta = assembled([GAIN, NOISE])
    assert str(delta) == "compose(init_gain(log2=1), feature_noise(sigma=0.5))"
    assert delta.described() == "compose(init_gain(log2=1), feature_noise(sigma=0.5, seed=3))"


@pytest.mark.parametrize(("strategies", "came"), [((), "got nothing"), ((GAIN,), "got Perturbation"), ((3,), "got 3")])
def test_what_are_no_strategies_is_refused(strategies, came):
    with pytest.raises(TypeError) as caught:
        pt.compose(*strategies)
    assert "expected strategies of perturbations, such as compose(pt.label_noise" in str(caught.value)
    assert came in str(caught.value)


def test_what_does_not_yield_perturbations_is_refused_when_drawn():
    with pytest.raises(TypeError, match=r"compose: expected strategies of perturbations; just\(0\) drew 0"):
        find(pt.compose(pt.init_gain(max_log2=1), st.just(0)))


# -------------------------------------------------------------------------------------------------------------- custom


class Shift:
    """Shifts θ(0) by a random direction, and keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, run, magnitude, generator):
        direction = torch.randn((), generator=generator, dtype=torch.float64)
        self.calls.append((magnitude, float(direction)))
        moved = {name: value + magnitude * direction for name, value in run.parameters.items()}
        return replace(run, parameters=moved)


@few
@given(st.data())
def test_custom_is_never_called_at_zero(blobs, data):
    shift = Shift()
    delta = data.draw(pt.custom("shift", shift, max_magnitude=2))
    plain = realize(blobs, 0)
    assert delta.at(0.0).applied(plain) is plain
    assert delta.at(0.0).achieved(blobs) == 0
    ac.run(blobs, [delta.at(0.0)], backend="loop")
    assert shift.calls == []


@few
@given(st.data(), st.floats(0.1, 1), st.floats(0.1, 1))
def test_custom_gets_the_same_randomness_at_every_magnitude(blobs, data, one, other):
    shift = Shift()
    delta = data.draw(pt.custom("shift", shift, max_magnitude=1))
    for magnitude in (one, other):
        delta.at(magnitude).applied(realize(blobs, 0))
    assert shift.calls == [(one, shift.calls[0][1]), (other, shift.calls[0][1])]


def test_custom_randomness_differs_by_seed(blobs):
    shift = Shift()
    delta = find(pt.custom("shift", shift, max_magnitude=1)).at(1.0)
    for seed in (1, 2):
        replace(delta, seed=seed).applied(realize(blobs, 0))
    assert shift.calls[0] != shift.calls[1]


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_custom_perturbs_a_run(blobs, backend):
    delta = find(pt.custom("shift", Shift(), max_magnitude=1)).at(0.5)
    plain, shifted, again = ac.run(blobs, [IDENTITY, delta, delta], backend=backend).base
    assert not np.array_equal(plain, shifted)
    assert np.array_equal(shifted, again)


def test_custom_goes_by_its_name_and_names_its_function():
    delta = find(pt.custom("shift", Shift(), max_magnitude=2)).at(0.5)
    assert str(delta).startswith("shift(magnitude=0.5")
    assert dict(delta.options)["apply"].endswith(":Shift")
    assert delta.family == "custom"


def test_custom_that_returns_no_realization_is_refused(blobs):
    delta = find(pt.custom("forgetful", lambda run, magnitude, generator: None, max_magnitude=2)).at(1.0)
    with pytest.raises(TypeError, match=r"custom 'forgetful': `apply` must return a Realization .*; got NoneType"):
        delta.applied(realize(blobs, 0))


def test_custom_that_returns_a_run_of_another_setup_is_refused(blobs):
    """A run of more steps is no run of the setup: it would be recorded as one of fewer."""
    longer = pt.custom("longer", lambda run, m, g: replace(run, setup=replace(run.setup, steps=9)), max_magnitude=1)
    with pytest.raises(ValueError, match="custom 'longer': `apply` must leave `setup` as it is"):
        ac.run(blobs, [find(longer).at(1.0)])


@pytest.mark.parametrize("error", [RuntimeError("not so far"), ValueError("no"), UserWarning("beware")], ids=repr)
def test_what_custom_raises_stays_what_it_is_and_says_who_raised_it(blobs, error):
    def odd(run, magnitude, generator):
        raise error

    delta = find(pt.custom("odd", odd, max_magnitude=2)).at(1.0)
    with pytest.raises(type(error)) as caught:
        delta.applied(realize(blobs, 0))
    assert caught.value is error
    assert error.__notes__[-1].startswith("raised by custom 'odd': `apply(realization, magnitude, generator)`. It")


def test_a_custom_that_takes_other_arguments_is_told_which_it_gets(blobs):
    delta = find(pt.custom("short", lambda run, magnitude: run, max_magnitude=2)).at(1.0)
    with pytest.raises(
        TypeError, match=r"takes 2 positional arguments(?s:.*)'short': `apply\(realization, magnitude, "
    ):
        delta.applied(realize(blobs, 0))


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("a b", Shift(), 1), ValueError, "`name` must be an identifier, such as 'drop_borders'; got 'a b'"),
        ((Shift(), "shift", 1), ValueError, "`name` must be an identifier"),
        (("shift", 3, 1), TypeError, "`apply` must be a function (realization, magnitude, generator); got 3"),
        (("shift", Shift(), 0), ValueError, "`max_magnitude` must be a number above 0; got 0"),
    ],
)
def test_bad_arguments_of_custom_are_refused(arguments, error, said):
    with pytest.raises(error) as caught:
        pt.custom(*arguments)
    assert said in str(caught.value)


class Scaled(torch.nn.Module):
    def __init__(self, inner, by):
        super().__init__()
        self.inner, self.by = inner, by

    def forward(self, x):
        return self.by * self.inner(x)


def scaled(run, magnitude, generator):
    parameters = {f"inner.{name}": value for name, value in run.parameters.items()}
    return replace(run, module=Scaled(run.module, 1 + magnitude), parameters=parameters)


def relearned(run, magnitude, generator):
    return replace(run, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1 * (1 + magnitude)))


@pytest.mark.parametrize("apply", [scaled, relearned])
def test_custom_perturbations_that_change_code_alone_are_runs_of_their_own(blobs, apply):
    strategy = pt.custom("changed", apply, max_magnitude=2)
    deltas = [replace(find(strategy, lambda delta: delta.magnitude > 0.5), magnitude=m) for m in (0.5, 1.0, 2.0)]
    together = ac.run(blobs, [IDENTITY, *deltas], backend="lanes")
    for row, delta in zip(together.base, [IDENTITY, *deltas], strict=True):
        np.testing.assert_allclose(row, ac.run(blobs, [delta], backend="loop").base[0], rtol=1e-9)
    assert len({row.tobytes() for row in together.base}) == 4
    assert ac.check_capability_robust(blobs, under=strategy, rtol=1e-3, examples=20).status == "fail"


class Silent:
    """A factory that does not tell its rate."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, parameters):
        return torch.optim.SGD(parameters, lr=self.rate)

    def __repr__(self):
        return "Silent()"


def weighted(outputs, targets, weights):
    return weights[: len(targets)] * nn.functional.cross_entropy(outputs, targets, reduction="none")


def reweighed(run, magnitude, generator):
    """Weigh one of more examples than a tensor shows when it is printed."""
    weights = torch.ones(2000, dtype=torch.float64)
    weights[12] += magnitude
    return replace(run, objective=replace(run.objective, function=partial(weighted, weights=weights)))


CHANGES = {
    "a factory's repr": lambda run, m, g: replace(run, optimizer=Silent(0.1 * (1 + m))),
    "a tensor's digits": lambda run, m, g: replace(
        run, optimizer=partial(torch.optim.SGD, lr=torch.tensor(1e-4 + 1e-5 * m))
    ),
    "a long tensor": reweighed,
    "the order of minibatches": lambda run, m, g: replace(run, seed=round(1000 * m)),
}


@pytest.mark.parametrize("hides", CHANGES)
@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_what_reads_alike_is_not_taken_for_the_same_run(blobs, hides, backend):
    setup = replace(blobs, batch_size=5)
    delta = find(pt.custom("changed", CHANGES[hides], max_magnitude=1.0), lambda d: d.magnitude > 0)
    together = ac.run(setup, [delta.at(0.25), delta.at(1.0)], backend=backend)
    alone = [ac.run(setup, [one], backend=backend).base[0] for one in (delta.at(0.25), delta.at(1.0))]
    np.testing.assert_allclose(together.base, alone, rtol=1e-12)
    assert together.base[0, -1] != together.base[1, -1]
