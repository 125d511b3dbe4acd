"""Lanes of different hyperparameters share a batch, and each is stepped by its own."""

import inspect
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from cases.stepping import (
    CHANGES,
    ELEMENTWISE,
    PER_LANE,
    RATES,
    SEEDS,
    STACKED,
    Items,
    Lamb,
    Mine,
    assert_equal_the_loop,
    bowl,
    delta,
    named,
    stepped,
)
from hypothesis import find
from torch.optim import lr_scheduler as schedules

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends.stepping import stacked
from alignment_checks.perturbations import IDENTITY
from alignment_checks.runs import Part, run_parts


def test_runs_of_different_hyperparameters_share_a_batch_and_return_in_their_order():
    decaying = partial(schedules.StepLR, step_size=3)
    setup = bowl(partial(torch.optim.Adam, lr=0.05), steps=8, scheduler=decaying)
    rate = partial(pt.Perturbation, "learning_rate", limit=2.0, seed=0)
    deltas = [rate(1.0), IDENTITY, rate(-1.0), rate(1.0)]
    trajectory = assert_equal_the_loop(setup, deltas, seeds=[0, 1, 2])
    rates = [end.learning_rate[0] for end in trajectory.end]
    assert rates == pytest.approx([0.1 * 0.01] * 3 + [0.05 * 0.01] * 3 + [0.025 * 0.01] * 3 + [0.1 * 0.01] * 3)
    assert {run.reason for run in trajectory.runs} == {None}


DECAYS = [delta("lr_decay", m) for m in (0.1, 0.3, 0.02, 0.5)]


@pytest.mark.parametrize("cls", ELEMENTWISE, ids=named)
def test_lanes_with_hyperparameters_of_their_own_are_stepped_stacked(cls):
    """Also of lists of tensors, as torch does it on an accelerator; and where each lane has a schedule of its own."""
    has = inspect.signature(cls).parameters
    if cls is torch.optim.ASGD:
        pytest.skip("its state is one number for a parameter")
    searched = [RATES, DECAYS]
    searched += [CHANGES] if "momentum" in has or ("betas" in has and cls is not torch.optim.NAdam) else []
    for deltas in searched:
        setup = bowl(partial(cls, foreach=True, **{"momentum": 0.8} if "momentum" in has else {}), steps=10)
        assert stepped(assert_equal_the_loop(setup, deltas)) == (STACKED, None)
        assert stepped(assert_equal_the_loop(replace(setup, optimizer=cls, steps=50), RATES)) == (STACKED, None)


def test_an_optimizer_that_takes_a_hyperparameter_for_one_number_is_stepped_lane_by_lane_and_says_so():
    for optimizer, deltas, why in (
        (torch.optim.ASGD, RATES, "as_tensor takes a hyperparameter, by which lanes differ, as one number"),
        (torch.optim.NAdam, CHANGES, "a hyperparameter by which lanes differ meets a tensor that they share"),
        (ReadsRate, RATES, "it reads a hyperparameter, by which lanes differ, as one number"),
        (RootOfRate, RATES, "a lane stepped by itself moves otherwise"),
        (BranchesOnRate, RATES, "it branches on a hyperparameter by which lanes differ"),
    ):
        way, reason = stepped(assert_equal_the_loop(bowl(optimizer, steps=10), deltas))
        assert way == PER_LANE
        assert f"one optimizer over stacked lanes was refused: {why}" in reason


class ReadsRate(Mine):
    def update(self, p, g, state):
        return g * float(self.param_groups[0]["lr"])


class RootOfRate(Mine):
    """Takes the learning rate as C does, behind Python's back."""

    def update(self, p, g, state):
        return g * math.sqrt(self.param_groups[0]["lr"])


class BranchesOnRate(Mine):
    def update(self, p, g, state):
        return g if self.param_groups[0]["lr"] > 0.06 else 2 * g


class BranchesOn(Mine):
    """Goes slower in the lanes whose learning rate, seen through a function, is large."""

    def __init__(self, parameters, lr=0.05, *, seen):
        super().__init__(parameters, lr)
        self.seen = seen

    def update(self, p, g, state):
        return g * (0.5 if self.seen(self.param_groups[0]["lr"]) else 1)


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (lambda lr: abs(lr) > 0.08, "it branches on a hyperparameter"),
        (lambda lr: +lr > 0.08, "it branches on a hyperparameter"),
        (lambda lr: lr % 1 > 0.08, "it reads a hyperparameter"),
        (lambda lr: 1 % lr > 0.01, "it reads a hyperparameter"),
        (lambda lr: 100 * lr // 1 > 8, "it reads a hyperparameter"),
        (lambda lr: divmod(lr, 0.08)[0] > 0, "it reads a hyperparameter"),
        (lambda lr: round(lr, 2) > 0.08, "it reads a hyperparameter"),
        (lambda lr: int(100 * lr) > 8, "it reads a hyperparameter"),
        (lambda lr: math.trunc(100 * lr) > 8, "it reads a hyperparameter"),
        (lambda lr: math.floor(100 * lr) > 8, "it reads a hyperparameter"),
        (lambda lr: math.ceil(100 * lr) > 8, "it reads a hyperparameter"),
        (lambda lr: math.sqrt(lr) > math.sqrt(0.08), "a lane stepped by itself moves otherwise"),
        (lambda lr: math.log(lr) > math.log(0.08), "a lane stepped by itself moves otherwise"),
    ],
)
def test_a_lane_that_alone_takes_another_branch_is_stepped_by_itself_and_says_so(seen, why):
    """The first lane does not: a run as short as the lanes are many is enough to see it."""
    small_but_one = [delta("learning_rate", m) for m in (-0.5, -0.8, 0.3, -0.3, 1.0)]
    setup = bowl(partial(BranchesOn, seen=seen), steps=5)
    way, reason = stepped(assert_equal_the_loop(setup, small_but_one))
    assert way == PER_LANE
    assert f"one optimizer over stacked lanes was refused: {why}" in reason


def test_the_bits_of_a_run_do_not_depend_on_the_hyperparameters_beside_it():
    for optimizer in (torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9), Lamb):
        setup = bowl(optimizer, steps=20)
        deltas = [IDENTITY, *RATES, *(CHANGES if optimizer is not Lamb else [])]
        together = ac.run(setup, deltas, backend="lanes")
        alone = [ac.run(setup, [one], backend="lanes") for one in deltas]
        np.testing.assert_array_equal(together.base, np.concatenate([one.base for one in alone]))
        assert [run.reason for run in together.runs] == [run.reason for one in alone for run in one.runs]


def test_factories_that_differ_in_more_than_numbers_are_each_called_for_their_lane():
    """What an optimizer keeps outside of its options is not among the numbers that lanes may differ by."""
    kinds = pt.custom("kept", keep_rate, max_magnitude=1.0)
    one = find(kinds, lambda d: d.magnitude > 0)
    way, why = stepped(assert_equal_the_loop(bowl(KeepsRate, steps=8), [one, one.at(0.5), one.at(0.25)]))
    assert way == PER_LANE
    assert "its state.kept is" in why


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9), Lamb, Items], ids=str)
def test_setups_that_differ_in_their_hyperparameters_share_batches(optimizer):
    setup = bowl(partial(optimizer, lr=0.01), steps=10)
    half = replace(setup, optimizer=partial(optimizer, lr=0.005), scheduler=partial(schedules.StepLR, step_size=3))
    parts = [Part(one, seeds=range(4)) for one in (setup, half, replace(setup, optimizer=partial(optimizer, lr=0.02)))]
    together, loops = (run_parts(parts, device="cpu", backend=backend, planned=0) for backend in ("auto", "loop"))
    assert {run.backend for one in together for run in one.runs} == {"lanes"}
    for mine, oracle in zip(together, loops, strict=True):
        np.testing.assert_allclose(mine.base, oracle.base, rtol=1e-8)
        assert [end.learning_rate for end in mine.end] == [end.learning_rate for end in oracle.end]


class CountsInGroup(Mine):
    """Counts its steps among its options, and lets its learning rate decay by itself."""

    def __init__(self, parameters, lr=0.05):
        super().__init__(parameters, lr, k=0)

    def update(self, p, g, state):
        return g / (1 + 0.01 * self.param_groups[0]["k"])

    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            group["k"] += 1
            group["lr"] *= 0.99


def test_an_optimizer_that_moves_its_own_options_is_stepped_stacked_with_those_of_each_lane():
    assert stepped(assert_equal_the_loop(bowl(CountsInGroup), RATES)) == (STACKED, None)
    half = partial(schedules.StepLR, step_size=30)
    assert stepped(assert_equal_the_loop(bowl(CountsInGroup), seeds=SEEDS)) == (STACKED, None)
    way, _ = stepped(assert_equal_the_loop(bowl(CountsInGroup, scheduler=half), RATES))
    assert way == PER_LANE  # what the schedule of a lane starts from has been moved by its steps


def test_a_mistake_in_flattening_is_reported(monkeypatch):
    def mistaken(*_):
        raise KeyError("a row")

    monkeypatch.setattr(stacked, "Rows", mistaken)
    way, reason = stepped(assert_equal_the_loop(bowl(Mine, steps=5), seeds=SEEDS))
    assert way != "loop"
    assert "one optimizer over flattened lanes was refused: 'a row'" in reason


class KeepsRate(Mine):
    def __init__(self, parameters, kept=0.5):
        super().__init__(parameters)
        self.kept = kept

    def update(self, p, g, state):
        return g * self.kept


def keep_rate(realization, magnitude, generator):
    return replace(realization, optimizer=partial(KeepsRate, kept=magnitude))


class LastMade(Mine):
    """Takes the learning rate of whichever optimizer was made last."""

    lr = 0.0

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr)
        type(self).lr = lr

    def update(self, p, g, state):
        return g * type(self).lr


def test_optimizers_that_share_a_number_through_their_class_go_through_the_loop():
    rates = pt.custom("rate", change_rate, max_magnitude=1.0)
    setup = bowl(partial(LastMade, lr=0.05), steps=8)
    changed = find(rates, lambda d: d.magnitude > 0)
    way, why = stepped(assert_equal_the_loop(setup, [changed, changed.at(0.5)], seeds=range(8), backend="auto"))
    assert (way, why) == ("loop", "the optimizer changes LastMade.lr, which all lanes share")


def change_rate(realization, magnitude, generator):
    return replace(realization, optimizer=partial(LastMade, lr=0.05 * (1 + magnitude)))
