"""Copies of modules, as `copy.deepcopy` makes them, in half of its time."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import Any, TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)

_CONTAINERS = (dict, OrderedDict, set)
"""What torch keeps of a module beside its parts: most of it hooks that nobody has registered."""


def copied(module: Module) -> Module:
    """Return a deep copy of a module.

    A module holds a dozen containers for each of its parts, and nearly all are empty. `deepcopy` takes half of its time
    to reconstruct those; here it is told beforehand that the copy of an empty one is another empty one.

    Examples
    --------
    >>> layer = nn.Linear(2, 3)
    >>> other = copied(layer)
    >>> other.weight is layer.weight, other.weight.equal(layer.weight), other._forward_hooks is layer._forward_hooks
    (False, True, False)
    """
    known: dict[int, Any] = {}
    for part in module.modules():
        known.update((id(one), type(one)()) for one in vars(part).values() if type(one) in _CONTAINERS and not one)
    return deepcopy(module, known)
