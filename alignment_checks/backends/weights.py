"""The tensors of many runs as lanes: stacked along axis 0, or one copy that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment_checks.setups.realization import Realization


@dataclass(frozen=True, eq=False)
class Shared:
    """One tensor for each lane, stacked along axis 0; or, with `dim` None, one tensor that all lanes share."""

    tensor: Tensor
    dim: int | None

    @classmethod
    def of(cls, values: Sequence[Tensor], device: torch.device, *, own: bool) -> Shared:
        """Stack the lanes' tensors where each has its own, or they are not one object; else keep one copy."""
        one = not own and all(value is values[0] for value in values)
        return cls(values[0].to(device), None) if one else cls(stack(values, device), 0)

    def at(self, lanes: Tensor | None) -> Shared:
        """Return it for other lanes, by index; None is all as they are."""
        return self if lanes is None or self.dim is None else Shared(self.tensor[lanes], 0)

    def room(self, examples: Tensor) -> Shared:
        """Return memory for the examples of each lane, indices of shape (lanes, size)."""
        each = self.tensor.shape[1 if self.dim is None else 2 :]
        return Shared(self.tensor.new_empty((*examples.shape, *each)), 0)

    def pick(self, examples: Tensor, into: Tensor) -> None:
        """Write the examples of each lane, indices of shape (lanes, size), to memory of shape (lanes, size, ...)."""
        source, which = self.tensor, examples
        if self.dim is not None:
            lanes, each = source.shape[:2]
            source = source.flatten(0, 1)
            which = examples + torch.arange(0, lanes * each, each, device=examples.device)[:, None]
        with torch.no_grad():
            torch.index_select(source, 0, which.flatten(), out=into.flatten(0, 1))

    def cast(self, dtype: torch.dtype | None) -> Shared:
        """Return it in another floating dtype; None leaves it as it is."""
        return self if dtype is None else Shared(cast(self.tensor, dtype), self.dim)

    def span(self, start: int, width: int) -> Tensor:
        """Return so many lanes from one on; where there are fewer, the last of them again."""
        if self.dim is None:
            return self.tensor
        some = self.tensor[start : start + width]
        return some if len(some) == width else torch.cat([some, some[-1:].expand(width - len(some), *some.shape[1:])])


def cast(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return floating-point values in another dtype, others and None as they are."""
    return value if dtype is None or not value.is_floating_point() else value.to(dtype)


def stack(values: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return the values stacked along a new axis 0, on the device; never a view of any of them."""
    return torch.stack([value.detach() for value in values]).to(device)


@dataclass(frozen=True, eq=False)
class Weights:
    """The state of all lanes: trainable parameters and buffers stacked, frozen parameters shared where they can be."""

    trainable: dict[str, Tensor]
    buffers: dict[str, Tensor]
    frozen: dict[str, Shared]

    @classmethod
    def of(cls, runs: Sequence[Realization], device: torch.device) -> Weights:
        """Stack the weights that the runs start from, in the dtype that they train in."""
        changing = {name for name, _ in runs[0].module.named_buffers()}
        first, low = runs[0], runs[0].dtype
        frozen = {n: [r.constants[n] for r in runs] for n in first.constants if n not in changing}
        return cls(
            {n: cast(stack([r.parameters[n] for r in runs], device), low) for n in first.parameters},
            {n: cast(stack([r.constants[n] for r in runs], device), low) for n in first.constants if n in changing},
            {n: Shared.of(values, device, own=n in first.own_frozen).cast(low) for n, values in frozen.items()},
        )

    def now(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return the trainable parameters, themselves where they have that dtype."""
        return {name: cast(value, dtype) for name, value in self.trainable.items()}

    def snapshot(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return a copy of the trainable parameters."""
        return {name: cast(value.clone(), dtype) for name, value in self.trainable.items()}

    def at(self, lanes: Tensor | None) -> list[dict[str, Shared]]:
        """Return trainable parameters, buffers and frozen parameters of the given lanes."""
        groups = (
            {name: Shared(value, 0) for name, value in self.trainable.items()},
            {name: Shared(value, 0) for name, value in self.buffers.items()},
            self.frozen,
        )
        return [{name: value.at(lanes) for name, value in group.items()} for group in groups]
