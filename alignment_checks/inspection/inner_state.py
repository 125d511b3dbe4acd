"""What Python objects hold beside the tensors that torch knows of: numbers, plain tensors, functions and what they see.

A model may draw such things at its init, so that two inits compute two functions; or change them from call to call, so
that a call depends on the calls before it.
"""

from __future__ import annotations

import hashlib
import types
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_KNOWN = ("_parameters", "_buffers", "_modules")
"""Attributes of a module that torch knows of."""
_DEEPEST = 12


def inner_state(*owners: object) -> str:
    """Return a digest of what modules, functions and other objects hold, the same for equal contents.

    Parameters and buffers are left out, but for those that a module does not know for its own (of another one that it
    has in a list, say); and what is held deeper than 12 objects down.

    Examples
    --------
    >>> layer = nn.Linear(2, 3)
    >>> before = inner_state(layer)
    >>> layer.calls = 1
    >>> inner_state(layer) == before, inner_state(nn.Linear(2, 3)) == before
    (False, True)
    """
    found: list[bytes] = []
    for owner in owners:
        tensors = [*owner.parameters(), *owner.buffers()] if isinstance(owner, nn.Module) else None
        _note(owner, (), found, None if tensors is None else {id(one): one for one in tensors})
    return hashlib.blake2b(b"\0".join(found), digest_size=16).hexdigest()


def held_tensors(owner: object, above: tuple[int, ...] = ()) -> list[Tensor]:
    """Return the tensors that an object holds, parameters of modules aside, as deep as `inner_state` looks.

    Examples
    --------
    >>> from functools import partial
    >>> weight = torch.ones(2)
    >>> held_tensors(partial(nn.functional.cross_entropy, weight=weight))[0] is weight
    True
    """
    if isinstance(owner, Tensor):
        return [owner]
    buffers = [*owner.buffers(recurse=False)] if isinstance(owner, nn.Module) else []
    opaque = (*_PLAIN, type, types.ModuleType, types.BuiltinFunctionType, np.ndarray, torch.Generator, weakref.ref)
    if isinstance(owner, opaque) or id(owner) in above or len(above) >= _DEEPEST:
        return []
    return [*buffers, *(tensor for held in _held(owner) for tensor in held_tensors(held, (*above, id(owner))))]


def _note(value: object, above: tuple[int, ...], found: list[bytes], known: Mapping[int, Tensor] | None) -> None:
    """Add to what was found what tells a value from others: its type, and what it holds.

    Of parameters and buffers that are all that are not `known`, by id (held, so that no other object gets it); none at
    all where that is None.
    """
    kind = type(value)
    found.append(f"{kind.__module__}.{kind.__qualname__}".encode())
    if isinstance(value, _PLAIN):
        found.append(repr(value).encode())
    elif isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        found.append(value.__name__.encode())
    elif isinstance(value, (Tensor, np.ndarray, torch.Generator)):
        found.extend(_hidden([value], known) if isinstance(value, nn.Parameter) else [_bytes(value)])
    elif id(value) not in above and len(above) < _DEEPEST and not isinstance(value, weakref.ref):
        for held in _held(value):
            _note(held, (*above, id(value)), found, known)
        if isinstance(value, nn.Module):
            found.extend(_hidden([*value.parameters(recurse=False), *value.buffers(recurse=False)], known))


def _hidden(values: Sequence[Tensor], known: Mapping[int, Tensor] | None) -> list[bytes]:
    """Return the contents of those parameters and buffers that are not known."""
    unknown = [] if known is None else [one for one in values if id(one) not in known]
    return [_bytes(one) for one in unknown if not is_lazy(one)]


_PLAIN = (str, bool, int, float, types.NoneType, complex, bytes, torch.dtype, torch.device)


def _bytes(value: Any) -> bytes:
    """Return the content of an array; nothing of what has no memory."""
    plain = value.get_state() if isinstance(value, torch.Generator) else torch.as_tensor(value)
    if plain.layout is torch.sparse_coo:
        parts = plain.coalesce()
        return b"".join(map(_bytes, (parts.indices(), parts.values())))
    if plain.layout != torch.strided or plain.device.type == "meta":
        return repr(plain.shape).encode()
    return bytes(plain.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _held(value: Any) -> Iterator[object]:
    """Yield what an object holds, in an order of its own."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (key, item) if isinstance(key, str) else (item,)  # handles of hooks count on for ever
    elif isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, (set, frozenset)):
        yield from sorted(map(repr, value))
    elif isinstance(value, nn.Module):
        for name, item in (*vars(value).items(), *value.named_children()):
            if name not in _KNOWN and not _is_empty(item):
                yield from (name, item)
    else:
        yield from _held_by_code(value)


def _is_empty(value: object) -> bool:
    """Return whether a value holds nothing, as most hooks of a module do."""
    return value is None or (isinstance(value, (dict, list, set, tuple)) and not value)


def slots(value: object) -> dict[str, Any]:
    """Return the slots of an object (`__slots__`), by name: what has them has their values beside its dict.

    Examples
    --------
    >>> class Point:
    ...     __slots__ = ("x", "y")
    >>> [*slots(Point())], [*slots(1.0)]
    (['x', 'y'], [])
    """
    own = [vars(cls) for cls in type(value).__mro__ if "__slots__" in vars(cls)]
    kinds = [(name, kind) for one in own for name, kind in one.items()]
    return {name: kind for name, kind in kinds if isinstance(kind, types.MemberDescriptorType)}


def _held_by_code(value: Any) -> Iterator[object]:
    """Yield what a callable holds, or the attributes of an object."""
    if isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, partial):
        yield from (value.func, value.args, value.keywords)
    else:
        yield getattr(value, "__dict__", None)
        yield [getattr(value, name, None) for name in slots(value)]
        yield from _reduced(value)
    if isinstance(value, types.FunctionType):
        yield from (value.__module__, value.__qualname__, value.__defaults__, value.__kwdefaults__)
        yield from _closed_over(value)


def _closed_over(function: types.FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            yield None


def says_its_parts(value: object) -> bool:
    """Return whether an object has a way of its own to say what a copy is made of: it may show nothing else of that.

    Examples
    --------
    >>> says_its_parts(iter([])), says_its_parts(object())
    (True, False)
    """
    kind: Any = type(value)
    return kind.__reduce__ is not object.__reduce__


def _reduced(value: Any) -> Iterator[object]:
    """Yield what an object of C, as NumPy's generators, a deque or an iterator, says that a copy is made of."""
    if not says_its_parts(value) or isinstance(value, Enum):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of iterators Python is going to make no copies
            parts = value.__reduce__()
    except Exception:  # no copy is made of it
        return
    for part in parts if isinstance(parts, tuple) else ():
        yield from part if isinstance(part, (tuple, Iterator)) else (part,)
