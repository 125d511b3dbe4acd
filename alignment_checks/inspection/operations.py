"""Which operations a value was computed by, as autograd has noted them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction


def has_branches(value: object) -> bool:
    """Return whether a value was computed by way of `torch.cond` or its like, which no dispatch mode is to see.

    What torch compiled of it within one, it cannot compile again without.
    """
    return isinstance(value, Tensor) and any("AutogradOp" in operation for operation in operations(value))


def operations(value: Tensor) -> Iterator[str]:
    """Yield the names of the operations that a value was computed by."""
    return (node.name() for node in _nodes(value))


def leaves(value: Tensor) -> Iterator[Tensor]:
    """Yield the tensors that a value was computed from and has a gradient by."""
    return (node.variable for node in _nodes(value) if hasattr(node, "variable"))


def has_functions(value: Tensor) -> bool:
    """Return whether a value was computed by a function of the user's own, or by a reentrant checkpoint.

    Its way back may lead to tensors that it was not given: such a checkpoint computes its part of the model again.
    """
    return any(isinstance(node, BackwardCFunction) for node in _nodes(value))


def _nodes(value: Tensor) -> Iterator[Any]:
    left, seen = [value.grad_fn], {value.grad_fn}
    while left:
        node = left.pop()
        if node is not None:
            yield node
            new = {before for before, _ in node.next_functions} - seen
            seen |= new
            left += new
