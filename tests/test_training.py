"""`TrainingSetup` and `landscape`: what they hold, and one clear error for everything they cannot hold.

Each error says what was expected, what came, and the fix, and comes before anything is trained.
"""

from dataclasses import FrozenInstanceError, replace
from functools import partial

import numpy as np
import pytest
import torch
from cases.regression import SGD, linear, regression
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import alignment_checks as ac
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.realization import realize
from alignment_checks.setups.trainable import checked


@pytest.mark.parametrize(
    ("changes", "error", "expected", "came"),
    [
        ({"steps": 0}, ValueError, "`steps` must be an int, at least 1", "got 0"),
        ({"steps": -3}, ValueError, "`steps` must be an int, at least 1", "got -3"),
        ({"steps": 2.5}, ValueError, "`steps` must be an int, at least 1", "got 2.5"),
        ({"steps": True}, ValueError, "`steps` must be an int, at least 1", "got True"),
        ({"seed": -1}, ValueError, "`seed` must be an int in [0, 2**63)", "got -1"),
        ({"seed": 2**63}, ValueError, "`seed` must be an int in [0, 2**63)", "got 9223372036854775808"),
        ({"model": linear()}, TypeError, "Pass a factory: model=lambda", "got Linear"),
        ({"model": 3}, TypeError, "Pass a factory: model=lambda", "got int 3"),
        ({"objective": "mse"}, TypeError, "Pass a function of (outputs, targets)", "got str 'mse'"),
        ({"optimizer": SGD([nn.Parameter(torch.ones(1))])}, TypeError, "Pass a factory: optimizer=partial", "got SGD"),
        ({"scheduler": 0.9}, TypeError, "Pass a factory: scheduler=partial", "got float 0.9"),
        ({"mesa_objective": None}, TypeError, "Pass alignment_checks.gradient_l1", "got NoneType None"),
        ({"objective_infimum": float("nan")}, ValueError, "must be finite, or None", "got nan"),
        ({"objective_infimum": "0"}, ValueError, "must be finite, or None", "got '0'"),
        ({"dtype": torch.int64}, TypeError, "`dtype` must be a floating torch.dtype or None", "got torch.int64"),
        ({"dtype": "float64"}, TypeError, "`dtype` must be a floating torch.dtype or None", "got 'float64'"),
        ({"data": 5}, TypeError, "`data` must be tensors, such as (x, y), or None", "got int 5"),
        ({"data": ()}, TypeError, "`data` must be tensors", "got an empty sequence"),
        ({"data": (torch.ones(2, 3), np.zeros(2))}, TypeError, "torch.as_tensor converts an array", "ndarray"),
        (
            {"data": (torch.ones(8, 3), torch.zeros(7, 1))},
            ValueError,
            "the first axis of each tensor in `data` must be the example",
            "got shapes (8, 3), (7, 1)",
        ),
        ({"data": (torch.ones(8, 3), torch.tensor(1.0))}, ValueError, "the first axis of each tensor", "(8, 3), ()"),
        ({"data": (torch.ones(0, 3), torch.ones(0, 1))}, ValueError, "(at least one) in each", "(0, 3), (0, 1)"),
        ({"batch_size": 0}, ValueError, "must be an int from 1 to the 8 examples, or None", "got 0"),
        ({"batch_size": 9}, ValueError, "must be an int from 1 to the 8 examples, or None", "got 9"),
        ({"batch_size": 4, "data": None}, ValueError, "`batch_size` needs `data`", "got data=None"),
    ],
)
def test_bad_input_is_refused_when_the_setup_is_made(changes, error, expected, came):
    with pytest.raises(error) as caught:
        regression(**changes)
    assert expected in str(caught.value)
    assert came in str(caught.value)


SAME = linear()
TRUNK = nn.Linear(3, 1)


def frozen():
    return linear().requires_grad_(False)


@pytest.mark.parametrize(
    ("changes", "error", "expected", "came"),
    [
        ({"model": lambda: SAME}, ValueError, "Expected a new module at each call", "returned the same weights twice"),
        ({"model": lambda: nn.Sequential(TRUNK)}, ValueError, "build it inside the factory", "shares 0.weight, 0.bias"),
        ({"model": frozen}, ValueError, "expected at least one with requires_grad=True", "has no trainable parameter"),
        ({"model": nn.ReLU}, ValueError, "build a model that has one", "has no trainable parameter"),
        ({"model": lambda: 3}, TypeError, "`model()` must return a torch.nn.Module", "got int"),
        ({"objective": lambda o, t: o * torch.nan}, ValueError, "Check the data for NaN", "is nan at t = 0"),
        ({"objective": lambda o, t: (o - o).log().mean()}, ValueError, "expected a finite value", "is -inf at t = 0"),
        (
            {"objective": lambda o, t: torch.ones(5)},
            ValueError,
            "must return 8 per-example losses (first axis: the example) or a scalar",
            "got shape (5,) for outputs of shape (8, 1)",
        ),
        ({"objective": lambda o, t: 0.5}, TypeError, "must return a tensor of per-example losses", "got float"),
        ({"objective": lambda o, t: (o > 0).sum()}, TypeError, "must return floating-point losses", "got torch.int64"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "loop", "lanes"])
def test_what_shows_only_at_the_init_is_refused_before_anything_is_trained(changes, error, expected, came, backend):
    asked = []
    setup = regression(**changes, optimizer=lambda parameters: asked.append(parameters) or SGD(parameters))
    with pytest.raises(error) as caught:
        ac.run(setup, seeds=range(4), backend=backend)
    assert expected in str(caught.value)
    assert came in str(caught.value)
    assert not asked


@pytest.mark.parametrize(
    ("start", "error", "said"),
    [
        ([], ValueError, "`start` is empty; expected at least one float"),
        (3.0, TypeError, "`start` must be a sequence of floats; got float 3.0. Pass [3.0]"),
        ([[1.0, 2.0]], TypeError, "`start` must be a flat sequence of floats; got list [[1.0, 2.0]]"),
        ("ab", TypeError, "`start` must be a flat sequence of floats; got str 'ab'"),
    ],
)
def test_a_landscape_needs_somewhere_to_start(start, error, said):
    with pytest.raises(error) as caught:
        ac.landscape(torch.sum, start, optimizer=SGD, steps=1)
    assert said in str(caught.value)


def test_a_landscape_that_is_no_scalar_is_refused():
    vector = ac.landscape(lambda x: x.square(), [1.0, 2.0], optimizer=SGD, steps=1)
    with pytest.raises(ValueError, match=r"must return a scalar; got shape \(2,\)"):
        ac.run(vector)


def test_a_landscape_that_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"`function` must return a tensor, a scalar; got float 0\.5"):
        ac.run(ac.landscape(lambda x: 0.5, [1.0], optimizer=SGD, steps=1))


@pytest.mark.parametrize("backend", ["auto", "loop", "lanes"])
def test_a_factory_that_returns_no_optimizer_is_refused(backend):
    with pytest.raises(TypeError, match=r"`optimizer\(params\)` must return a torch.optim.Optimizer; got NoneType"):
        ac.run(regression(optimizer=lambda parameters: None), backend=backend)


def test_a_class_of_objectives_is_refused():
    with pytest.raises(TypeError, match=r"got the class MSELoss itself\. Build one: objective=MSELoss\(\)"):
        regression(objective=nn.MSELoss)


def test_a_loader_is_named_and_not_run_through():
    loader = DataLoader(TensorDataset(torch.ones(8, 3), torch.ones(8, 1)), batch_size=4)
    with pytest.raises(TypeError, match=r"got DataLoader.*stack the examples of a Dataset, and batch_size= draws"):
        regression(data=loader)


WRITERS = {
    "model": {"model": lambda: nn.Sequential(nn.ReLU(inplace=True), linear())},
    "objective": {"objective": lambda outputs, targets: mse_loss(outputs, targets.sub_(1.0))},
}


@pytest.mark.parametrize("who", WRITERS)
def test_who_writes_into_the_data_is_refused_before_that_has_happened(who):
    """Else each step would train on other data than the one before, and each run on what the last one left."""
    data = torch.full((8, 3), -1.0), torch.zeros(8, 1)
    with pytest.raises(ValueError, match=r"writes into data\[[01]\] in place.*inplace=False"):
        ac.run(regression(data=data, **WRITERS[who]))
    assert bool((data[0] == -1).all())
    assert bool((data[1] == 0).all())
    ac.run(regression(data=data, model=lambda: nn.Sequential(linear(), nn.ReLU(inplace=True))))


def test_a_perturbed_run_that_is_nan_at_zero_has_diverged_at_zero_and_is_no_error():
    setup = ac.landscape(lambda x: x.clamp(max=4).sqrt().sum() / (x < 4).all(), [1.0], optimizer=SGD, steps=2)
    gains = [Perturbation("init_gain", magnitude, 4.0, seed=0) for magnitude in (0.0, 3.0)]
    plain, perturbed = ac.run(setup, gains, backend="loop").runs
    assert plain.outcome.diverged_at is None
    assert perturbed.outcome.diverged_at == 0
    assert str(perturbed.outcome) == "diverged at step 0"


def test_a_setup_is_frozen_and_compared_by_identity():
    one, other = regression(), regression()
    assert one == one
    assert one != other
    assert len({one, other}) == 2
    with pytest.raises(FrozenInstanceError):
        one.steps = 4


def test_everything_after_the_steps_is_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        ac.TrainingSetup(linear, (torch.ones(2, 3), torch.zeros(2, 1)), mse_loss, SGD, 3, None)


def test_a_landscape_starts_at_the_same_point_under_every_seed_in_float64():
    bowl = ac.landscape(lambda x: x.square().sum(), [1.0, -2.5], optimizer=SGD, steps=1)
    for seed in (0, 1, 2**40):
        (start,) = realize(bowl, seed).parameters.values()
        assert torch.equal(start, torch.tensor([1.0, -2.5], dtype=torch.float64))
    single = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=SGD, steps=1, dtype=torch.float32, seed=3)
    (start,) = realize(single, 0).parameters.values()
    assert (start.dtype, single.seed) == (torch.float32, 3)


def test_dtype_casts_model_and_floating_data_and_leaves_labels_alone(blobs):
    run = realize(replace(blobs, dtype=torch.float32), 0)
    assert {value.dtype for value in run.parameters.values()} == {torch.float32}
    assert [part.dtype for part in run.data] == [torch.float32, torch.int64]


def test_one_tensor_alone_is_both_inputs_and_targets():
    run = realize(regression(data=torch.ones(4, 3), model=lambda: nn.Linear(3, 3)), 0)
    (inputs,) = run.inputs
    assert inputs is run.targets is run.setup.data[0]
    assert run.examples == 4


def test_all_tensors_but_the_last_are_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x, scale):
            return self.layer(x) * scale

    data = (torch.ones(4, 3), torch.full((4, 1), 2.0), torch.zeros(4, dtype=torch.int64))
    run = checked(ac.TrainingSetup(Two, data, cross_entropy, SGD, 1))
    assert [part.shape for part in run.inputs] == [(4, 3), (4, 1)]
    assert torch.equal(run.targets, data[2])


def test_gradients_of_the_callers_data_are_left_behind():
    x = torch.ones(8, 3, requires_grad=True)
    assert not regression(data=(x, torch.zeros(8, 1))).data[0].requires_grad


def test_its_repr_has_the_shapes_of_its_data_and_what_differs_from_the_defaults():
    """As torch shows a tensor of the meta device; pytest and notebooks print the repr of whatever fails."""
    setup = ac.TrainingSetup(
        model=partial(nn.Linear, 3, 2),
        data=(torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=7,
        batch_size=2,
        mesa_objective=ac.step_l1,
    )
    assert repr(setup) == (
        "TrainingSetup(model=functools.partial(Linear, 3, 2), "
        "data=(tensor(..., size=(5, 3)), tensor(..., size=(5,), dtype=torch.int64)), objective=cross_entropy, "
        "optimizer=functools.partial(SGD, lr=0.1), steps=7, batch_size=2, mesa_objective=step_l1)"
    )


def test_the_repr_of_a_landscape_names_no_objective_since_its_function_is_all_that_it_has():
    bowl = ac.landscape(torch.sum, [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=7)
    assert repr(bowl) == (
        "TrainingSetup(model=<lambda>, data=None, optimizer=functools.partial(SGD, lr=0.1), steps=7, "
        "dtype=torch.float64)"
    )


def test_hypothesis_shows_it_in_a_failing_test_case_by_its_repr():
    """A setup is most often a fixture of a test under `@given`: each failure would show its data, row by row."""
    setup = regression()

    @settings(database=None, max_examples=1)
    @given(st.just(setup))
    def fails(setup):
        raise AssertionError

    with pytest.raises(AssertionError) as raised:
        fails()
    shown = "\n".join(raised.value.__notes__)
    assert f"setup={setup!r}," in shown


def test_its_repr_is_one_line_whatever_its_objective_is():
    two = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Flatten())
    assert "\n" in repr(two)
    assert "objective=Sequential( " in repr(regression(objective=two))
    assert "\n" not in repr(regression(objective=two))


@pytest.mark.parametrize("numbers", [1, 10**6])
def test_its_repr_is_short_however_much_data_its_functions_hold(numbers):
    setup = regression(objective=partial(mse_loss, weight=torch.ones(numbers)))
    assert f"partial(mse_loss, weight=tensor(..., size=({numbers},)" in repr(setup)
    assert len(repr(setup)) < 400
