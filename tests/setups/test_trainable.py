"""What does not fit together is told with what was called with what, before anything is trained."""

from functools import partial

import numpy as np
import pytest
import torch
from cases.regression import SGD, linear, regression
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim.lr_scheduler import StepLR

import alignment_checks as ac


class Wrapped(nn.Module):
    """A model whose outputs are a dict, as those of many libraries."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x):
        return {"logits": self.linear(x)}


class Picky(nn.Linear):
    """A model that asks something of its inputs by a bare assertion."""

    def __init__(self):
        super().__init__(3, 1)

    def forward(self, x):
        if x.ndim != 4:
            raise AssertionError
        return super().forward(x)


CALLED = {
    "inputs of another width": (
        {"model": lambda: nn.Linear(5, 1)},
        ValueError,
        r"the model, called with inputs of shape \(8, 3\), float32, raised RuntimeError: .*one argument for each",
    ),
    "inputs of another dtype": (
        {"data": (torch.ones(8, 3, dtype=torch.float64), torch.ones(8, 1))},
        ValueError,
        r"inputs of shape \(8, 3\), float64, raised .*parameters are float32: dtype=torch.float64",
    ),
    "a model of two inputs": (
        {"data": (torch.ones(8, 3), torch.ones(8, 3), torch.ones(8, 1))},
        TypeError,
        r"the model, called with inputs of shape \(8, 3\), float32, shape \(8, 3\), float32, raised TypeError",
    ),
    "labels that are floats": (
        {"objective": cross_entropy, "data": (torch.ones(8, 3), torch.ones(8))},
        ValueError,
        r"called with outputs of shape \(8, 1\), float32 and targets of shape \(8,\), float32, raised .*int64",
    ),
    "a label that is no class": (
        {"objective": cross_entropy, "data": (torch.ones(8, 3), torch.full((8,), 3))},
        ValueError,
        r"targets of shape \(8,\), int64, raised IndexError: Target 3 is out of bounds\. Targets are the last",
    ),
    "targets that torch warns of": (
        {"data": (torch.ones(8, 3), torch.ones(8))},
        ValueError,
        r"targets of shape \(8,\), float32, raised UserWarning: Using a target size.* It is a warning, .*Targets are",
    ),
    "a factory of models that lacks its arguments": (
        {"model": nn.Linear},
        TypeError,
        r"`model\(\)` raised TypeError: .*'in_features' and 'out_features'\. .*without arguments: model=",
    ),
    "a model that asserts, without a word": (
        {"model": Picky},
        ValueError,
        r"the model, called with inputs of shape \(8, 3\), float32, raised AssertionError\. It is called with",
    ),
    "an objective without a gradient": (
        {"objective": lambda o, t: (o > t).float()},
        ValueError,
        "a differentiable function.*Leave argmax, comparisons",
    ),
    "a scheduler that torch refuses": (
        {"scheduler": partial(StepLR, step_size=2, gama=0.5)},
        TypeError,
        r"`scheduler\(optimizer\)` raised TypeError: .*'gama'\. It is called with an optimizer: scheduler=",
    ),
    "a scheduler that looks for what is not there": (
        {"scheduler": lambda optimizer: optimizer.param_groups[1]},
        ValueError,
        r"`scheduler\(optimizer\)` raised IndexError: .*partial\(torch.optim.lr_scheduler.StepLR",
    ),
    "a scheduler that is none": (
        {"scheduler": lambda optimizer: 0.5},
        TypeError,
        r"`scheduler\(optimizer\)` must return a torch scheduler; got float\. It is called with an optimizer",
    ),
    "an optimizer that torch refuses": (
        {"optimizer": partial(SGD, lr=-0.1)},
        ValueError,
        r"`optimizer\(params\)` raised ValueError: Invalid learning rate: -0.1. It is called with a list",
    ),
    "a model that returns a dict": (
        {"model": Wrapped, "objective": cross_entropy},
        TypeError,
        r"outputs of dict and targets of .*The model returns a dict: let the objective take what it needs of it",
    ),
    "an objective that asks a dict for what a tensor has": (
        {"model": Wrapped, "objective": lambda outputs, targets: (outputs.squeeze(1) - targets).square()},
        ValueError,
        r"called with outputs of dict .*AttributeError: 'dict' object .*The model returns a dict: let the",
    ),
    "a mesa-objective that is a loss": (
        {"mesa_objective": nn.functional.mse_loss},
        ValueError,
        r"`mesa_objective\(push, parameters\)` raised AttributeError: .*It is called with two mappings",
    ),
    "outputs that have no shape": (
        {"model": Wrapped, "objective": lambda outputs, targets: outputs["logits"].expand(3, 8, 1)},
        ValueError,
        r"must return 8 per-example losses .*; got shape \(3, 8, 1\) for outputs of dict",
    ),
    "a mesa-objective of one argument": (
        {"mesa_objective": lambda gradients: gradients},
        TypeError,
        r"`mesa_objective\(push, parameters\)` raised TypeError: .*name to tensor, of weight, bias",
    ),
    "a mesa-objective of another parameter": (
        {"mesa_objective": lambda gradients, parameters: gradients["0.weight"].abs().sum()},
        ValueError,
        r"raised KeyError: '0.weight'. It is called with two mappings .*, of weight, bias",
    ),
    "a mesa-objective of each parameter": (
        {"mesa_objective": lambda gradients, parameters: gradients["weight"].abs()},
        TypeError,
        r"`mesa_objective` must return a scalar tensor; got shape \(1, 3\), float32. Sum over",
    ),
    "an optimizer of other parameters": (
        {"optimizer": lambda parameters: SGD(linear().parameters())},
        ValueError,
        r"must return an optimizer of `params`; got SGD of other parameters.*lambda params: ",
    ),
}


@pytest.mark.parametrize("backend", ["auto", "loop", "lanes"])
@pytest.mark.parametrize(("changes", "error", "said"), CALLED.values(), ids=CALLED)
def test_what_does_not_fit_together_says_what_it_was_called_with(changes, error, said, backend):
    with pytest.raises(error, match=said):
        ac.run(regression(**changes), backend=backend)


def test_what_a_model_raises_is_seen_behind_it():
    with pytest.raises(ValueError, match=r"called with .*, raised") as caught:
        ac.run(regression(model=lambda: nn.Linear(5, 1)))
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_data_that_were_made_under_inference_mode_are_trained_on(backend, batch_size):
    with torch.inference_mode():
        inputs, targets = torch.ones(8, 3), torch.zeros(8, 1)
    of_inference, plain = (
        ac.run(regression(data=data, batch_size=batch_size), seeds=range(3), backend=backend)
        for data in ((inputs, targets), (torch.ones(8, 3), torch.zeros(8, 1)))
    )
    np.testing.assert_array_equal(of_inference.base, plain.base)


@pytest.mark.parametrize("backend", ["auto", "loop"])
def test_a_factory_of_optimizers_that_draws_leaves_the_global_generators_as_they_were(backend):
    def drawing(parameters):
        return torch.optim.SGD(parameters, lr=0.1 + 0 * float(torch.rand(()) + np.random.rand()))

    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1]
    ac.run(regression(optimizer=drawing), seeds=range(16), backend=backend)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], of_numpy)


class Within(nn.Module):
    """Sums, as it says, what each example has; and takes the mean over the examples."""

    reduction = "sum"

    def forward(self, outputs, targets):
        return (outputs - targets).square().sum(1).mean()


class Paired(nn.Module):
    """Sums over pairs of examples: how many there are is part of what it is."""

    reduction = "sum"

    def forward(self, outputs, targets):
        return ((outputs - outputs.T) - (targets - targets.T)).square().sum() + outputs.square().sum()


@pytest.mark.parametrize(
    "objective",
    [partial(mse_loss, reduction="sum"), nn.MSELoss(reduction="sum"), partial(nn.SmoothL1Loss(reduction="sum"))],
)
def test_an_objective_that_sums_over_the_examples_is_refused(objective):
    with pytest.raises(
        ValueError, match=r"sums over the examples \(reduction='sum'\), .*expected .*Leave `reduction` out"
    ):
        ac.run(regression(objective=objective, data=(torch.eye(8, 3), torch.ones(8, 1))))


@pytest.mark.parametrize(
    "objective",
    [Within(), Paired(), nn.MSELoss(), partial(partial(mse_loss, reduction="sum"), reduction="mean")],
)
def test_one_that_only_says_that_it_sums_or_sums_over_something_else_is_trained(objective):
    of = regression(objective=objective, data=(torch.eye(8, 3), torch.ones(8, 1)), steps=2)
    assert ac.run(of).base.shape == (1, 3)
