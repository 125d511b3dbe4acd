"""What an optimizer and its scheduler keep, wherever they keep it: walked, exchanged, compared."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

from alignment_checks.backends.stepping.numbers import LaneNumbers
from alignment_checks.backends.stepping.refusal import StepRefused

_OPAQUE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, partial, torch.Generator, LaneNumbers)


def exchange(root: object, change: Callable[[Tensor], Tensor]) -> None:
    """Replace each tensor that is reachable from `root`, through containers and attributes, by `change(tensor)`.

    Containers are changed in place, tuples replaced. A tensor in two places is replaced by one tensor in both, if
    `change` returns the same one.
    """
    _exchanged(root, change, {})


def _exchanged(value: Any, change: Callable[[Tensor], Tensor], seen: dict[int, object]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        parts = [_exchanged(part, change, seen) for part in value]
        same = all(a is b for a, b in zip(parts, value, strict=True))
        return value if same else _as_tuple(type(value), parts)
    if id(value) not in seen:
        seen[id(value)] = value  # held, so that no other object gets its id
        for holder, key, item in _items(value):
            new = _exchanged(item, change, seen)
            if new is not item:
                holder[key] = new
    return value


def _as_tuple(kind: type, parts: list[Any]) -> Any:
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)


def _items(value: object) -> list[tuple[Any, Any, Any]]:
    """Return (holder, key, item) of what an object holds: a mapping's, a sequence's, its attributes."""
    found: list[tuple[Any, Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key, item) for key, item in value.items()]
    elif isinstance(value, (list, deque)):
        found += [(value, index, item) for index, item in enumerate(value)]
    if hasattr(value, "__dict__") and not isinstance(value, _OPAQUE):
        found += [(vars(value), key, item) for key, item in vars(value).items()]
    return found


Pair = tuple[Tensor, Tensor]


def paired(source: object, target: object, known: Mapping[int, int], lane: int = 0) -> Iterator[Pair]:
    """Yield the tensors that stand at the same place of two states; their numbers have to be equal.

    Parameters
    ----------
    source, target : object
        Say, the optimizer of all lanes and that of one.
    known : mapping of int to int
        From the `id` of each parameter of `source` to that of `target`'s: they are places, not state.
    lane : int
        Whose number is meant where `source` has one of each lane.

    Raises
    ------
    StepRefused
        If the states are not alike in form or in a number.
    """
    yield from _paired(source, target, known, lane, set(), "")


def _paired(
    source: Any, target: Any, known: Mapping[int, int], lane: int, seen: set[int], place: str
) -> Iterator[Pair]:
    if source is target or isinstance(source, _OPAQUE):
        return
    if isinstance(source, Tensor) and isinstance(target, Tensor):
        if known.get(id(source)) != id(target):
            yield source, target
    elif isinstance(source, (int, float, str)) or source is None or isinstance(target, Tensor):
        if not _equal(source, target):
            raise StepRefused(f"its state{place} is {source!r:.40}, and {target!r:.40} for a lane stepped by itself")
    elif id(source) not in seen:
        seen.add(id(source))
        for key, a, b in _matched(source, target, known, place):
            yield from _paired(
                _of_lane(a, lane), b, known, lane, seen, f"{place}.{key}" if isinstance(key, str) else place
            )


def _of_lane(one: Any, lane: int) -> Any:
    return float(one.values[lane]) if isinstance(one, LaneNumbers) else one


def _equal(source: object, target: object) -> bool:
    if isinstance(source, float) and isinstance(target, float):
        return math.isclose(source, target, rel_tol=1e-9) or (math.isnan(source) and math.isnan(target))
    return type(source) is type(target) and source == target


def _matched(source: Any, target: Any, known: Mapping[int, int], place: str) -> Iterable[tuple[Any, Any, Any]]:
    """Return (key, item, item) of what two containers of the same kind hold at the same key."""
    mine, theirs = _keyed(source, known), _keyed(target, {})
    if type(source) is not type(target) or mine.keys() != theirs.keys():
        raise StepRefused(f"its state{place} has another form than that of a lane stepped by itself")
    return [(key[1], item, theirs[key]) for key, item in mine.items()]


def _keyed(value: Any, known: Mapping[int, int]) -> dict[tuple[bool, Any], Any]:
    if isinstance(value, tuple) or (isinstance(value, dict) and all(map(callable, value.values()))):
        items = value.values() if isinstance(value, dict) else value  # of hooks, each has a key of its own
        return {(True, index): item for index, item in enumerate(items)}
    return {(holder is value, _key(key, known)): item for holder, key, item in _items(value)}


def _key(key: Any, known: Mapping[int, int]) -> Any:
    """Return a key that does not depend on whose parameter it is: a parameter's own `id`, in the target's terms."""
    if isinstance(key, Tensor):
        return known.get(id(key), id(key))
    return known.get(key, key) if isinstance(key, int) else key
