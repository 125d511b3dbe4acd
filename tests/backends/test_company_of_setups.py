"""The bits of a run do not depend on the runs of other setups that are trained in one launch with it."""

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler as schedules

import alignment_checks as ac
from alignment_checks.backends import lanes
from alignment_checks.backends.stepping.foreach import OneByOne
from alignment_checks.backends.stepping.numbers import AsColumns, LaneNumbers
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.runs import Part, run_parts

T = 8
SEEDS = range(5)

RATES, BETAS = st.sampled_from([0.1, 0.03, 0.02, 0.007]), st.tuples(*2 * [st.sampled_from([0.0, 0.5, 0.9, 0.99])])
DECAYS = {"weight_decay": st.sampled_from([0.0, 0.01, 0.3])}
MOMENTA = {"momentum": st.sampled_from([0.0, 0.5, 0.9])}
ADAMS = {"betas": BETAS, **DECAYS}
HOW = [{}, {}, {"foreach": True}, {"maximize": True}]
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
CLASSES = {
    torch.optim.SGD: {**MOMENTA, **DECAYS, "dampening": st.sampled_from([0.0, 0.1])},
    torch.optim.Adam: {**ADAMS, "amsgrad": st.booleans()},
    torch.optim.AdamW: ADAMS,
    torch.optim.NAdam: {**ADAMS, "momentum_decay": st.sampled_from([0.004, 0.1])},
    torch.optim.RAdam: ADAMS,
    torch.optim.Adamax: ADAMS,
    torch.optim.Adagrad: {"lr_decay": st.sampled_from([0.0, 0.1]), **DECAYS},
    torch.optim.Adadelta: {"rho": st.sampled_from([0.5, 0.9]), **DECAYS},
    torch.optim.RMSprop: {"alpha": st.sampled_from([0.5, 0.9]), "centered": st.booleans(), **MOMENTA, **DECAYS},
    torch.optim.ASGD: {"lambd": st.sampled_from([1e-4, 0.1]), "alpha": st.sampled_from([0.75, 0.5])},
    torch.optim.Rprop: {"etas": st.sampled_from([(0.5, 1.2), (0.4, 1.1)])},
}


class Normed(torch.optim.Optimizer):
    """Takes steps of a length that no parameter has by itself, and powers and roots of its options."""

    def __init__(self, parameters, lr, power=1.0):
        super().__init__(parameters, {"lr": lr, "power": power})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                scale = (1 + p.grad.norm()) ** group["power"]
                p.add_(p.grad.sign() * p.grad.abs() ** group["power"] / scale, alpha=-group["lr"])


SCHEDULES = [
    None,
    partial(schedules.StepLR, step_size=3),
    partial(schedules.ExponentialLR, gamma=0.9),
    partial(schedules.ReduceLROnPlateau, patience=0, factor=0.5, threshold=0.1),
]


@st.composite
def optimizers(draw):
    """Draw a class, and some factories of it that differ by any of its numbers."""
    cls = draw(st.sampled_from([*CLASSES, Normed]))
    numbers = {"power": st.sampled_from([1.0, 2.0, 1.7])} if cls is Normed else CLASSES[cls]
    how = {} if cls is Normed else draw(st.sampled_from([*HOW, {"fused": True}] if cls in FUSED else HOW))
    each = draw(st.lists(st.fixed_dictionaries({"lr": RATES, **numbers}), min_size=2, max_size=4))
    return [partial(cls, **options, **how) for options in each]


def in_groups(factory, parameters):
    return factory([{"params": [parameter]} for parameter in parameters])


def model():
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3))


def setups_of(factories, dtype, *, grouped=False, scheduler=None):
    random = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 3
    data = torch.randn(24, 5, generator=random, dtype=torch.float64) + y[:, None], y
    made = [partial(in_groups, one) if grouped else one for one in factories]
    first = ac.TrainingSetup(model, data, nn.functional.cross_entropy, made[0], T, dtype=dtype, scheduler=scheduler)
    return [replace(first, optimizer=one) for one in made]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@settings(max_examples=12, deadline=None)
@given(optimizers(), st.booleans(), st.sampled_from(SCHEDULES), st.booleans(), st.randoms())
@example([partial(torch.optim.SGD, lr=0.1, momentum=m) for m in (0.9, 0.8)], False, None, False, None)
@example([partial(torch.optim.Adam, lr=lr, foreach=True) for lr in (0.1, 0.02)], False, None, False, None)
@example([partial(torch.optim.NAdam, lr=lr, foreach=True) for lr in (0.1, 0.02)], True, None, False, None)
@example([partial(torch.optim.Adagrad, lr=0.1, lr_decay=d, foreach=True) for d in (0.1, 0.0)], True, None, False, None)
@example(
    [partial(torch.optim.RMSprop, lr=lr, alpha=0.5, maximize=True) for lr in (0.1, 0.03)], False, None, False, None
)
def test_the_bits_of_a_run_do_not_depend_on_other_setups(dtype, factories, grouped, scheduler, perturbed, random):
    setups = setups_of(factories, dtype, grouped=grouped, scheduler=scheduler)
    deltas = [IDENTITY, Perturbation("learning_rate", 0.5, 1.0, 0)] if perturbed else None
    alone = {setup: ac.run(setup, deltas, seeds=SEEDS, backend="lanes") for setup in setups}
    if random is not None:
        random.shuffle(setups)
    parts = [Part(setup, deltas, seeds=SEEDS) for setup in setups]
    for found in run_parts(parts, device="cpu", backend="lanes", planned=0):
        by_itself = alone[found.setup]
        assert {run.reason for run in found.runs} == {run.reason for run in by_itself.runs}
        np.testing.assert_array_equal(found.base, by_itself.base)
        np.testing.assert_array_equal(found.mesa, by_itself.mesa)


def test_a_setup_that_cannot_be_stepped_beside_others_is_stepped_as_by_itself():
    """What reads an option as one number is refused while lanes differ by it, and by itself it is not."""

    class Read(torch.optim.SGD):
        def step(self, closure=None):
            int(self.param_groups[0]["weight_decay"])
            super().step()

    setups = setups_of([partial(Read, lr=0.1, weight_decay=decay) for decay in (0.1, 0.2)], torch.float32)
    parts = [Part(setup, seeds=SEEDS) for setup in setups]
    for found in run_parts(parts, device="cpu", backend="lanes", planned=0):
        alone = ac.run(found.setup, seeds=SEEDS, backend="lanes")
        np.testing.assert_array_equal(found.base, alone.base)
        assert {run.reason for run in found.runs} == {run.reason for run in alone.runs} == {None}


class Clipped(torch.optim.Optimizer):
    """Clips by the norm of all gradients, beyond its limit of 1 alone: elements of a lane are mixed there."""

    def __init__(self, parameters, lr, limit):
        super().__init__(parameters, {"lr": lr, "limit": limit})

    @torch.no_grad()
    def step(self, closure=None):
        (group,) = self.param_groups
        norm = torch.stack([p.grad.norm() for p in group["params"]]).norm() if group["limit"] < 1 else 1.0
        for p in group["params"]:
            p.sub_(p.grad / norm * group["limit"], alpha=group["lr"])


def test_each_setup_is_stepped_in_its_own_way_and_says_why():
    setups = setups_of([partial(Clipped, lr=0.1, limit=limit) for limit in (2.0, 0.5, 3.0, 0.25)], torch.float32)
    found = run_parts([Part(one, seeds=SEEDS) for one in setups], device="cpu", backend="lanes", planned=0)
    for setup, together in zip(setups, found, strict=True):
        alone = ac.run(setup, seeds=SEEDS, backend="lanes")
        np.testing.assert_array_equal(together.base, alone.base)
        np.testing.assert_array_equal(together.mesa, alone.mesa)
        assert [run.reason for run in together.runs] == [run.reason for run in alone.runs]
        assert [end.learning_rate for end in together.end] == [end.learning_rate for end in alone.end]
    assert [one.runs[0].reason is None for one in found] == [True, False, True, False]


@pytest.mark.parametrize("cls", [torch.optim.ASGD, torch.optim.Adafactor])
def test_setups_that_are_stepped_apart_are_evaluated_together(cls, monkeypatch):
    """What costs the most is one launch for all of them: under @given each example may be a setup of its own."""
    launches, train = [], lanes.train

    def launched(*args, **named):
        records = train(*args, **named)
        launches.append(records)
        return records

    monkeypatch.setattr(lanes, "train", launched)
    setups = setups_of([partial(cls, lr=0.01 * k) for k in range(1, 9)], torch.float32)
    run_parts([Part(one) for one in setups], device="cpu", backend="lanes", planned=0)
    assert len(launches) == 1


def multiplied(tensors, by):
    torch._foreach_mul_(tensors, by)
    return tensors


NUMBERS = [0.7, -0.1, 1e-3, 7.0, 0.5, 1.0, 0.0, 1.5]
ROUNDED = {
    "add": lambda a, b, c, v: a.add(b, alpha=v),
    "add_": lambda a, b, c, v: a.clone().add_(b, alpha=v),
    "add a number": lambda a, b, c, v: a.add(v),
    "add a scaled number": lambda a, b, c, v: a.add(3.3, alpha=v),
    "add a number, scaled": lambda a, b, c, v: a.add(v, alpha=0.37),
    "add a tensor of no axis": lambda a, b, c, v: a.add(torch.tensor(3.3, dtype=a.dtype), alpha=v),
    "sub": lambda a, b, c, v: a.sub(b, alpha=v),
    "a difference": lambda a, b, c, v: v - a,
    "mul": lambda a, b, c, v: v * a,
    "div": lambda a, b, c, v: a / v,
    "reciprocal": lambda a, b, c, v: v / a,
    "addcmul": lambda a, b, c, v: torch.addcmul(a, b, c, value=v),
    "addcdiv_": lambda a, b, c, v: a.clone().addcdiv_(b, c, value=v),
    "a list": lambda a, b, c, v: torch._foreach_add([a], [b], alpha=v)[0],
    "a list in place": lambda a, b, c, v: multiplied([a.clone()], v)[0],
    "numbers of Python": lambda a, b, c, v: a.add(b, alpha=1 - abs(v) ** 3 * 2 / (3 - v)),
    "a wider summand": lambda a, b, c, v: a.add(b.double(), alpha=v),
}
WIDE_ENOUGH = {
    "lerp": lambda a, b, c, v: a.lerp(b, v),
    "a power": lambda a, b, c, v: (abs(v) + 1.1) ** a,
    "a power of the elements": lambda a, b, c, v: a.abs() ** (abs(v) + 1.1),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *product({**ROUNDED, **WIDE_ENOUGH}, (torch.float32, torch.float64)),
        *product(ROUNDED, (torch.bfloat16, torch.float16)),
    ],
)
def test_a_number_of_each_lane_is_calculated_with_as_one_number_is(name, dtype):
    """Stacked, and under `vmap`, where lanes have one axis less."""
    function, random = {**ROUNDED, **WIDE_ENOUGH}[name], torch.Generator().manual_seed(0)
    given = [torch.randn(len(NUMBERS), 64, generator=random).to(dtype) for _ in range(3)]
    alone = torch.stack([function(*(x[i : i + 1] for x in given), v)[0] for i, v in enumerate(NUMBERS)])
    with AsColumns():
        found = function(*given, LaneNumbers(NUMBERS))
    torch.testing.assert_close(found, alone, rtol=0, atol=0, equal_nan=True)
    with AsColumns(), OneByOne():
        mapped = torch.func.vmap(lambda *of_lane: function(*of_lane, LaneNumbers(NUMBERS)))(*given)
    torch.testing.assert_close(mapped, alone, rtol=0, atol=0, equal_nan=True)
