"""Stacked: one optimizer over the stacked parameters steps all lanes at once, while it treats each element alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.backends.job import learning_rates
from alignment_checks.backends.stepping.audit import Audit
from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.backends.stepping.single import Gradient
from alignment_checks.backends.stepping.watch import PointwiseOnly
from alignment_checks.realization import Realization


class Stacked:
    """One optimizer, and its scheduler, over the stacked parameters of runs that have the same factories.

    Parameters
    ----------
    runs : sequence of Realization
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        Moved in place.
    """

    def __init__(self, runs: Sequence[Realization], weights: Mapping[str, Tensor]) -> None:
        self.weights, self.lanes = weights, len(runs)
        self.parameters = {name: nn.Parameter(value) for name, value in weights.items()}
        self.watch = PointwiseOnly()
        with self.watch:
            self.optimizer = runs[0].optimizer(list(self.parameters.values()))
            self.scheduler = runs[0].scheduler(self.optimizer) if runs[0].scheduler else None
        self.audit = Audit(runs[0], weights, lambda: ((self.optimizer, self.scheduler), self.parameters))
        _check_groups(self.optimizer, self.parameters, self.audit.single.optimizer, self.audit.single.parameters)

    def step(self, gradient: Gradient, losses: Tensor) -> None:  # noqa: ARG002
        """Move the weights of all lanes by one step, given their gradients and losses at θ(t)."""
        self.audit.before(gradient)
        for name, parameter in self.parameters.items():
            parameter.grad = gradient[name]
        with self.watch:
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
        self._follow()
        self.audit.after(_no_loss)

    def _follow(self) -> None:
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
        return [learning_rates(self.optimizer)] * self.lanes


def _no_loss(lane: int) -> float:
    raise StepRefused(f"the scheduler looks at the loss of lane {lane}")


def _check_groups(a: Optimizer, mine: Mapping[str, Tensor], b: Optimizer, single: Mapping[str, Tensor]) -> None:
    """See that the factory treats stacked parameters as one lane's.

    It may look at shapes (no weight decay on vectors), and stacking adds an axis.
    """
    if _groups(a, mine) != _groups(b, single):
        raise StepRefused("the optimizer's factory looks at the shapes of the parameters")


def _groups(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> list[tuple[list[int], str]]:
    position = {id(parameter): index for index, parameter in enumerate(parameters.values())}
    return [
        ([position[id(p)] for p in group["params"]], repr({k: v for k, v in group.items() if k != "params"}))
        for group in optimizer.param_groups
    ]
