"""What does not fit together is told with what was called with what, before anything is trained."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import alignment_checks as ac

SGD = partial(torch.optim.SGD, lr=0.1)


def linear():
    return nn.Linear(3, 1)


def setup_of(**changes):
    arguments = {"model": linear, "data": (torch.ones(8, 3), torch.zeros(8, 1)), "objective": mse_loss}
    return ac.TrainingSetup(**({**arguments, "optimizer": SGD, "steps": 3} | changes))


CALLED = {
    "inputs of another width": (
        {"model": lambda: nn.Linear(5, 1)},
        ValueError,
        r"the model cannot be called with inputs of shape \(8, 3\), float32: RuntimeError: .*one argument for each",
    ),
    "inputs of another dtype": (
        {"data": (torch.ones(8, 3, dtype=torch.float64), torch.ones(8, 1))},
        ValueError,
        r"inputs of shape \(8, 3\), float64: .*parameters are float32: dtype=torch.float64",
    ),
    "a model of two inputs": (
        {"data": (torch.ones(8, 3), torch.ones(8, 3), torch.ones(8, 1))},
        TypeError,
        r"the model cannot be called with inputs of shape \(8, 3\), float32, shape \(8, 3\), float32: TypeError",
    ),
    "labels that are floats": (
        {"objective": cross_entropy, "data": (torch.ones(8, 3), torch.ones(8))},
        ValueError,
        r"cannot be called with outputs of shape \(8, 1\), float32 and targets of shape \(8,\), float32: .*int64",
    ),
    "a label that is no class": (
        {"objective": cross_entropy, "data": (torch.ones(8, 3), torch.full((8,), 3))},
        ValueError,
        r"targets of shape \(8,\), int64: IndexError: Target 3 is out of bounds\. Targets are the last",
    ),
    "an objective without a gradient": (
        {"objective": lambda o, t: (o > t).float()},
        ValueError,
        "what torch can differentiate.*Leave argmax, comparisons",
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
        ac.run(setup_of(**changes), backend=backend)


def test_what_a_model_raises_is_seen_behind_it():
    with pytest.raises(ValueError, match="cannot be called with") as caught:
        ac.run(setup_of(model=lambda: nn.Linear(5, 1)))
    assert isinstance(caught.value.__cause__, RuntimeError)
