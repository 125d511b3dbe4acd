"""Whether a model writes into its own parameters, as an embedding with `max_norm` does."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_checks import seeding
from alignment_checks.operations import has_branches
from alignment_checks.realization import Realization


def writes_into_itself(run: Realization) -> bool:
    """Return whether a call writes into parameters; a model of which that cannot be seen is taken to."""
    weights = {name: value.clone() for name, value in run.constants.items()}
    weights |= {name: value.clone().requires_grad_() for name, value in run.parameters.items()}
    module, buffers = deepcopy(run.module), {name for name, _ in run.module.named_buffers()}
    with seeding.isolated(seeding.derive("run", run.seed)), torch.enable_grad():
        if has_branches(functional_call(module, weights, run.inputs)):
            return True
        with Writes(value for name, value in weights.items() if name not in buffers) as watch:
            functional_call(module, weights, run.inputs)
    seen: bool = watch.seen
    return seen


class Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, sees whether anything writes into the memory of tensors, be it by way of `.data`."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory, self.seen = {value.untyped_storage().data_ptr() for value in values} - {0}, False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return that this mode is not to be wrapped for the compiler, which costs more than the mode itself."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named, arguments = kwargs or {}, func._schema.arguments
        if func._schema.is_mutable:
            given = {**dict(zip((one.name for one in arguments), args, strict=False)), **named}
            self.seen |= any(self._watches(given.get(one.name)) for one in arguments if one.is_write)
        return func(*args, **named)

    def _watches(self, value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return any(map(self._watches, value))
        return isinstance(value, Tensor) and value.untyped_storage().data_ptr() in self.memory
