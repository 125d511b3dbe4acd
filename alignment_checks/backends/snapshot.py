"""What a module and the objects in it hold: a model may set a flag in its first call, count calls, keep outputs."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignment_checks.objectives import is_writable

_OPAQUE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, partial, weakref.ref, str, bytes)


class Snapshot:
    """Attributes, items of containers, and elements of plain tensors, as they were, to be put back.

    Elements of parameters and of buffers are left out: what they are changed by is seen, and undone, elsewhere.

    Examples
    --------
    >>> layer = nn.Linear(2, 3)
    >>> layer.seen = []
    >>> before = Snapshot(layer)
    >>> layer.ready = layer.seen.append(1)
    >>> before.differs, before.put_back(), hasattr(layer, "ready"), layer.seen
    (True, None, False, [])
    """

    def __init__(self, module: nn.Module) -> None:
        self.held = dict[int, object]()  # so that no other object gets its id
        self.kept = list[_Kept]()
        self._look(module, {id(one) for one in (*module.parameters(), *module.buffers())})

    def _look(self, value: Any, known: set[int]) -> None:
        if id(value) in self.held or id(value) in known or isinstance(value, _OPAQUE):
            return
        self.held[id(value)] = value
        if isinstance(value, (Tensor, np.ndarray, torch.Generator)):
            if not isinstance(value, Tensor) or is_writable(value):
                self.kept.append(_contents(value))
            return
        for container in (value, getattr(value, "__dict__", None)):
            if isinstance(container, (dict, list, set, deque)):
                self.kept.append(_items(container))
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, _SEQUENCES) else ()
        for part in (*parts, *getattr(value, "__dict__", {}).values()):
            self._look(part, known)

    @property
    def differs(self) -> bool:
        """Whether they hold anything else now."""
        return any(differs() for differs, _ in self.kept)

    def put_back(self) -> None:
        """Have them hold what they held."""
        for differs, put_back in self.kept:
            if differs():
                put_back()


_SEQUENCES = (list, tuple, set, frozenset, deque)
_Kept = tuple[Callable[[], bool], Callable[[], object]]
"""Whether something is another, and what puts it back."""


def _items(container: Any) -> _Kept:
    """Keep which objects a container holds: by identity, as most know no other."""
    before = dict(container) if isinstance(container, dict) else list(container)

    def flat(items: Any) -> list[int]:
        return [id(one) for pair in items.items() for one in pair] if isinstance(items, dict) else [*map(id, items)]

    def put_back() -> None:
        container.clear()
        container.update(before) if isinstance(container, (dict, set)) else container.extend(before)

    return lambda: flat(container) != flat(before), put_back


def _contents(array: Any) -> _Kept:
    """Keep the elements of an array, or the state of a generator."""
    if isinstance(array, torch.Generator):
        state = array.get_state()
        return lambda: not torch.equal(array.get_state(), state), lambda: array.set_state(state)
    if isinstance(array, np.ndarray):
        copy = array.copy()
        return lambda: array.tobytes() != copy.tobytes(), lambda: np.copyto(array, copy)
    version, clone = array._version, array.detach().clone()
    return lambda: array._version != version, lambda: array.detach().copy_(clone)
