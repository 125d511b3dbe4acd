"""What calling an objective changes of it: attributes and buffers, put back after each run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from alignment_checks.inspection.inner_state import slots
from alignment_checks.objectives import Objective, mixed_in


@contextmanager
def as_found(*objectives: Objective) -> Iterator[None]:
    """Put back, at the end of this context, what calls have changed of objectives' attributes and buffers.

    So no run starts from what another one has left there. What is kept in containers stays: a log, say.
    """
    functions = [held for one in objectives for held in (one.function, *map(mixed_in, one.changes))]
    kept = [_Kept(part) for function in functions for part in _parts(function)]
    try:
        yield
    finally:
        for one in kept:
            one.put_back()


class _Kept:
    """What an object, or a module without those in it, has for attributes and buffers."""

    def __init__(self, part: object) -> None:
        self.part, self.slots = part, slots(part)
        names = ("__dict__", "_buffers") if isinstance(part, nn.Module) else ("__dict__",)
        found = [getattr(part, name, None) for name in names]
        self.names = [(one, dict(one)) for one in found if isinstance(one, dict)]  # no class or script has any
        self.values = {name: getattr(part, name) for name in self.slots if hasattr(part, name)}
        buffers = part.buffers(recurse=False) if isinstance(part, nn.Module) else ()
        self.buffers = [(one, one.clone()) for one in buffers if is_writable(one)]

    def put_back(self) -> None:
        for now, before in self.names:
            for name in now.keys() - before.keys():
                del now[name]
            now.update(before)
        for name, slot in self.slots.items():
            if name in self.values:
                slot.__set__(self.part, self.values[name])
            elif hasattr(self.part, name):
                slot.__delete__(self.part)
        with torch.no_grad():
            for one, value in self.buffers:
                one.copy_(value)


def _parts(function: object) -> Iterator[object]:
    """Yield whose attributes a function may change: its own, its object's, and those of the modules in that."""
    while isinstance(function, partial):
        function = function.func
    owner = function.__self__ if isinstance(function, MethodType) else function
    yield from owner.modules() if isinstance(owner, nn.Module) else [owner]


def is_writable(buffer: Tensor) -> bool:
    """Return whether a tensor that an object holds can be written into: else no call has changed its elements."""
    if is_lazy(buffer) or buffer.is_inference():
        return False
    return buffer.layout is not torch.strided or all(
        step or size == 1 for size, step in zip(buffer.shape, buffer.stride(), strict=True)
    )
