"""The tensors that a user's model and objective hold, or make, on the device that their runs are trained on.

`Module.to` moves parameters and buffers. Class weights in a `functools.partial`, a mask that is an attribute, and what
`forward` makes by `torch.arange` are the user's too: a setup that trains on a CPU has to train on an accelerator.
"""

from __future__ import annotations

import re
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy, deepcopy
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def placed(value: T, device: torch.device) -> T:
    """Return a value whose tensors are on a device; the value itself where they are there, else a copy.

    They are found in modules, in the arguments of a `functools.partial`, in the object that a method is of, in
    attributes of objects, and in lists, tuples and dicts of such; not in what a function closes over.

    Examples
    --------
    >>> from torch.nn.functional import cross_entropy
    >>> weighted = partial(cross_entropy, weight=torch.ones(3))
    >>> placed(weighted, torch.device("meta")).keywords["weight"].device
    device(type='meta')
    >>> placed(weighted, torch.device("cpu")) is weighted
    True
    """
    found: T = _Placed(device).of(value)
    return found


class _Placed:
    """What was moved to a device, each object once, by its identity."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.depth = device, 0
        self.known: dict[int, tuple[Any, Any]] = {}  # the first keeps its identity from being given away

    def of(self, value: Any) -> Any:
        """Return a value on the device; where it is held by itself, as it was."""
        if isinstance(value, (type, types.FunctionType, types.ModuleType)) or self.depth == _DEEPEST:
            return value
        if id(value) not in self.known:
            self.known[id(value)] = value, value
            self.depth += 1
            self.known[id(value)] = value, self.moved(value)
            self.depth -= 1
        return self.known[id(value)][1]

    def moved(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if self.here(value) else value.detach().to(self.device)
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, (partial, types.MethodType)):
            return self.callable(value)
        if type(value) in (list, tuple):
            items = self.changed(dict(enumerate(value)))
            return type(value)(items.get(at, item) for at, item in enumerate(value)) if items else value
        if type(value) is dict:
            return {**value, **changed} if (changed := self.changed(value)) else value
        return self.object(value)

    def here(self, value: Tensor) -> bool:
        return value.device.type == self.device.type and self.device.index in (None, value.device.index)

    def changed(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return the items of a mapping that were not on the device, there."""
        there = {key: self.of(item) for key, item in values.items() if type(item) not in _PLAIN}
        return {key: item for key, item in there.items() if item is not values[key]}

    def callable(self, value: partial[Any] | types.MethodType) -> Any:
        if isinstance(value, types.MethodType):
            owner = self.of(value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        parts = {"func": value.func, "args": value.args, "keywords": value.keywords}
        now = {**parts, **self.changed(parts)}
        same = all(now[name] is part for name, part in parts.items())
        return value if same else partial(now["func"], *now["args"], **now["keywords"])

    def module(self, module: nn.Module) -> nn.Module:
        """Return a module with all that it holds on the device, plain attributes included."""
        weights = [*module.parameters(), *module.buffers()]
        if all(map(self.here, weights)) and not any(self.changed(_attributes(part)) for part in module.modules()):
            return module
        there = {id(weight): self.weight(weight) for weight in weights}  # each once: some stand in a module twice
        moved = deepcopy(module, there).to(self.device)
        for part in moved.modules():
            vars(part).update(self.changed(_attributes(part)))
        return moved

    def weight(self, value: Tensor) -> Tensor:
        moved = value.detach().to(self.device, copy=True)
        return nn.Parameter(moved, value.requires_grad) if isinstance(value, nn.Parameter) else moved

    def object(self, value: Any) -> Any:
        attributes = getattr(value, "__dict__", None)
        changed = self.changed(attributes) if type(attributes) is dict else {}
        if not changed:
            return value
        moved = copy(value)
        vars(moved).update(changed)
        return moved


_DEEPEST = 12
"""What is held deeper than so many objects down is left where it is."""


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a module holds beside what torch knows of, but for what holds no tensor: most is empty hooks."""
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) not in _PLAIN and (type(value) not in _EMPTY or value) and name not in _OF_TORCH
    }


_OF_TORCH = ("_parameters", "_buffers", "_modules")
_PLAIN = frozenset((bool, int, float, str, type(None)))
_EMPTY = frozenset((dict, OrderedDict, list, set, tuple))


@contextmanager
def told_of(device: torch.device) -> Iterator[None]:
    """Say of an error about tensors of two devices, or of a device that failed, where it comes from, and what helps."""
    try:
        yield
    except RuntimeError as error:
        if device.type != "cpu" and is_of_two_devices(error):
            error.add_note(_ELSEWHERE.format(device=device))
        elif isinstance(error, torch.AcceleratorError):
            error.add_note(_FAILED.format(device=device))
        raise


def is_of_two_devices(error: Exception) -> bool:
    """Return whether torch says that tensors are on two devices; of those of a convolution it names the types alone.

    Examples
    --------
    >>> said = "Input type (torch.{}Tensor) and weight type (torch.{}Tensor) should be the same"
    >>> is_of_two_devices(RuntimeError(said.format("cuda.Float", "Float")))
    True
    >>> is_of_two_devices(RuntimeError(said.format("Double", "Float")))
    False
    """
    kinds = re.search(r"type \(torch\.([\w.]*?)\w+\) and \w+ type \(torch\.([\w.]*?)\w+\)", str(error))
    return "same device" in str(error) or (kinds is not None and kinds[1] != kinds[2])


_ELSEWHERE = (
    "The setup is trained on {device}, but its model, objective or optimizer uses a tensor on another device. Make it "
    "a buffer or an attribute of the model, or pass it to the objective with functools.partial; or train on the CPU, "
    "with device='cpu' or --alignment-device=cpu"
)
_FAILED = (
    "{device} failed, and this process can no longer use it. The cause may be an earlier operation: "
    "CUDA_LAUNCH_BLOCKING=1 shows which, and device='cpu' or --alignment-device=cpu usually shows what is wrong with it"
)


def beside(parameters: Mapping[str, Tensor]) -> AbstractContextManager[Any]:
    """Have what is made without a device made where the parameters are: a model written for a CPU names none."""
    return made_on(next(iter(parameters.values())).device)


def made_on(device: torch.device) -> AbstractContextManager[Any]:
    """Have what is made without a device made on this one; a context that can be entered again and again."""
    return nullcontext() if device.type == "cpu" else device
