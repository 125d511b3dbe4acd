"""Stacked: one optimizer over the stacked parameters steps all lanes at once, while it treats each element alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.backends.plan import ROWS
from alignment_checks.backends.stepping.audit import Audit, State
from alignment_checks.backends.stepping.gathered import gathered, grouped_alike
from alignment_checks.backends.stepping.hyperparameters import hyperparameters_of
from alignment_checks.backends.stepping.numbers import AsColumns, of_lanes
from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.backends.stepping.rows import Rows, are_one_group
from alignment_checks.backends.stepping.single import Gradient, Single, learning_rates
from alignment_checks.backends.stepping.watch import PointwiseOnly
from alignment_checks.setups.realization import Realization


class Stacked:
    """One optimizer, and its scheduler, over the stacked parameters of runs.

    Where they have factories of their own, or a scheduler that looks at the loss, the optimizer has the numbers of
    all lanes among its options, and each lane a scheduler.

    Parameters
    ----------
    runs : sequence of Realization
        Alike in `options_of`.
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        Moved in place.
    unused : collection of str
        Those that never have a gradient.
    """

    aligned = False
    scheduler: Any = None

    def __init__(
        self, runs: Sequence[Realization], weights: Mapping[str, Tensor], unused: Collection[str] = ()
    ) -> None:
        self.weights, self.lanes, self.unused = weights, len(runs), unused
        self.own = hyperparameters_of(runs, weights)
        some = next(iter(weights.values()))
        self.watch = PointwiseOnly(
            *[] if self.own is None else [AsColumns()], aligned=self.aligned or some.device.type != "cpu"
        )
        self.audit = Audit(runs[0], weights, self.state, self.own)
        self.optimizer, shared = self.made(runs), runs[0].scheduler if self.own is None else None
        with self.watch:
            self.scheduler = shared(self.optimizer) if shared else None
        self.audit.begin(self.optimizer)

    def made(self, runs: Sequence[Realization]) -> Optimizer:
        """Return an optimizer over the stacked parameters: of one lane's, where its factory looks at their shapes."""
        parameters = self.laid_out()
        with self.watch:
            self.optimizer = runs[0].optimizer(parameters)
        single = self.audit.single
        if single.scheduler is not None:  # which has options of its own in each group
            single = Single(runs[0], single.parameters, scheduled=False)
        with self.state() as (_, stacked):
            alike = grouped_alike(self.optimizer, stacked, single.optimizer, single.parameters)
        return self.optimizer if alike else self.gathered(runs)

    def gathered(self, runs: Sequence[Realization]) -> Optimizer:
        """Return one lane's optimizer, over the stacked parameters."""
        first = gathered(runs, self.weights, self.own)
        self.parameters = first.parameters
        return first.optimizer

    def laid_out(self) -> list[nn.Parameter]:
        """Return the parameters that the optimizer is over."""
        self.parameters = {name: nn.Parameter(value) for name, value in self.weights.items()}
        return list(self.parameters.values())

    @contextmanager
    def state(self) -> Iterator[State]:
        """Give what is kept, as an optimizer over the stacked parameters keeps it, and these."""
        yield (self.optimizer, self.scheduler), self.parameters

    def step(self, gradient: Gradient, losses: Tensor) -> None:
        """Move the weights of all lanes by one step, given their gradients and losses at θ(t)."""
        self.give(gradient)
        with self.watch:
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
        self.take()
        self.audit.after()
        self.audit.advance(self.optimizer, losses)

    def give(self, gradient: Gradient) -> None:
        """Leave the gradient in the parameters, and one lane's with its audit."""
        self.audit.before(gradient)
        for name, parameter in self.parameters.items():
            parameter.grad = gradient[name]

    def take(self) -> None:
        """Copy the weights of an optimizer that has put others into its parameters."""
        for name, parameter in self.parameters.items():
            if parameter.data_ptr() != self.weights[name].data_ptr():
                with torch.no_grad():
                    self.weights[name].copy_(parameter)

    def settle(self) -> None:
        """Raise `StepRefused` if it was seen not to agree with a lane stepped by itself."""
        self.audit.settle()

    def learning_rates(self) -> list[tuple[float, ...]]:
        """Return the learning rate of each parameter group, for each lane."""
        if self.own is None:
            return [learning_rates(self.optimizer)] * self.lanes
        rates = [of_lanes(group.get("lr", math.nan), self.lanes) for group in self.optimizer.param_groups]
        return list(zip(*rates, strict=True))


class Flattened(Stacked):
    """Stacked, all parameters of a lane as one row: an operation is one call, however many parameters there are.

    Raises
    ------
    StepRefused
        If an optimizer of one lane has its parameters in several groups, or keeps them elsewhere too.
    """

    aligned = True

    def __init__(
        self, runs: Sequence[Realization], weights: Mapping[str, Tensor], unused: Collection[str] = ()
    ) -> None:
        super().__init__(runs, weights, unused)
        self.audit.pairs()
        if not self.unused:
            self.audit.at = self.rows.row

    def gathered(self, runs: Sequence[Realization]) -> Optimizer:  # noqa: ARG002
        raise StepRefused("the optimizer's factory looks at the shapes of the parameters")

    def laid_out(self) -> list[nn.Parameter]:
        single = self.audit.single
        if not are_one_group(single.optimizer, list(single.parameters.values())):
            raise StepRefused("the optimizer has several groups of parameters, or parameters of several dtypes")
        some = next(iter(self.weights.values()))
        if some.device.type == "cpu" and sum(value.nbytes for value in self.weights.values()) > ROWS:
            raise StepRefused("as rows the parameters do not stay in the cache")
        self.rows = Rows(self.weights, self.unused)
        return self.rows.parameters

    @contextmanager
    def state(self) -> Iterator[State]:
        with self.rows.unfolded(self.optimizer) as views:
            yield (self.optimizer, self.scheduler), views

    def give(self, gradient: Gradient) -> None:
        self.audit.before(gradient)
        self.rows.parameter.grad = self.rows.joined({name: g for name, g in gradient.items() if g is not None})

    def take(self) -> None:
        self.rows.write()


def flattened(runs: Sequence[Realization], weights: Mapping[str, Tensor], unused: Collection[str] = ()) -> Stacked:
    """Return lanes flattened, where they can be before anything is trained; else stacked parameter by parameter."""
    try:
        return Flattened(runs, weights, unused)
    except StepRefused:
        return Stacked(runs, weights, unused)


def wide(runs: Sequence[Realization], weights: Mapping[str, Tensor], unused: Collection[str] = ()) -> Stacked:
    """Return the lanes of several batches flattened.

    Rows are aligned, so that no element of one is computed otherwise for how many rows there are.

    Raises
    ------
    StepRefused
        If they cannot be flattened, or have options of their own: then an audit follows each lane once, at the start.
    """
    steps = Flattened(runs, weights, unused)
    if steps.own is not None:
        raise StepRefused("lanes have options of their own")
    return steps
