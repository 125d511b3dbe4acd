"""When two setups that were built apart are the same one: by what they are made of, as far as that can be seen."""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import fields
from enum import Enum
from functools import partial
from inspect import getattr_static
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from alignment_checks.objectives import Itself
from alignment_checks.setups.fingerprints import content
from alignment_checks.training import TrainingSetup

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device)


_DEEPEST = 12
"""How far into what a function reads a key looks; what lies deeper equals itself alone."""


def alike(value: object) -> Hashable:
    """Return a key that two values share only if training cannot tell them apart.

    Plain data and tensors go by their content; a function by its code, its defaults and what it closes over or reads
    from its module, of a class, object or module also the attributes that it names. Anything else equals itself alone:
    then two of a kind are trained twice. What such an object holds, and only its own methods read, is not looked into.

    Examples
    --------
    >>> def optimizer(lr):
    ...     return partial(torch.optim.SGD, lr=lr)
    >>> alike(optimizer(0.1)) == alike(optimizer(0.1)), alike(optimizer(0.1)) == alike(optimizer(0.2))
    (True, False)
    """
    return _key(value, ())


def _key(value: object, above: tuple[int, ...]) -> Hashable:
    if id(value) in above:
        return "recursion", above.index(id(value))
    above = (*above, id(value))
    if len(above) > _DEEPEST:
        return Itself(value)
    if isinstance(value, Itself):
        return value
    if isinstance(value, _PLAIN):
        return type(value), repr(value) if isinstance(value, float) else value  # 0.0 == -0.0, and NaN is not NaN
    if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta:
        return Tensor, type(value), value.requires_grad, content(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return np.ndarray, str(value.dtype), value.shape, value.tobytes()
    parts = _parts(value)
    return Itself(value) if parts is None else (type(value), *(_key(part, above) for part in parts))


def _parts(value: object) -> Iterator[object] | None:
    """Return what a value is made of, in order, None where that cannot be seen."""
    if type(value) in (tuple, list):
        return iter(value)  # type: ignore[call-overload, no-any-return]
    if type(value) is dict:
        return (part for pair in value.items() for part in pair)
    if isinstance(value, partial):
        return iter((value.func, value.args, value.keywords))
    if isinstance(value, types.MethodType):
        return chain((value.__func__, value.__self__), _attributes(value.__self__, _names(value.__func__)))
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if isinstance(value, TrainingSetup):
        return (getattr(value, field.name) for field in fields(value))
    return None


def _of_function(function: types.FunctionType) -> Iterator[object]:
    yield _Code(function.__code__)
    yield function.__defaults__
    yield function.__kwdefaults__
    names = _names(function)
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _attributes(value, names)
    for value in _read(function, names):
        yield value
        yield from _attributes(value, names)


def _read(function: types.FunctionType, names: Sequence[str]) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is not bound yet
            yield "unbound"
    for name in names:
        if name in function.__globals__:
            yield name
            yield function.__globals__[name]


def _attributes(value: object, names: Sequence[str]) -> Iterator[object]:
    """Yield what a class, an object or a module has under these names, and what that has; none of its code is run.

    A function is only itself there: libraries are modules too.
    """
    ahead, seen = [value], set()
    while ahead:
        holder = ahead.pop()
        if id(holder) in seen or not _is_opaque(holder):
            continue
        seen.add(id(holder))
        found = {name: _static(holder, name) for name in names}
        for name, held in found.items():
            if held is not Itself:
                yield name
                yield Itself(held) if isinstance(held, types.FunctionType) else held
        ahead += found.values()


def _is_opaque(value: object) -> bool:
    plain = isinstance(value, (*_PLAIN, Tensor, np.ndarray)) or value is Itself
    return not plain and _parts(value) is None


def _static(holder: object, name: str) -> object:
    """Return an attribute as it is stored, `Itself` where there is none."""
    found = getattr_static(holder, name, Itself)
    if isinstance(found, types.MemberDescriptorType) and not isinstance(holder, type):
        return getattr(holder, name, Itself)  # of __slots__
    return found


class _Code(str):
    """A function's code as a plain value: its bytes, names and constants."""

    __slots__ = ()

    def __new__(cls, code: types.CodeType) -> _Code:
        return super().__new__(cls, _written(code))


def _written(code: types.CodeType) -> str:
    constants = [_written(one) if isinstance(one, types.CodeType) else repr(one) for one in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants))


def _names(function: Callable[..., object]) -> list[str]:
    """Return the names of all that a function reads by a name: of its module, and of attributes."""
    code = getattr(function, "__code__", None)
    return sorted(_named(code)) if isinstance(code, types.CodeType) else []


def _named(code: types.CodeType) -> set[str]:
    inner = [_named(one) for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*inner)
