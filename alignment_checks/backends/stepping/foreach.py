"""Operations that `vmap` has no rules for, taken as others that it has: lists of tensors, `out=`, and some in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class OneByOne(TorchFunctionMode):
    """Within this context `torch._foreach_X(tensors, ...)` is X of each; some `X_`, and `out=`, are X and a copy.

    The results are the same bits: an operation in place is the same kernel, written elsewhere.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, named = getattr(func, "__name__", ""), dict(kwargs or {})
        if func in _WITHOUT_RULE:
            return _in_place(getattr(torch, name.removesuffix("_")))(*args, **named)
        if isinstance(named.get("out"), Tensor):
            return _written(func, args, named)
        if not name.startswith("_foreach_"):
            return func(*args, **named)
        return one_by_one(name, args, named)


def one_by_one(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return what `torch.<name>`, an operation of lists, gives: the operation of each."""
    single = _single(name.removeprefix("_foreach_"))
    found = [single(*each, **rest) for each, rest in _split(args, named)]
    return None if name.endswith("_") else tuple(found)


_WITHOUT_RULE = frozenset({Tensor.lerp_, Tensor.addcmul_, Tensor.addcdiv_})


def _scaled(target: Tensor, by: Any) -> Tensor:
    """Multiply in place as a list does it: on a CPU it rounds a number to the dtype of the tensor first."""
    factor = torch.full_like(target, by) if is_narrow(target) and not isinstance(by, Tensor) else by
    return target.copy_(torch.mul(target, factor))


def is_narrow(tensor: Tensor) -> bool:
    """Return whether a CPU calculates with a tensor's numbers in float32 and rounds them back: float16 and bfloat16."""
    return tensor.device.type == "cpu" and tensor.is_floating_point() and tensor.element_size() < 4


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def written(target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return target.copy_(function(target, *args, **kwargs))

    return written


def _written(func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return `func(..., out=target)`, by a copy where the target has the shape of what is written."""
    target = named.pop("out")
    found = func(*args, **named)
    return target.copy_(found) if found.shape == target.shape else func(*args, **named, out=target)


def _single(name: str) -> Callable[..., Any]:
    """Return X of one tensor, called with the arguments of `torch._foreach_X`."""
    plain = name.removesuffix("_")
    if name == "mul_":
        return _scaled
    if not hasattr(torch, plain) and plain != "norm":
        method: Callable[..., Any] = getattr(Tensor, name)  # zero_, copy_
        return method
    function = _FUNCTIONS.get(plain) or getattr(torch, plain)
    return _in_place(function) if name.endswith("_") else function


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "norm": torch.linalg.vector_norm,
    "add": lambda a, b, alpha=1: torch.add(a, b, alpha=alpha),
    "sub": lambda a, b, alpha=1: torch.sub(a, b, alpha=alpha),
    "addcmul": lambda a, b, c, value=1: torch.addcmul(a, b, c, value=value),
    "addcdiv": lambda a, b, c, value=1: torch.addcdiv(a, b, c, value=value),
    "maximum": lambda a, b: (torch.maximum if isinstance(b, Tensor) else torch.clamp_min)(a, b),
    "minimum": lambda a, b: (torch.minimum if isinstance(b, Tensor) else torch.clamp_max)(a, b),
}
"""Where one tensor takes its numbers otherwise than a list does."""


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterable[tuple[list[Any], dict[str, Any]]]:
    """Yield the arguments of each tensor: what is a list has one for each, the rest is for all."""
    count = next(len(value) for value in args if isinstance(value, (list, tuple)))

    def at(value: Any, index: int) -> Any:
        return value[index] if isinstance(value, (list, tuple)) and len(value) == count else value

    for index in range(count):
        yield [at(value, index) for value in args], {key: at(value, index) for key, value in kwargs.items()}
