"""A user's own values in short: what a repr shows of tensors, functions and whatever else a setup is made of."""

from __future__ import annotations

import functools
import reprlib

import torch
from torch import Tensor

from alignment_checks.objectives import MesaObjective


def brief(value: object) -> str:
    """Return a value in short: a tensor as torch shows one on the meta device, a function by its name.

    Examples
    --------
    >>> import torch
    >>> print(brief((torch.zeros(362, 64), torch.zeros(362, dtype=torch.int64))))
    (tensor(..., size=(362, 64)), tensor(..., size=(362,), dtype=torch.int64))
    >>> print(brief(functools.partial(torch.optim.SGD, lr=0.1)))
    functools.partial(SGD, lr=0.1)
    """
    if isinstance(value, Tensor):
        dtype = "" if value.dtype == torch.get_default_dtype() else f", dtype={value.dtype}"
        return f"tensor(..., size={tuple(value.shape)}{dtype})"
    if isinstance(value, tuple):
        return f"({', '.join(map(brief, value))}{',' * (len(value) == 1)})"
    if isinstance(value, functools.partial):
        fixed = [*map(brief, value.args), *(f"{name}={brief(one)}" for name, one in value.keywords.items())]
        return f"functools.partial({', '.join([brief(value.func), *fixed])})"
    if isinstance(value, MesaObjective):
        return value.name
    name = getattr(value, "__qualname__", None)
    return name.rpartition("<locals>.")[2] if isinstance(name, str) else " ".join(reprlib.repr(value).split())
