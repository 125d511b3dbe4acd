"""What the objective families make of L."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss, one_hot

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.objectives import Objective
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.setups.realization import realize

few = settings(max_examples=20, deadline=None)


def drawn(strategy):
    """Return some perturbation of a strategy."""
    return find(strategy, lambda delta: True, settings=settings(database=None))


MIX, SMOOTH = drawn(pt.objective_mix(ac.brier)), drawn(pt.label_smoothing(max_epsilon=1))


def loss_under(delta, setup, outputs):
    """Return L of some outputs under a perturbation."""
    run = delta.applied(realize(setup, 0))
    return run.objective.loss()(outputs, run.targets, run.parameters)


OUTPUTS = st.integers(0, 10**6).map(
    lambda seed: torch.randn(24, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
)


# ------------------------------------------------------------------------------------------------------- objective_mix


@few
@given(OUTPUTS, st.floats(0, 1))
def test_a_mixture_is_linear_in_its_magnitude(blobs, outputs, k):
    y = blobs.data[1]
    expected = (1 - k) * cross_entropy(outputs, y) + k * ac.brier(outputs, y).mean()
    torch.testing.assert_close(loss_under(MIX.at(k), blobs, outputs), expected)


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_a_mixture_at_one_trains_as_the_other_objective_does(blobs, backend):
    mixed = ac.run(blobs, [MIX.at(1.0)], backend=backend)
    other = ac.run(replace(blobs, objective=ac.brier), backend=backend)
    np.testing.assert_allclose(mixed.base, other.base, rtol=1e-14)
    np.testing.assert_allclose(mixed.mesa, other.mesa, rtol=1e-14)


class Point(torch.nn.Module):
    """A parameter vector, which it returns."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

    def forward(self):
        return self.theta


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_a_model_that_returns_its_parameters_has_any_other_objective_of_theta(backend):
    """θ descends L = |θ|² by θ(t) = (1 − 2η)ᵗ·θ(0), and L′ = θ₁ is evaluated there."""
    setup = ac.TrainingSetup(
        Point, None, lambda theta, _: theta.square().sum(), partial(torch.optim.SGD, lr=0.1), steps=5
    )
    bowl = ac.landscape(lambda p: p.square().sum(), [1.0, 2.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=5)
    mixed = drawn(pt.objective_mix(lambda theta, _: theta[1])).at(1.0)
    trajectory = ac.run(setup, [IDENTITY, IDENTITY], base=[IDENTITY, mixed], backend=backend)
    np.testing.assert_allclose(trajectory.base[0], ac.run(bowl).base[0], rtol=1e-12)
    np.testing.assert_allclose(trajectory.base[1], 2 * 0.8 ** np.arange(6), rtol=1e-12)


def test_an_other_that_takes_a_landscapes_value_for_theta_is_told_the_way():
    bowl = ac.landscape(lambda p: p.square().sum(), [1.0, 2.0], optimizer=torch.optim.SGD, steps=5)
    said = r"outputs of shape \(\), float64 and targets None, raised IndexError.* outputs of a landscape are its value"
    with pytest.raises(ValueError, match=said):
        ac.check_alignment_generalizes(bowl, to=pt.objective_mix(lambda theta, _: theta[1]), rtol=0.1, examples=3)


@pytest.mark.parametrize(
    ("own", "other", "mixed"), [(0.0, 0.0, 0.0), (1.0, 3.0, 1.5), (None, 0.0, None), (0.0, None, None)]
)
def test_a_mixture_knows_its_infimum_where_both_are_known(blobs, own, other, mixed):
    strategy = pt.objective_mix(ac.brier, infimum=other)
    assert drawn(strategy).at(0.25).applied(realize(replace(blobs, objective_infimum=own), 0)).infimum == mixed


def test_an_other_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match=r"`other` must be a function of \(outputs, targets\); got 'brier'"):
        pt.objective_mix("brier")


def as_dict(outputs, targets):
    return outputs["logits"]


def per_class(outputs, targets):
    return outputs.square().sum(0)


def counted(outputs, targets):
    return (outputs.argmax(1) == targets).long()


def read_back(outputs, targets):
    return cross_entropy(outputs, targets).item()


NO_LOSSES = {
    as_dict: (ValueError, r"called with outputs of shape \(24, 3\), float64 and targets of .*, raised IndexError"),
    per_class: (ValueError, r"must return 24 per-example losses .* or a scalar; got shape \(3,\)"),
    counted: (TypeError, "must return floating-point losses; got torch.int64"),
    read_back: (TypeError, "must return a tensor of per-example losses, or their mean; got float"),
    partial(cross_entropy, reduction="sum"): (ValueError, "sums over the examples"),
}


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("scored_alone", [False, True])
@pytest.mark.parametrize(("other", "refused"), NO_LOSSES.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_an_other_that_gives_no_losses_is_refused_before_anything_is_trained(blobs, other, refused, scored_alone):
    """Its mean would have been taken for L′, or an error of torch's have come from within."""
    error, said = refused
    check = ac.check_alignment_generalizes if scored_alone else ac.check_capability_generalizes
    with pytest.raises(error, match=rf"`other\(outputs, targets\)` of objective_mix,? {said}"):
        check(blobs, to=pt.objective_mix(other), rtol=0.1, examples=3)


def test_an_other_may_be_what_only_scores(blobs):
    """The share of wrong answers has no gradient, and can be scored by: nothing is trained on it."""

    def wrong(outputs, targets):
        return (outputs.argmax(1) != targets).double()

    mixed = drawn(pt.objective_mix(wrong)).at(1.0)
    scored = ac.run(blobs, [IDENTITY], base=[mixed]).base[0]
    assert scored[0] * 24 == round(scored[0] * 24)


def penalized(outputs, targets):
    """Cross-entropy with a gradient penalty."""
    (gradient,) = torch.autograd.grad(outputs.square().sum(), outputs, create_graph=True)
    return cross_entropy(outputs, targets) + gradient.square().mean()


def test_objectives_may_take_gradients_of_their_own_perturbed_or_mixed_in(blobs):
    own, mixed = drawn(pt.l2_penalty(0.01)).at(0.01), drawn(pt.objective_mix(penalized)).at(0.5)
    for setup, delta in [(replace(blobs, objective=penalized), own), (blobs, mixed)]:
        assert np.isfinite(ac.run(setup, [delta]).base).all()


def test_an_other_that_is_a_class_of_modules_is_refused():
    with pytest.raises(TypeError, match=r"got the class MSELoss itself\. Build one: other=MSELoss\(\)"):
        pt.objective_mix(torch.nn.MSELoss)


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_label_smoothing_of_outputs_that_are_no_tensor_says_so(blobs, backend):
    class Wrapped(torch.nn.Linear):
        def forward(self, x):
            return {"logits": super().forward(x)}

    wrapped = replace(
        blobs, model=lambda: Wrapped(blobs.data[0].shape[1], 3), objective=lambda o, t: cross_entropy(o["logits"], t)
    )
    with pytest.raises(ValueError, match=r"the perturbed objective, of outputs of dict.*second axis"):
        ac.run(wrapped, [SMOOTH.at(0.1)], backend=backend)


def test_mixtures_of_different_objectives_are_different_perturbations():
    one, other = (drawn(pt.objective_mix(objective)).at(0.5) for objective in (ac.brier, ac.one_minus_p))
    assert one != other
    assert str(one) == "objective_mix(k=0.5, other=alignment_checks.objectives:brier)"


# ----------------------------------------------------------------------------------------------------- label_smoothing


@few
@given(OUTPUTS, st.floats(0, 1))
def test_label_smoothing_is_that_of_cross_entropy(blobs, outputs, epsilon):
    expected = cross_entropy(outputs, blobs.data[1], label_smoothing=epsilon)
    smoothed = loss_under(SMOOTH.at(epsilon), blobs, outputs)
    torch.testing.assert_close(smoothed, expected, rtol=1e-12, atol=0)


@few
@given(OUTPUTS, st.floats(0, 1))
def test_label_smoothing_of_class_probabilities_is_that_of_cross_entropy(blobs, outputs, epsilon):
    rows = one_hot(blobs.data[1], 3).double() * 0.7 + 0.1
    expected = cross_entropy(outputs, rows, label_smoothing=epsilon)
    setup = replace(blobs, data=(blobs.data[0], rows))
    smoothed = loss_under(SMOOTH.at(epsilon), setup, outputs)
    torch.testing.assert_close(smoothed, expected, rtol=1e-12, atol=0)


@few
@given(OUTPUTS, st.floats(0, 1))
def test_label_smoothing_leaves_out_what_cross_entropy_ignores(blobs, outputs, epsilon):
    padded = torch.where(torch.arange(24) % 4 == 0, -100, blobs.data[1])
    expected = cross_entropy(outputs, padded, label_smoothing=epsilon)
    smoothed = loss_under(SMOOTH.at(epsilon), replace(blobs, data=(blobs.data[0], padded)), outputs)
    torch.testing.assert_close(smoothed, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_a_run_under_label_smoothing_is_the_run_of_smoothed_cross_entropy(blobs, backend):
    smooth = SMOOTH.at(0.3)
    expected = ac.run(replace(blobs, objective=partial(cross_entropy, label_smoothing=0.3)), backend="loop")
    came = ac.run(blobs, [smooth], backend=backend)
    np.testing.assert_allclose(came.base, expected.base, rtol=1e-12)
    np.testing.assert_allclose(came.mesa, expected.mesa, rtol=1e-10)


@pytest.mark.parametrize(
    "targets",
    [torch.randn(24, 1), torch.randn(24, 3), torch.ones(24), torch.rand(24, 1).round(), -torch.ones(24, 2)],
    ids=["regression", "vectors", "floats", "column", "negative"],
)
def test_label_smoothing_of_what_are_no_labels_is_refused(blobs, targets):
    setup = replace(blobs, data=(blobs.data[0], targets), objective=mse_loss)
    with pytest.raises(
        ValueError, match=r"needs class labels: integer targets, or rows of class probabilities; got tor"
    ):
        SMOOTH.at(0.3).applied(realize(setup, 0))


def test_label_smoothing_of_a_landscape_is_refused():
    bowl = ac.landscape(torch.sum, [1.0], optimizer=torch.optim.SGD, steps=1)
    with pytest.raises(ValueError, match=r"needs class labels.*; got none"):
        SMOOTH.at(0.3).applied(realize(bowl, 0))


# ---------------------------------------------------------------------------------------------------------- l2_penalty


@few
@given(st.floats(0.001, 2), st.integers(0, 99))
def test_an_l2_penalty_under_sgd_is_weight_decay(blobs, weight, seed):
    """The same θ(t); L higher by the penalty; and the G of one is the decayed G of the other."""
    decayed = replace(
        blobs,
        optimizer=partial(torch.optim.SGD, lr=0.1, weight_decay=weight),
        mesa_objective=ac.decayed_gradient_l1(weight),
    )
    expected = ac.run(decayed, seeds=[seed], backend="loop")
    came = ac.run(blobs, [Perturbation("l2_penalty", weight, 2.0, 0)], seeds=[seed], backend="loop")
    ends, norm = (came.end[0].parameters, expected.end[0].parameters), 0.0
    for name, value in ends[1].items():
        torch.testing.assert_close(ends[0][name], value, rtol=1e-10, atol=1e-12)
        norm += float(value.square().sum())
    assert came.base[0, -1] == pytest.approx(expected.base[0, -1] + weight / 2 * norm, rel=1e-10)
    np.testing.assert_allclose(came.mesa, expected.mesa, rtol=1e-9)


# --------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("family", [pt.l2_penalty, pt.label_smoothing])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "1"])
def test_a_size_outside_of_its_range_is_refused(family, value):
    with pytest.raises(ValueError, match="must be a number above 0"):
        family(value)


def test_label_smoothing_goes_to_one_at_most():
    with pytest.raises(ValueError, match=r"`max_epsilon` must be a number above 0, at most 1; got 1\.5"):
        pt.label_smoothing(1.5)


@pytest.mark.parametrize("strategy", [pt.objective_mix(ac.brier), pt.label_smoothing(1), pt.l2_penalty(1)], ids=repr)
def test_an_objective_family_changes_the_objective_alone_and_does_exactly_what_is_asked(strategy, blobs):
    plain, delta = realize(blobs, 0), drawn(strategy).at(0.375)
    run = delta.applied(plain)
    assert run.objective != plain.objective == Objective(cross_entropy)
    assert run.parameters is plain.parameters
    assert run.data is plain.data
    assert delta.achieved(blobs) == 0.375
    assert delta.kinds == {"objective"}
