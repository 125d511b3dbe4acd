"""Seeing operations as torch dispatches them, and what they write into."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode whose `__torch_dispatch__` is called as it is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return that it is not to be wrapped for the compiler, which costs more than the mode itself."""
        return False


def written(operation: Any, args: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
    """Return those of an operation's arguments that it writes into: tensors, lists of them, or None.

    Examples
    --------
    >>> import torch
    >>> one, other = torch.zeros(2), torch.ones(2)
    >>> written(torch.ops.aten.add.Tensor, (one, other), {})
    []
    >>> written(torch.ops.aten.add_.Tensor, (one, other), {})
    [tensor([0., 0.])]
    >>> written(torch.ops.aten.add.out, (other, other), {"out": one})
    [tensor([0., 0.])]
    """
    if not operation._schema.is_mutable:
        return []
    arguments = operation._schema.arguments
    given = {**dict(zip((one.name for one in arguments), args, strict=False)), **named}
    return [given[one.name] for one in arguments if one.is_write and one.name in given]
