"""Whether a batched function rounds the elements otherwise that its kernels leave over at the end of a stack of lanes.

Copies of one run may not show it: `sigmoid` in float32 gives most numbers the same bits by either code. So each
operation that leaves elements over is asked about by itself, of numbers like those that it was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from alignment_checks.backends.stepping.aligned import Kernels, are_left_over, broadcast_shape
from alignment_checks.inspection.modes import DispatchMode
from alignment_checks.randomness import seeding

_ROWS, _VECTOR = 128, 16
"""So many rows of numbers are tried: by whole vectors, and by rows of one less, which fill none."""


class Leftover(DispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, sees whether any operation gives elements that it leaves over other bits."""

    def __init__(self) -> None:
        super().__init__()
        self.matters, self.kernels = False, Kernels()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self.matters and not self.kernels.round_alike(func, args, kwargs):
            self.matters = _leaves_over(args, kwargs or {}) and differs_left_over(func, args, kwargs or {})
        return func(*args, **kwargs) if kwargs else func(*args)


def _leaves_over(args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    tensors = [one for one in tree_leaves((args, named)) if isinstance(one, Tensor)]
    return are_left_over(tensors, broadcast_shape(tensors).numel())


def differs_left_over(operation: Any, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether an operation gives numbers like its arguments other bits by vectors than one by one."""
    tensors = [one for one in tree_leaves((args, named)) if isinstance(one, Tensor)]
    shape = broadcast_shape(tensors)
    random = seeding.generator("left over", 0)

    def like(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0:
            return tensor
        values = tensor.detach().expand(shape).reshape(-1)
        values = values[torch.arange(_ROWS * _VECTOR, device="cpu") % len(values)].reshape(_ROWS, _VECTOR)
        factors = 0.5 + torch.rand(values.shape, generator=random, dtype=torch.float64, device="cpu")
        return values * factors.to(values.dtype) if values.is_floating_point() else values

    def one_by_one(tensor: Tensor) -> Tensor:
        return tensor[:, :-1] if tensor.ndim else tensor

    given, options = tree_map_only(Tensor, like, (args, named))
    rows, options_of_rows = tree_map_only(Tensor, one_by_one, (given, options))
    whole, parts = operation(*given, **options), operation(*rows, **options_of_rows)
    pairs = zip(tree_leaves(whole), tree_leaves(parts), strict=True)
    return any(not torch.equal(_bits(one_by_one(a)), _bits(b)) for a, b in pairs if isinstance(a, Tensor))


def _bits(values: Tensor) -> Tensor:
    """Return numbers such that equal bits are equal, NaN included."""
    return torch.where(values.isnan(), torch.zeros_like(values), values) if values.is_floating_point() else values
