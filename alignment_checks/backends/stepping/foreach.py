"""`torch._foreach_*` taken one tensor at a time: `vmap` has no rules for lists of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class OneByOne(TorchFunctionMode):
    """Within this context, `torch._foreach_X(tensors, ...)` is X of each tensor."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if not name.startswith("_foreach_"):
            return func(*args, **kwargs or {})
        single = _single(name.removeprefix("_foreach_"))
        found = [single(*each, **named) for each, named in _split(args, kwargs or {})]
        return None if name.endswith("_") else tuple(found)


def _single(name: str) -> Callable[..., Any]:
    special = {"norm": torch.linalg.vector_norm, "addcmul": torch.addcmul, "addcdiv": torch.addcdiv}
    if name.rstrip("_") in ("addcmul", "addcdiv"):
        method = getattr(Tensor, name)
        return lambda a, b, c, value=1: method(a, b, c, value=value)
    if name in ("add", "add_", "sub", "sub_"):
        method = getattr(Tensor, name)
        return lambda a, b, alpha=1: method(a, b, alpha=alpha)
    found: Callable[..., Any] = special.get(name) or getattr(Tensor, name)
    return found


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterable[tuple[list[Any], dict[str, Any]]]:
    """Yield the arguments of each tensor: what is a list has one for each, the rest is for all."""
    count = len(args[0])

    def at(value: Any, index: int) -> Any:
        return value[index] if isinstance(value, (list, tuple)) and len(value) == count else value

    for index in range(count):
        yield [at(value, index) for value in args], {key: at(value, index) for key, value in kwargs.items()}
