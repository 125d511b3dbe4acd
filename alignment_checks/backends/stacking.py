"""Runs stacked into lanes: their weights, and their loss as one batched function of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from alignment_checks.objectives import Coefficient, Objective, Tensors
from alignment_checks.realization import Realization, model_inputs


@dataclass(frozen=True, eq=False)
class Shared:
    """One tensor for each lane, stacked along axis 0; or, with `dim` None, one tensor that all lanes share."""

    tensor: Tensor
    dim: int | None

    @classmethod
    def of(cls, values: Sequence[Tensor], device: torch.device) -> Shared:
        """Stack the lanes' tensors, or keep one copy where they are all the same object."""
        if len(values) > 1 and all(value is values[0] for value in values):
            return cls(values[0].to(device), None)
        return cls(stack(values, device), 0)

    def at(self, lanes: Tensor | int | None) -> Shared:
        """Return it for other lanes: None for all as they are, one int for a single lane that all share."""
        if lanes is None or self.dim is None:
            return self
        return Shared(self.tensor[lanes], None if isinstance(lanes, int) else 0)


def stack(values: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return the values stacked along a new axis 0, on the device; never a view of any of them."""
    return torch.stack([value.detach() for value in values]).to(device)


@dataclass(frozen=True, eq=False)
class Weights:
    """The state of all lanes: trainable parameters and buffers stacked, frozen parameters shared where they can be."""

    trainable: dict[str, nn.Parameter]
    buffers: dict[str, Tensor]
    frozen: dict[str, Shared]

    @classmethod
    def of(cls, runs: Sequence[Realization], device: torch.device) -> Weights:
        """Stack the weights that the runs start from."""
        changing = {name for name, _ in runs[0].module.named_buffers()}
        first = runs[0]
        return cls(
            {n: nn.Parameter(stack([r.parameters[n] for r in runs], device)) for n in first.parameters},
            {n: stack([r.constants[n] for r in runs], device) for n in first.constants if n in changing},
            {n: Shared.of([r.constants[n] for r in runs], device) for n in first.constants if n not in changing},
        )

    def detached(self) -> dict[str, Tensor]:
        """Return the trainable parameters as plain tensors that share their memory."""
        return {name: parameter.detach() for name, parameter in self.trainable.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """Return a copy of the trainable parameters."""
        return {name: parameter.detach().clone() for name, parameter in self.trainable.items()}

    def at(self, lanes: Tensor | int | None) -> list[dict[str, Shared]]:
        """Return trainable parameters, buffers and frozen parameters of the given lanes."""
        groups = (
            {name: Shared(value, 0) for name, value in self.detached().items()},
            {name: Shared(value, 0) for name, value in self.buffers.items()},
            self.frozen,
        )
        return [{name: value.at(lanes) for name, value in group.items()} for group in groups]


@dataclass(frozen=True, eq=False)
class Batch:
    """The loss of runs alike in structure, one lane each.

    Attributes
    ----------
    lanes : Tensor, int or None
        Whose weights each lane is evaluated at: see `Shared.at`.
    """

    module: nn.Module
    objective: Objective
    data: tuple[Shared, ...] | None
    coefficients: tuple[Tensor, ...]
    lanes: Tensor | int | None

    @classmethod
    def of(cls, runs: Sequence[Realization], device: torch.device, owners: list[int] | None = None) -> Batch:
        """Stack what the runs are evaluated on; `owners` says whose weights each is evaluated at, None its own."""
        first, lanes = runs[0], _selection(owners, device)
        dtype = next(iter(first.parameters.values())).dtype
        columns = zip(*(run.objective.coefficients for run in runs), strict=True)
        coefficients = tuple(torch.tensor(column, dtype=dtype, device=device) for column in columns)
        parts = None if first.data is None else tuple(zip(*(run.data or () for run in runs), strict=True))
        data = None if parts is None else tuple(Shared.of(part, device) for part in parts)
        return cls(first.module, first.objective, data, coefficients, lanes)

    def gradient(self, weights: Weights) -> tuple[Tensors, Tensor, dict[str, Tensor]]:
        """Return, for each lane: the gradient of the loss, the loss, and the buffers after the forward pass."""
        gradient, (loss, buffers) = self._mapped(grad_and_value(self._lane, has_aux=True), weights)
        return gradient, loss.detach(), buffers

    def value(self, weights: Weights) -> Tensor:
        """Return each lane's loss, shape (lanes,)."""
        with torch.no_grad():
            loss: Tensor = self._mapped(self._lane, weights)[0]
            return loss

    def _mapped(self, function: Callable[..., Any], weights: Weights) -> Any:
        groups: list[Mapping[Any, Shared]] = [*weights.at(self.lanes), dict(enumerate(self.data or ()))]
        dims = (*({name: part.dim for name, part in group.items()} for group in groups), (0,) * len(self.coefficients))
        values = [{name: part.tensor for name, part in group.items()} for group in groups]
        return vmap(function, in_dims=dims, randomness="error")(*values, self.coefficients)

    def _lane(
        self,
        trainable: dict[str, Tensor],
        buffers: dict[str, Tensor],
        frozen: dict[str, Tensor],
        data: dict[int, Tensor],
        coefficients: tuple[Coefficient, ...],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return one lane's loss, and its buffers after the forward pass."""
        after = {name: value.clone() for name, value in buffers.items()}
        parts = None if self.data is None else tuple(data.values())
        outputs = functional_call(self.module, {**trainable, **after, **frozen}, model_inputs(parts))
        targets = None if parts is None else parts[-1]
        return self.objective.loss(coefficients)(outputs, targets, trainable), after


def _selection(owners: list[int] | None, device: torch.device) -> Tensor | int | None:
    if owners is None:
        return None
    return owners[0] if len(set(owners)) == 1 else torch.tensor(owners, device=device)
