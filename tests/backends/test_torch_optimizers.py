"""torch's own optimizers in lanes: each class, with each option, steps as the loop does, and says in which way."""

import inspect
from functools import partial

import pytest
import torch
from cases.stepping import (
    ELEMENTWISE,
    MANY,
    OPTIMIZERS,
    PER_LANE,
    SEEDS,
    STACKED,
    VMAPPED,
    Assigning,
    Bowl,
    Lamb,
    assert_equal_the_loop,
    bowl,
    clip,
    named,
    stepped,
)
from torch import nn
from torch.optim import Optimizer

import alignment_checks as ac

# ---------------------------------------------------------------------------------------------- torch's own optimizers


TRIED = {
    "momentum": [0.8],
    "dampening": [0.1],
    "weight_decay": [0.1],
    "betas": [(0.5, 0.9)],
    "rho": [0.5],
    "lambd": [0.01],
    "lr_decay": [0.1],
    "initial_accumulator_value": [0.1],
    "lr": [torch.tensor(0.01, dtype=torch.float64)],
}
"""Values of options, whoever has them; an option that is False or None is tried as True."""


def options(cls):
    """Return each option of an optimizer that a plain loop can step with on this device, alone or with momentum."""
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    flags = {name: [True] for name, default in defaults.items() if default in (False, None)}
    base = [{}, {"momentum": 0.8}] if "momentum" in defaults else [{}]
    found = [{}]
    for name, values in (flags | TRIED).items():
        for value in values if name in defaults else []:
            found += [{**more, name: value} for more in base if works(cls, {**more, name: value})][-1:]
    return found


def works(cls, chosen):
    parameter = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    parameter.grad = torch.ones_like(parameter)
    try:
        cls([parameter], **chosen).step()
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("cls", ELEMENTWISE, ids=named)
def test_torchs_elementwise_optimizers_are_stepped_stacked_with_each_option(cls):
    tried = options(cls)
    assert len(tried) > 3
    for chosen in tried:
        steps = 50 if not chosen else 6
        assert stepped(assert_equal_the_loop(bowl(partial(cls, **chosen), steps=steps), seeds=SEEDS)) == (STACKED, None)


def test_optimizers_that_look_at_more_than_an_element_are_stepped_in_a_slower_way_and_say_so():
    matrices = partial(Matrices)
    for optimizer, way in ((torch.optim.Adafactor, PER_LANE), (torch.optim.Muon, PER_LANE)):
        came, why = stepped(assert_equal_the_loop(bowl(optimizer, model=matrices, steps=12), seeds=SEEDS))
        assert came == way
        assert "one optimizer over stacked lanes was refused" in why


class Matrices(Bowl):
    """Muon takes matrices alone."""

    def __init__(self):
        super().__init__((3, 2), (2, 2))
        self.spare = None


def test_a_product_in_a_narrower_dtype_is_seen():
    """Muon multiplies in bfloat16, where a batched product rounds otherwise than a single one."""
    _, why = stepped(ac.run(bowl(torch.optim.Muon, model=Matrices, steps=3), seeds=SEEDS, backend="lanes"))
    assert "vmap over optimizer.step() was refused: a lane stepped by itself moves otherwise" in why


def test_sparse_gradients_go_through_the_loop_and_say_so():
    def model():
        return nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten())

    data = (torch.arange(5), torch.zeros(5, 3))
    setup = ac.TrainingSetup(model, data, nn.functional.mse_loss, torch.optim.SparseAdam, 5)
    found = assert_equal_the_loop(setup, seeds=MANY, backend="auto")
    assert stepped(found) == ("loop", "the gradient of 0.weight is sparse")


def test_a_closure_goes_through_the_loop_and_says_so():
    way, why = stepped(assert_equal_the_loop(bowl(torch.optim.LBFGS, steps=4), seeds=MANY, backend="auto"))
    assert way == "loop"
    assert why.startswith("LBFGS is given a closure")


def test_every_class_of_torch_is_tried():
    elsewhere = {torch.optim.Adafactor, torch.optim.Muon, torch.optim.SparseAdam, torch.optim.LBFGS}
    assert {*ELEMENTWISE, *elsewhere, Optimizer} == set(OPTIMIZERS)


def groups(parameters):
    """Return an optimizer with groups of other options, which shapes decide."""
    matrices, rest = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.3}, {"params": rest, "lr": 0.05}], lr=0.01)


def test_several_groups_are_each_stepped_by_their_own_options():
    def halves(parameters):
        first, *rest = parameters
        return torch.optim.SGD([{"params": rest}, {"params": [first], "lr": 0.3, "momentum": 0.5}], lr=0.1)

    assert stepped(assert_equal_the_loop(bowl(halves), seeds=SEEDS)) == (STACKED, None)


def test_a_factory_that_looks_at_shapes_is_called_with_a_lanes_own():
    assert stepped(assert_equal_the_loop(bowl(groups), seeds=SEEDS)) == (STACKED, None)


def test_a_factory_that_looks_at_the_parameters_sees_those_of_each_lane():
    def scaled(parameters):
        return torch.optim.SGD(parameters, lr=0.1 / (1 + float(sum(p.detach().abs().sum() for p in parameters))))

    trajectory = assert_equal_the_loop(bowl(scaled), seeds=SEEDS)
    assert stepped(trajectory)[0] == PER_LANE
    assert len({end.learning_rate for end in trajectory.end}) == len(SEEDS)


def test_a_parameter_that_the_loss_does_not_use_has_no_gradient_for_the_optimizer():
    """Weight decay moves a parameter whose gradient is zero, and leaves one without a gradient."""
    for optimizer in (partial(torch.optim.SGD, weight_decay=0.3), partial(Lamb, weight_decay=0.3), Assigning):
        trajectory = assert_equal_the_loop(bowl(optimizer, steps=10), seeds=SEEDS)
        assert {run.backend for run in trajectory.runs} == {"lanes"}
        assert all(bool((end.parameters["spare"] == 1).all()) for end in trajectory.end)


# ------------------------------------------------------------------------------------------------------- adversaries


@pytest.mark.parametrize("cls", [c for c in ELEMENTWISE if c is not torch.optim.Rprop], ids=named)
def test_clipping_by_the_norm_steps_torchs_own_by_vmap_without_its_slow_paths(cls):
    """Of lists of tensors too, as torch does it on an accelerator. Rprop indexes by masks, which vmap refuses."""

    def factory(parameters, foreach):
        optimizer = cls(parameters, foreach=foreach)
        optimizer.register_step_pre_hook(lambda *_: clip(parameters))
        return optimizer

    for foreach in (False, True):
        way, why = stepped(assert_equal_the_loop(bowl(partial(factory, foreach=foreach), steps=5), seeds=SEEDS))
        assert way == VMAPPED
        assert "performance drop" not in why
