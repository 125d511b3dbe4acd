"""A batch of lanes and the way that it is stepped, fastest first: flattened, stacked, vmapped, per lane.

Every way is guarded at every step, and says why it cannot go on: `StepRefused`. Then the batch is trained again from
t = 0 in the next way. No optimizer is known by name, and no probe at the start would do: an optimizer may couple
lanes at its thirtieth step, or only when a norm passes 50.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Protocol

from torch import Tensor

from alignment_checks.backends.stepping.hyperparameters import factories
from alignment_checks.backends.stepping.outside import Outside
from alignment_checks.backends.stepping.per_lane import PerLane
from alignment_checks.backends.stepping.refusal import Refused, StepRefused, first_line, is_broken, is_out_of_memory
from alignment_checks.backends.stepping.single import Gradient, Single, needs_closure
from alignment_checks.backends.stepping.stacked import Stacked, flattened, wide
from alignment_checks.backends.stepping.vmapped import Vmapped
from alignment_checks.setups.realization import Realization


class Way(StrEnum):
    """A way of stepping lanes, in the words of a reason."""

    WIDE = "one optimizer over the flattened lanes of several batches"
    FLATTENED = "one optimizer over flattened lanes"
    STACKED = "one optimizer over stacked lanes"
    VMAPPED = "vmap over optimizer.step()"
    PER_LANE = "one optimizer for each lane"


class _Steps(Protocol):
    """What moves the stacked weights of some lanes."""

    def step(self, gradient: Gradient, losses: Tensor) -> None: ...

    def settle(self) -> None: ...

    def learning_rates(self) -> list[tuple[float, ...]]: ...


_MADE: Mapping[Way, Callable[[Sequence[Realization], Mapping[str, Tensor], Collection[str]], _Steps]] = {
    Way.WIDE: wide,
    Way.FLATTENED: flattened,
    Way.STACKED: Stacked,
    Way.VMAPPED: Vmapped,
}


class Stepper:
    """Moves the stacked weights of a batch in the given way.

    Parameters
    ----------
    runs : sequence of Realization
        One for each lane, alike in `options_of`.
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        Moved in place.
    way : Way
        What is tried. A single lane is stepped by itself.
    unused : sequence of str
        Parameters that the loss does not use: an optimizer sees no gradient of them.
    idle : collection of int
        Lanes that only fill the batch up. They need not be moved: one optimizer for each lane leaves them out.

    Raises
    ------
    StepRefused
        If the optimizers cannot be stepped in this way; by any method.
    Refused
        If they can be in none.
    """

    def __init__(
        self,
        runs: Sequence[Realization],
        weights: Mapping[str, Tensor],
        way: Way,
        unused: Sequence[str] = (),
        idle: Collection[int] = (),
    ) -> None:
        self.way, self.unused, self.taken = way if len(runs) > 1 else Way.PER_LANE, frozenset(unused), 0
        with _reported(self.way):
            self.outside = _outside(runs, weights)
            detached = {name: value.detach() for name, value in weights.items()}
            made = partial(PerLane, idle=idle) if self.way is Way.PER_LANE else _MADE[self.way]
            self.steps = made(runs, detached, self.unused)
            self.outside.check()

    def step(self, gradient: Mapping[str, Tensor], losses: Tensor) -> None:
        """Move the weights of all lanes by one step, given their gradients and losses at θ(t)."""
        used = {name: None if name in self.unused else g for name, g in gradient.items()}
        with _reported(self.way):
            with self.outside.blamed():
                self.steps.step(used, losses)
            self.outside.check()
            if self.taken == 0:
                self.outside.check_random()
        self.taken += 1

    def settle(self) -> None:
        """Raise `StepRefused` if any step was seen to be wrong. To be called after the last one."""
        with _reported(self.way):
            self.outside.check_random()
            self.steps.settle()

    def learning_rates(self) -> list[tuple[float, ...]]:
        """Return the learning rate of each parameter group, for each lane."""
        return self.steps.learning_rates()


def _outside(runs: Sequence[Realization], weights: Mapping[str, Tensor]) -> Outside:
    """Return what the optimizers of these runs share, having made one by each of their factories."""
    start = {name: value[0] for name, value in weights.items()}
    probes = [Single(run, start) for run in {factories(run): run for run in runs}.values()]
    if needs_closure(probes[0].optimizer):
        name = type(probes[0].optimizer).__name__
        raise Refused(f"{name} is given a closure, to evaluate the loss of its run again within a step")
    return Outside(*(owner for probe in probes for owner in (probe.optimizer, probe.scheduler)))


@contextmanager
def _reported(way: Way) -> Iterator[None]:
    """Turn whatever a way of stepping raises into a refusal: a slower way may do, and if none does, the loop raises."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) or is_broken(error):
            raise
        slower = way is not Way.PER_LANE and (isinstance(error, StepRefused) or not isinstance(error, Refused))
        raise (StepRefused if slower else Refused)(first_line(error)) from error
