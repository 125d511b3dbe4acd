"""Base objectives, mesa-objectives, and the objective of one run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn.functional import cross_entropy, one_hot

import alignment_checks as ac
from alignment_checks.objectives import MesaObjective, Objective

LOGITS = hnp.arrays(float, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.floats(-20, 20))
GRADIENTS = st.dictionaries(
    st.sampled_from("abc"), hnp.arrays(float, hnp.array_shapes(max_side=3), elements=st.floats(-9, 9)), min_size=1
)


def labelled(logits, data):
    """Return logits and labels as tensors, and softmax(logits) as NumPy computes it."""
    labels = data.draw(hnp.arrays(np.int64, len(logits), elements=st.integers(0, logits.shape[1] - 1)))
    e = np.exp(logits - logits.max(1, keepdims=True))
    return torch.tensor(logits), torch.tensor(labels), e / e.sum(1, keepdims=True)


@given(LOGITS, st.data())
def test_brier_is_the_squared_distance_of_softmax_from_the_one_hot_label(logits, data):
    outputs, targets, p = labelled(logits, data)
    expected = np.square(p - np.eye(p.shape[1])[targets.numpy()]).sum(1)
    np.testing.assert_allclose(ac.brier(outputs, targets), expected, rtol=1e-9, atol=1e-15)


@given(LOGITS, st.data())
def test_one_minus_p_is_the_probability_of_a_wrong_answer(logits, data):
    outputs, targets, p = labelled(logits, data)
    expected = 1 - np.take_along_axis(p, targets.numpy()[:, None], 1)[:, 0]
    np.testing.assert_allclose(ac.one_minus_p(outputs, targets), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("objective", [ac.brier, ac.one_minus_p])
@given(logits=LOGITS, data=st.data())
def test_class_indices_and_one_hot_rows_mean_the_same(objective, logits, data):
    outputs, targets, _ = labelled(logits, data)
    rows = one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    assert torch.equal(objective(outputs, targets), objective(outputs, rows))


@pytest.mark.parametrize("objective", [ac.brier, ac.one_minus_p])
@given(logits=LOGITS, data=st.data())
def test_zero_is_a_lower_bound_that_certainty_approaches(objective, logits, data):
    outputs, targets, _ = labelled(logits, data)
    assert bool((objective(outputs, targets) >= -1e-15).all())
    certain = 100.0 * one_hot(targets, outputs.shape[1])
    assert bool((objective(certain.double(), targets) < 1e-40).all())


@pytest.mark.parametrize("objective", [ac.brier, ac.one_minus_p])
@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(4, 1), torch.zeros(4, 1)),
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 4), torch.zeros(4)),
        (torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64)),
        (torch.zeros(4), torch.zeros(4)),
    ],
)
def test_probabilities_are_of_two_classes_at_least_and_of_what_is_shaped_alike(objective, outputs, targets):
    """The softmax of a single logit is 1, and what broadcasts is a loss of something else: a number without a word."""
    with pytest.raises(ValueError, match=r"logits of two classes or more, \(N, K\).*A single logit z stands for two"):
        objective(outputs, targets)


@given(GRADIENTS)
def test_gradient_l1_is_the_one_norm_over_all_parameters(gradients):
    push = {name: torch.tensor(value) for name, value in gradients.items()}
    expected = sum(np.abs(value).sum() for value in gradients.values())
    assert float(ac.gradient_l1(push, push)) == pytest.approx(expected, rel=1e-12)
    assert float(ac.step_l1(push, push)) == pytest.approx(expected, rel=1e-12)
    assert (ac.gradient_l1.of, ac.step_l1.of) == ("gradient", "step")


@given(GRADIENTS)
def test_gradient_l2_is_the_two_norm_over_all_parameters(gradients):
    push = {name: torch.tensor(value) for name, value in gradients.items()}
    expected = np.sqrt(sum(np.square(value).sum() for value in gradients.values()))
    assert float(ac.gradient_l2(push, push)) == pytest.approx(expected, rel=1e-12)


@given(GRADIENTS, st.floats(0, 3))
def test_decayed_gradient_l1_is_zero_exactly_where_the_decay_balances_the_gradient(gradients, decay):
    parameters = {name: torch.tensor(value) for name, value in gradients.items()}
    balanced = {name: -decay * value for name, value in parameters.items()}
    mesa = ac.decayed_gradient_l1(decay)
    assert float(mesa(balanced, parameters)) == 0
    pushed = {name: value + 1 for name, value in balanced.items()}
    assert float(mesa(pushed, parameters)) == pytest.approx(sum(v.numel() for v in pushed.values()))


def test_a_decay_of_zero_is_the_plain_gradient():
    push = {"w": torch.tensor([1.0, -2.0])}
    assert float(ac.decayed_gradient_l1(0.0)(push, {"w": torch.tensor([7.0, 7.0])})) == 3.0
    assert ac.decayed_gradient_l1(0.5) == ac.decayed_gradient_l1(0.5) != ac.decayed_gradient_l1(0.25)


def test_a_plain_callable_is_a_mesa_objective_of_the_gradient(blobs):
    def largest(gradients, parameters):
        return torch.stack([g.abs().max() for g in gradients.values()]).max()

    mesa = replace(blobs, mesa_objective=largest).mesa
    assert isinstance(mesa, MesaObjective)
    assert (mesa.name, mesa.of) == ("largest", "gradient")
    assert float(mesa({"a": torch.tensor([1.0, -4.0])}, {})) == 4.0
    assert blobs.mesa is ac.gradient_l1


def test_an_objective_may_give_per_example_losses_or_their_mean():
    outputs, targets = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([0, 1])

    def per_example(o, t):
        return cross_entropy(o, t, reduction="none")

    assert torch.equal(
        Objective(per_example).loss()(outputs, targets, {}), Objective(cross_entropy).loss()(outputs, targets, {})
    )


class Scaled:
    """Multiplies a loss by its coefficient."""

    def __call__(self, loss, coefficient):
        return lambda outputs, targets, parameters: coefficient * loss(outputs, targets, parameters)


def test_objectives_changed_alike_share_a_structure_and_differ_in_coefficients_alone():
    scaled = Scaled()
    plain = Objective(lambda outputs, targets: outputs)
    twice, thrice = plain.changed(scaled, 2.0), plain.changed(scaled, 3.0)
    assert twice.structure == thrice.structure != plain.structure
    assert twice.changed(scaled, 5.0).coefficients == (2.0, 5.0)
    one = torch.tensor([1.0, 3.0])
    assert float(plain.loss()(one, None, {})) == 2.0
    assert float(thrice.loss()(one, None, {})) == 6.0
    assert float(thrice.loss((torch.tensor(10.0),))(one, None, {})) == 20.0
    assert plain.changes == ()
