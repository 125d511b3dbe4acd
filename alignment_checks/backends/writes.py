"""Whether a model writes into its own parameters, as an embedding with `max_norm` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from alignment_checks.inspection.modes import DispatchMode, written


class Writes(DispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, sees whether anything writes into the memory of tensors, be it by way of `.data`."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        super().__init__()
        self.memory = {part.data_ptr() for value in values for part in memory_of(value)} - {0}
        self.seen = False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if places := written(func, args, named):  # of few operations, and the rest is not to wait
            self.seen |= any(map(self._watches, tree_leaves(places)))
        return func(*args, **named)

    def _watches(self, value: Any) -> bool:
        return isinstance(value, Tensor) and any(part.data_ptr() in self.memory for part in memory_of(value))


def memory_of(value: Tensor) -> list[torch.UntypedStorage]:
    """Return the memory of a tensor: that of its parts, where it is sparse or nested and has none of its own.

    Examples
    --------
    >>> [part.nbytes() for part in memory_of(torch.ones(3))]
    [12]
    >>> [part.nbytes() for part in memory_of(torch.eye(3).to_sparse())]
    [48, 12]
    """
    if is_traceable_wrapper_subclass(value):
        names, _ = value.__tensor_flatten__()
        return [part for name in names for part in memory_of(getattr(value, name))]
    if value.layout is torch.sparse_coo:
        return [part.untyped_storage() for part in (value._indices(), value._values())]
    return [value.untyped_storage()] if value.layout is torch.strided else []
