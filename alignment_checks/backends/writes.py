"""Whether a model writes into its own parameters, as an embedding with `max_norm` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from alignment_checks.modes import DispatchMode, written


class Writes(DispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, sees whether anything writes into the memory of tensors, be it by way of `.data`."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        super().__init__()
        self.memory, self.seen = {value.untyped_storage().data_ptr() for value in values} - {0}, False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        self.seen |= any(map(self._watches, tree_leaves(written(func, args, named))))
        return func(*args, **named)

    def _watches(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage().data_ptr() in self.memory
