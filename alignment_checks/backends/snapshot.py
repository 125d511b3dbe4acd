"""What a module and the objects in it hold: a model may set a flag in its first call, count calls, keep outputs."""

from __future__ import annotations

import random
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignment_checks.inspection.inner_state import inner_state, says_its_parts, slots
from alignment_checks.setups.as_found import is_writable

_OPAQUE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, partial, weakref.ref, str, bytes)


class Snapshot:
    """Attributes, items of containers, elements of plain tensors, and generators, as they were, to be put back.

    An iterator is only seen to have moved.
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
        if isinstance(value, _CONTENTS) or _is_iterator(value):
            if not isinstance(value, Tensor) or is_writable(value):
                self.kept.append(_contents(value))
            return
        for container in (value, getattr(value, "__dict__", None)):
            if isinstance(container, (dict, list, set, deque)):
                self.kept.append(_items(container))
        if of := slots(value):
            self.kept.append(_slots(value, of))
        for part in _parts(value):
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
_CONTENTS = (Tensor, np.ndarray, torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_Kept = tuple[Callable[[], bool], Callable[[], object]]
"""Whether something is another, and what puts it back."""


def _is_iterator(value: object) -> bool:
    """Return whether it is an iterator of C, that shows nothing of where it stands but what a copy is made of."""
    return isinstance(value, Iterator) and says_its_parts(value)


def _parts(value: Any) -> list[Any]:
    """Return what an object holds: as a container, in attributes, in slots."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, _SEQUENCES) else ()
    return [*parts, *getattr(value, "__dict__", {}).values(), *_filled(value, slots(value)).values()]


def _filled(value: Any, of: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, slot in of.items():
        with suppress(AttributeError):
            found[name] = slot.__get__(value)
    return found


def _slots(value: Any, of: Mapping[str, Any]) -> _Kept:
    """Keep which objects an object has in its slots."""
    before = _filled(value, of)

    def differs() -> bool:
        now = _filled(value, of)
        return now.keys() != before.keys() or any(now[name] is not one for name, one in before.items())

    def put_back() -> None:
        for name, slot in of.items():
            if name in before:
                slot.__set__(value, before[name])
            elif name in _filled(value, of):
                slot.__delete__(value)

    return differs, put_back


def _items(container: Any) -> _Kept:
    """Keep which objects a container holds: by identity, as most know no other."""
    before = dict(container) if isinstance(container, dict) else list(container)

    def flat(items: Any) -> list[int]:
        return [id(one) for pair in items.items() for one in pair] if isinstance(items, dict) else [*map(id, items)]

    def put_back() -> None:
        container.clear()
        container.update(before) if isinstance(container, (dict, set)) else container.extend(before)

    return lambda: flat(container) != flat(before), put_back


def _contents(one: Any) -> _Kept:
    """Keep the elements of an array, or where a generator stands."""
    if isinstance(one, Tensor):
        version, clone = one._version, one.detach().clone()
        return lambda: one._version != version, lambda: one.detach().copy_(clone)
    if isinstance(one, np.ndarray):
        copy = one.copy()
        return lambda: one.tobytes() != copy.tobytes(), lambda: np.copyto(one, copy)
    before = inner_state(one)
    return lambda: inner_state(one) != before, _returning(one)


def _returning(one: Any) -> Callable[[], object]:
    """Return what puts a generator back to where it stands now."""
    if isinstance(one, torch.Generator):
        return partial(one.set_state, one.get_state())
    if isinstance(one, np.random.Generator):
        return partial(setattr, one.bit_generator, "state", one.bit_generator.state)
    if isinstance(one, np.random.RandomState):
        return partial(one.set_state, one.get_state())
    if isinstance(one, random.Random):
        return partial(one.setstate, one.getstate())
    return lambda: None
