"""A batch of lanes and the way that each of its groups is stepped, fastest first: stacked, vmapped, per lane.

Every way is guarded at every step, and says why it cannot go on: `StepRefused`. Then the batch is trained again from
t = 0 in the next way. No optimizer is known by name, and no probe at the start would do: an optimizer may couple
lanes at its thirtieth step, or only when a norm passes 50.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Protocol

from torch import Tensor

from alignment_checks.backends.job import needs_closure
from alignment_checks.backends.stepping.outside import Outside
from alignment_checks.backends.stepping.per_lane import PerLane
from alignment_checks.backends.stepping.refusal import Refused, StepRefused, first_line, is_out_of_memory
from alignment_checks.backends.stepping.single import Gradient, Single
from alignment_checks.backends.stepping.stacked import Stacked
from alignment_checks.backends.stepping.vmapped import Vmapped
from alignment_checks.realization import Realization


class Way(StrEnum):
    """A way of stepping lanes, in the words of a reason."""

    STACKED = "one optimizer over stacked lanes"
    VMAPPED = "vmap over optimizer.step()"
    PER_LANE = "one optimizer for each lane"


class _Steps(Protocol):
    """What moves the stacked weights of some lanes."""

    def step(self, gradient: Gradient, losses: Tensor) -> None: ...

    def settle(self) -> None: ...

    def learning_rates(self) -> list[tuple[float, ...]]: ...


_MADE: Mapping[Way, Callable[[Sequence[Realization], Mapping[str, Tensor]], _Steps]] = {
    Way.STACKED: Stacked,
    Way.VMAPPED: Vmapped,
    Way.PER_LANE: PerLane,
}


class Stepper:
    """Moves the stacked weights of a batch: lanes of equal factories together, each group in the given way.

    Parameters
    ----------
    runs : sequence of Realization
        One for each lane, those of equal factories side by side.
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        Moved in place.
    way : Way
        What is tried. A group of one lane, or one whose scheduler looks at the loss, is stepped lane by lane.
    unused : sequence of str
        Parameters that the loss does not use: an optimizer sees no gradient of them.

    Raises
    ------
    StepRefused
        If the optimizers cannot be stepped in this way; by any method.
    Refused
        If they can be in none.
    """

    def __init__(
        self, runs: Sequence[Realization], weights: Mapping[str, Tensor], way: Way, unused: Sequence[str] = ()
    ) -> None:
        self.unused, self.taken = frozenset(unused), 0
        with _reported(way):
            self.outside, self.groups = _grouped(runs, weights, way)

    def step(self, gradient: Mapping[str, Tensor], losses: Tensor) -> None:
        """Move the weights of all lanes by one step, given their gradients and losses at θ(t)."""
        for group in self.groups:
            lanes = group.lanes
            used = {name: None if name in self.unused else g[lanes] for name, g in gradient.items()}
            with _reported(group.way), self.outside.blamed():
                group.steps.step(used, losses[lanes])
        with _reported(self.groups[0].way):
            self.outside.check()
            if self.taken == 0:
                self.outside.check_random()
        self.taken += 1

    def settle(self) -> None:
        """Raise `StepRefused` if any step was seen to be wrong. To be called after the last one."""
        with _reported(self.groups[0].way):
            self.outside.check_random()
        for group in self.groups:
            with _reported(group.way):
                group.steps.settle()

    def learning_rates(self) -> list[tuple[float, ...]]:
        """Return the learning rate of each parameter group, for each lane."""
        return [rates for group in self.groups for rates in group.steps.learning_rates()]

    def notes(self) -> list[str | None]:
        """Return, for each lane, why it is not stepped in the way that was asked for."""
        return [group.note for group in self.groups for _ in range(group.lanes.stop - group.lanes.start)]


@dataclass(frozen=True, eq=False)
class _Group:
    """Consecutive lanes that are stepped together."""

    lanes: slice
    way: Way
    steps: _Steps
    note: str | None


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which lanes are to be stepped how, and why so."""

    runs: list[Realization]
    way: Way
    note: str | None

    def followed_by(self, other: _Plan) -> bool:
        """Return whether the next lanes can be stepped in one go with these."""
        return self.way is other.way is Way.PER_LANE and self.note == other.note


def _grouped(runs: Sequence[Realization], weights: Mapping[str, Tensor], way: Way) -> tuple[Outside, list[_Group]]:
    alike = [list(group) for _, group in groupby(runs, key=lambda run: (run.optimizer, run.scheduler))]
    start = {name: value[0] for name, value in weights.items()}
    probes = [Single(group[0], start) for group in alike]
    outside = Outside(*(owner for probe in probes for owner in (probe.optimizer, probe.scheduler)))
    plans = [_plan(group, probe, way, alone=len(runs) == 1) for group, probe in zip(alike, probes, strict=True)]
    groups, first = [], 0
    for plan in _merged(plans):
        lanes = slice(first, first + len(plan.runs))
        parts = {name: value.detach()[lanes] for name, value in weights.items()}
        with _reported(plan.way):
            groups.append(_Group(lanes, plan.way, _MADE[plan.way](plan.runs, parts), plan.note))
            outside.check()
        first = lanes.stop
    return outside, groups


def _plan(runs: list[Realization], probe: Single, way: Way, *, alone: bool) -> _Plan:
    if needs_closure(probe.optimizer):
        name = type(probe.optimizer).__name__
        raise Refused(f"{name} is given a closure, to evaluate the loss of its run again within a step")
    if probe.looks_at_loss:
        return _Plan(runs, Way.PER_LANE, _why("the scheduler looks at the loss"))
    if len(runs) == 1:
        return _Plan(runs, Way.PER_LANE, None if alone else _why("no other lane of the batch has its hyperparameters"))
    return _Plan(runs, way, None)


def _why(reason: str) -> str:
    return f"stepped by {Way.PER_LANE}: {reason}"


def _merged(plans: list[_Plan]) -> list[_Plan]:
    merged: list[_Plan] = []
    for plan in plans:
        if merged and merged[-1].followed_by(plan):
            merged[-1] = _Plan(merged[-1].runs + plan.runs, plan.way, plan.note)
        else:
            merged.append(plan)
    return merged


@contextmanager
def _reported(way: Way) -> Iterator[None]:
    """Turn whatever a way of stepping raises into a refusal: a slower way may do, and if none does, the loop raises."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        slower = way is not Way.PER_LANE and (isinstance(error, StepRefused) or not isinstance(error, Refused))
        raise (StepRefused if slower else Refused)(first_line(error)) from error
