"""One lane of a batch, stepped by itself beside it: whatever the batch's way of stepping is, it has to agree.

The lane is another one every few steps, and takes over the state that the batch has for it, after the state of the lane
before it was found to agree. Where lanes have hyperparameters of their own, it is another one at every step until each
was followed once: one lane alone may be on the other side of a branch. So what treats all lanes alike but wrongly (it
looks at shapes, at the number of elements) is seen at the first step where it matters, and what no step has shown yet
is seen in the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from weakref import WeakMethod

import torch
from torch import Tensor
from torch.optim import Optimizer

from alignment_checks.backends.stepping.aligned import Aligned
from alignment_checks.backends.stepping.foreach import is_narrow
from alignment_checks.backends.stepping.hyperparameters import Hyperparameters
from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.backends.stepping.single import Gradient, Single, flat, lane_of
from alignment_checks.backends.stepping.state import Pair, paired
from alignment_checks.setups.realization import Realization

State = tuple[object, Mapping[str, Tensor]]
"""What a way of stepping keeps, and its parameters by name, as they occur in it: stacked."""

WINDOW = 16
"""Steps that one lane is followed for. Longer is cheaper; shorter looks at more lanes."""


class Audit:
    """A lane that is followed.

    Parameters
    ----------
    run : Realization
        Whose factories make its optimizer and scheduler.
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        The stacked parameters that the audited way moves.
    state : callable, optional
        Within `state()` is what the audited way keeps; None where the lane is not to change, but stays the first.
    own : Hyperparameters, optional
        The lanes' own, where they have some: the followed lane's are put into its optimizer, which has no scheduler.
    """

    def __init__(
        self,
        run: Realization,
        weights: Mapping[str, Tensor],
        state: Callable[[], AbstractContextManager[State]] | None,
        own: Hyperparameters | None = None,
    ) -> None:
        self.weights, self.own = weights, own
        self._state = None if state is None else WeakMethod(state)  # of the way that has this audit
        self.lanes = len(next(iter(weights.values())))
        self.lane, self.taken = 0, 0
        self.sweep = 0 if own is None else self.lanes
        self.single = Single(run, {name: value[0] for name, value in weights.items()}, scheduled=own is None)
        self.at: Callable[[int], Tensor] = partial(flat, weights)
        self.here = self.at(0).clone()
        # of narrow numbers another rounding of the last bit could not be told from another step
        narrow = state is not None and any(map(is_narrow, weights.values()))
        self.alike: Callable[[], AbstractContextManager[object]] = Aligned if narrow else nullcontext
        self.wrong, self.other = torch.zeros(2, dtype=torch.bool, device=self.here.device)
        self.gradient: Gradient = {}

    @property
    def state(self) -> Callable[[], AbstractContextManager[State]] | None:
        """Within `state()` is what the audited way keeps; None where it keeps nothing that could be taken over."""
        return None if self._state is None else self._state()

    def begin(self, optimizer: Optimizer) -> None:
        """Put the hyperparameters that lanes have of their own into the audited optimizer, and one lane's."""
        if self.own is not None:
            self.own.put(optimizer)
            self.own.put_lane(self.single.optimizer, self.lane, self.own.own)
            self.optimizer = optimizer

    def advance(self, optimizer: Optimizer, losses: Tensor) -> None:
        """Move the hyperparameters that lanes have of their own as their schedules do."""
        if self.own is not None:
            changed = self.own.advance(losses, optimizer)
            self.own.put(optimizer, changed)
            self.own.put_lane(self.single.optimizer, self.lane, changed)

    def before(self, gradient: Gradient) -> None:
        """Keep the followed lane's gradient, which the batch's step may write into."""
        self.gradient = lane_of(gradient, self.lane)

    def after(self, loss: float | None = None) -> None:
        """Step the followed lane and compare. Nothing is read back from the device, except at the end of a window.

        Its loss is given where its scheduler looks at it. Until each lane of other hyperparameters was followed once, a
        window is one step.
        """
        with self.alike():
            self.single.step(self.gradient, loss)
        there, own = self.at(self.lane), flat(self.single.parameters)
        if _same(there, own):
            self.here = own
        else:
            self.wrong |= _differ(there, own, (there - self.here).abs().amax()).any()
            self.here = there.clone()
        self.taken += 1
        if self.taken % WINDOW == 0 or (self.taken <= self.sweep and self.here.device.type == "cpu"):
            self.settle()
            self.rotate()
        elif self.taken <= self.sweep:
            self.compare()
            self.rotate()

    def settle(self) -> None:
        """Raise `StepRefused` if the followed lane has not agreed at every step, or its state does not."""
        if bool(self.wrong):
            raise StepRefused("a lane stepped by itself moves otherwise")
        if self.taken:
            self.compare()
        if bool(self.other):
            raise StepRefused("the state of a lane stepped by itself is another")

    def compare(self) -> None:
        """Compare the followed lane's state with its part of the batch's, without reading it back from the device."""
        for source, target in self.pairs():
            if not _same(source, target):
                self.other |= _differ(source, target, _largest(target)).any().to(self.other.device)

    def pairs(self) -> list[Pair]:
        """Return each tensor of the audited state, the followed lane's part, beside the follower's own."""
        if self.state is None:
            return []
        mine = (self.single.optimizer, self.single.scheduler)
        with self.state() as (kept, parameters):
            known = {id(parameters[name]): id(own) for name, own in self.single.parameters.items()}
            pairs = paired(kept, mine, known, self.lane)
            return [(self.part(source, target), target) for source, target in pairs]

    def part(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the followed lane's part of a tensor of the audited state, all of it if no lane has its own."""
        if source.shape == (self.lanes, *target.shape):
            return source[self.lane]
        if source.shape == target.shape:
            return source
        raise StepRefused(f"its state has shape {tuple(source.shape)} where a lane by itself has {tuple(target.shape)}")

    def rotate(self) -> None:
        """Follow another lane from here on: take over its weights, its state and its hyperparameters."""
        if self.state is None:
            return
        self.lane = (self.lane + 1) % self.lanes
        if self.own is not None:
            self.own.take_over(self.optimizer, self.single.optimizer, self.lane)
        with torch.no_grad():
            for name, own in self.single.parameters.items():
                own.copy_(self.weights[name][self.lane])
            for source, target in self.pairs():
                target.copy_(source)
        self.here = self.at(self.lane).clone()


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are seen to be the same bits: a CPU tells it at once, another device would wait."""
    return a.device.type == "cpu" and torch.equal(a, b)


def _largest(value: Tensor) -> Tensor | float:
    return value.abs().amax() if value.numel() else 0.0


def _differ(a: Tensor, b: Tensor, moved: Tensor | float) -> Tensor:
    """Return where two vectors differ by more than the rounding of a step of this size."""
    if not a.is_floating_point():
        return a != b
    resolution = torch.finfo(a.dtype).eps
    bound = resolution**0.75 * moved + 2 * WINDOW * resolution * b.abs()
    differs: Tensor = ((a - b).abs() > bound) | (a.isfinite() != b.isfinite())
    return differs
