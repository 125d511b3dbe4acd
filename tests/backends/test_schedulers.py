"""Schedulers in lanes: each lane has its own schedule, whatever that looks at."""

import inspect
from functools import partial

import pytest
import torch
from cases.stepping import (
    CHANGES,
    PER_LANE,
    RATES,
    SEEDS,
    STACKED,
    VMAPPED,
    Clipping,
    Lamb,
    Mine,
    assert_equal_the_loop,
    bowl,
    named,
    stepped,
)
from torch.optim import lr_scheduler as schedules

# -------------------------------------------------------------------------------------------------------- schedulers


def chained(optimizer):
    return schedules.ChainedScheduler(
        [schedules.ConstantLR(optimizer, 0.5, total_iters=3), schedules.ExponentialLR(optimizer, 0.9)]
    )


def sequential(optimizer):
    parts = [schedules.LinearLR(optimizer, 0.1, total_iters=4), schedules.CosineAnnealingLR(optimizer, 6)]
    return schedules.SequentialLR(optimizer, parts, milestones=[4])


SCHEDULERS = {
    schedules.LambdaLR: partial(schedules.LambdaLR, lr_lambda=lambda t: 1 / (1 + t)),
    schedules.MultiplicativeLR: partial(schedules.MultiplicativeLR, lr_lambda=lambda t: 0.9),
    schedules.StepLR: partial(schedules.StepLR, step_size=2),
    schedules.MultiStepLR: partial(schedules.MultiStepLR, milestones=[2, 5]),
    schedules.ConstantLR: partial(schedules.ConstantLR, total_iters=3),
    schedules.LinearLR: schedules.LinearLR,
    schedules.ExponentialLR: partial(schedules.ExponentialLR, gamma=0.8),
    schedules.SequentialLR: sequential,
    schedules.PolynomialLR: partial(schedules.PolynomialLR, total_iters=8, power=2.0),
    schedules.CosineAnnealingLR: partial(schedules.CosineAnnealingLR, T_max=4),
    schedules.ChainedScheduler: chained,
    schedules.ReduceLROnPlateau: partial(schedules.ReduceLROnPlateau, patience=0, threshold=0.05, factor=0.5),
    schedules.CyclicLR: partial(schedules.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=3),
    schedules.CosineAnnealingWarmRestarts: partial(schedules.CosineAnnealingWarmRestarts, T_0=3),
    schedules.OneCycleLR: partial(schedules.OneCycleLR, max_lr=0.1, total_steps=12),
}


def test_every_scheduler_of_torch_is_tried():
    found = {c for c in vars(schedules).values() if inspect.isclass(c) and issubclass(c, schedules.LRScheduler)}
    bases = {schedules.LRScheduler, schedules._LRScheduler}
    assert SCHEDULERS.keys() == found - bases


@pytest.mark.parametrize("cls", SCHEDULERS, ids=named)
def test_any_scheduler_goes_through_lanes(cls):
    for optimizer in (partial(torch.optim.SGD, lr=0.05, momentum=0.9), Clipping):
        if optimizer is Clipping and cls is schedules.CyclicLR:
            continue  # it cycles a momentum, which this optimizer has not
        trajectory = assert_equal_the_loop(bowl(optimizer, steps=10, scheduler=SCHEDULERS[cls]), seeds=SEEDS)
        assert {run.backend for run in trajectory.runs} == {"lanes"}


def test_a_scheduler_that_looks_at_the_loss_is_given_each_lanes_own():
    reduced = partial(schedules.ReduceLROnPlateau, patience=0, threshold=0.01, factor=0.5)
    setup = bowl(partial(torch.optim.SGD, lr=0.1), scheduler=reduced, steps=8)
    trajectory = assert_equal_the_loop(setup, seeds=SEEDS)
    assert stepped(trajectory) == (STACKED, None)
    assert len({end.learning_rate for end in trajectory.end}) > 1


def test_a_scheduler_that_looks_at_the_parameters_sees_those_of_each_lane():
    way, _ = stepped(assert_equal_the_loop(bowl(torch.optim.SGD, scheduler=Largest, steps=10), seeds=SEEDS))
    assert way == PER_LANE


# ------------------------------------------------------------------------- different hyperparameters in one batch


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, Mine, Lamb], ids=named)
def test_each_lane_has_the_schedule_of_its_own_rate(optimizer):
    for scheduler in (
        partial(schedules.StepLR, step_size=2),
        partial(schedules.ReduceLROnPlateau, patience=0, threshold=0.05, factor=0.5),
        partial(schedules.OneCycleLR, max_lr=0.1, total_steps=12, cycle_momentum=False),
    ):
        setup = bowl(optimizer, steps=10, scheduler=scheduler)
        way, _ = stepped(assert_equal_the_loop(setup, RATES))
        assert way == (VMAPPED if optimizer is Lamb else STACKED)


class Largest(schedules.LRScheduler):
    """Divides by the largest element of the parameters."""

    def get_lr(self):
        largest = max(float(p.detach().abs().max()) for p in self.optimizer.param_groups[0]["params"])
        return [rate / largest for rate in self.base_lrs]


def shrinking(optimizer):
    """Return a schedule that shrinks the parameters too, by a hook on the optimizer."""
    optimizer.register_step_post_hook(lambda one, *_: [p.data.mul_(0.99) for p in one.param_groups[0]["params"]])
    return schedules.StepLR(optimizer, step_size=2)


class WarmUp:
    """Counts by the steps that the optimizer keeps for its parameters."""

    def __init__(self, optimizer):
        self.optimizer, self.base = optimizer, [group["lr"] for group in optimizer.param_groups]

    def step(self):
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            done = self.optimizer.state[group["params"][0]].get("step", 0)
            group["lr"] = base * min(1.0, (1 + int(done)) / 10)


class WarmUpOfAll(WarmUp):
    """Does not name a parameter, and asks whether there is any state."""

    def step(self):
        done = max((int(kept.get("step", 0)) for kept in self.optimizer.state.values()), default=0)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * min(1.0, (1 + done) / 10)


@pytest.mark.parametrize("scheduler", [WarmUp, WarmUpOfAll], ids=named)
def test_a_schedule_that_looks_at_the_state_is_stepped_with_its_own_lane_and_says_so(scheduler):
    way, reason = stepped(assert_equal_the_loop(bowl(torch.optim.Adam, scheduler=scheduler, steps=20), RATES))
    assert way == PER_LANE
    assert "one optimizer over stacked lanes was refused: its scheduler looks at the optimizer's state" in reason


def test_a_number_that_a_scheduler_overwrites_at_once_is_still_a_lanes_own():
    cyclic = partial(schedules.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=4)
    setup = bowl(partial(torch.optim.SGD, lr=0.05, momentum=0.9), scheduler=cyclic, steps=10)
    assert stepped(assert_equal_the_loop(setup, CHANGES)) == (STACKED, None)


@pytest.mark.parametrize(
    ("scheduler", "why"),
    [(Largest, "its scheduler looks at the parameters"), (shrinking, "its scheduler hooks into the optimizer")],
)
def test_a_schedule_that_looks_beyond_its_numbers_is_stepped_with_its_own_lane_and_says_so(scheduler, why):
    way, reason = stepped(assert_equal_the_loop(bowl(Mine, scheduler=scheduler, steps=20), RATES))
    assert way == PER_LANE
    assert f"one optimizer over stacked lanes was refused: {why}" in reason
