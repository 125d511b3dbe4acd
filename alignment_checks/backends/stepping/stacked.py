"""Stacked: one optimizer over the stacked parameters steps all lanes at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.backends.job import learning_rates
from alignment_checks.backends.stepping.refusal import Refused
from alignment_checks.objectives import Tensors
from alignment_checks.realization import Realization

ELEMENTWISE = frozenset(
    {
        torch.optim.ASGD,
        torch.optim.Adadelta,
        torch.optim.Adagrad,
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.Adamax,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.RMSprop,
        torch.optim.Rprop,
        torch.optim.SGD,
    }
)
"""Optimizers whose step treats each element alone: stacking lanes does not couple them. Exact types, not subclasses."""


class Stacked:
    """One optimizer, and its scheduler, over the stacked parameters of runs that train by the same factories."""

    def __init__(self, run: Realization, lanes: int, weights: Mapping[str, nn.Parameter]) -> None:
        self.weights, self.lanes = weights, lanes
        self.optimizer = _optimizer(run, list(weights.values()))
        self.scheduler = run.scheduler(self.optimizer) if run.scheduler else None

    def step(self, gradient: Tensors, losses: Tensor) -> None:  # noqa: ARG002
        """Move the weights of all lanes by one step, given their gradients and losses at θ(t)."""
        for name, parameter in self.weights.items():
            parameter.grad = gradient[name]
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def learning_rates(self) -> list[tuple[float, ...]]:
        """Return the learning rate of each parameter group, for each lane."""
        return [learning_rates(self.optimizer)] * self.lanes


def _optimizer(run: Realization, stacked: list[nn.Parameter]) -> Optimizer:
    """Return one optimizer over the stacked parameters, having seen that its factory treats them as one lane's.

    A factory may look at shapes (no weight decay on vectors), and stacking adds an axis.
    """
    optimizer = run.optimizer(stacked)
    single = [nn.Parameter(value.clone()) for value in run.parameters.values()]
    if _groups(optimizer, stacked) != _groups(run.optimizer(single), single):
        raise Refused("the optimizer's factory looks at the shapes of the parameters")
    return optimizer


def _groups(optimizer: Optimizer, parameters: list[nn.Parameter]) -> list[tuple[list[int], str]]:
    position = {id(parameter): index for index, parameter in enumerate(parameters)}
    return [
        ([position[id(p)] for p in group["params"]], repr({k: v for k, v in group.items() if k != "params"}))
        for group in optimizer.param_groups
    ]
