"""One run stepped by itself, as the loop steps it: its own optimizer over its own parameters."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.setups.realization import Realization

Gradient = Mapping[str, Tensor | None]
"""By parameter name; None where the loss does not use the parameter, which an optimizer treats unlike zero."""


class Single:
    """An optimizer over one lane's own parameters, and its scheduler, unless that is stepped elsewhere.

    Its state is held in a dict of the type `state`, where one is given.
    """

    def __init__(
        self,
        run: Realization,
        start: Mapping[str, Tensor],
        *,
        scheduled: bool = True,
        state: type[defaultdict[Any, Any]] | None = None,
    ) -> None:
        self.parameters = {name: nn.Parameter(value.detach().clone()) for name, value in start.items()}
        self.optimizer: Optimizer = run.optimizer(list(self.parameters.values()))
        if state is not None:
            self.optimizer.state = state(dict, self.optimizer.state)
        self.scheduler: Any = run.scheduler(self.optimizer) if run.scheduler and scheduled else None
        self.looks_at_loss = self.scheduler is not None and must_be_given(self.scheduler.step)

    def step(self, gradient: Gradient, loss: float | None = None) -> None:
        """Take one step; `loss` is for a scheduler that looks at it."""
        for name, parameter in self.parameters.items():
            parameter.grad = gradient[name]
        self.optimizer.step()
        self.schedule(loss)

    def schedule(self, loss: float | None = None) -> None:
        """Take the scheduler's part of a step."""
        if self.scheduler is not None:
            self.scheduler.step(*[loss] if self.looks_at_loss else [])

    def learning_rates(self) -> tuple[float, ...]:
        """Return the learning rate of each parameter group."""
        return learning_rates(self.optimizer)


def lane_of(gradient: Gradient, lane: int) -> dict[str, Tensor | None]:
    """Return a copy of one lane's part of a stacked gradient: a step may write into its own."""
    return {name: None if g is None else g[lane].clone() for name, g in gradient.items()}


def flat(values: Mapping[str, Tensor], lane: int | None = None) -> Tensor:
    """Return one lane's tensors, all of `values` where `lane` is None, as one vector."""
    chosen = values.values() if lane is None else (value[lane] for value in values.values())
    return torch.cat([value.detach().reshape(-1) for value in chosen])


def learning_rates(optimizer: Optimizer) -> tuple[float, ...]:
    """Return the learning rate of each parameter group, NaN where it has none."""
    return tuple(float(group.get("lr", float("nan"))) for group in optimizer.param_groups)


def must_be_given(method: Callable[..., object]) -> bool:
    """Return whether a scheduler's `step` has to be given an argument: the loss."""
    return any(map(_is_required, inspect.signature(method).parameters.values()))


def needs_closure(optimizer: Optimizer) -> bool:
    """Return whether an optimizer's `step` has to be given a closure.

    The class is asked, since a scheduler puts a wrapper of another signature on the instance.
    """
    return any(map(_is_required, list(inspect.signature(type(optimizer).step).parameters.values())[1:]))


def _is_required(parameter: inspect.Parameter) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind in kinds
