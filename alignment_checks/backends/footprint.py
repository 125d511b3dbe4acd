"""What one step of one run takes, seen by taking one gradient at θ(0)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_checks import seeding
from alignment_checks.inner_state import inner_state
from alignment_checks.realization import Realization, loss_of


@dataclass(frozen=True)
class Footprint:
    """What one step of one run takes.

    Attributes
    ----------
    bytes : int
        What the weights, what stands beside them, and what autograd saves take.
    unused, sparse : tuple of str
        The parameters that the loss does not use, and those whose gradient is sparse.
    stateful : bool
        Whether a call changes what the model or the objective holds beside buffers, and so what later calls give.
    convolves : bool
        Whether it convolves, which takes a core longer than its bytes tell.
    minibatch : float
        Which part of the examples a step takes beside measuring all of them; 0 where it takes the measured gradient.
    writes : bool
        Whether a call writes into parameters, which lanes would not keep.
    """

    bytes: int
    unused: tuple[str, ...]
    sparse: tuple[str, ...]
    stateful: bool = False
    convolves: bool = False
    minibatch: float = 0.0
    writes: bool = False


def footprint(run: Realization) -> Footprint:
    """Take one gradient at θ(0) and see what it needs."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = {name: value.clone().requires_grad_() for name, value in run.parameters.items()}
    constants = {name: value.clone() for name, value in run.constants.items()}
    module = deepcopy(run.module)
    buffers = {name for name, _ in module.named_buffers()}
    writes = _Writes(value for name, value in {**parameters, **constants}.items() if name not in buffers)

    def loss_at() -> Tensor:
        outputs = functional_call(module, {**parameters, **constants}, run.inputs)
        return loss_of(run)(outputs, run.targets, parameters)

    with seeding.isolated(seeding.derive("run", run.seed)):
        with writes:
            loss_at().detach()  # what is kept from the first call on, such as a cache, is no state
        before = inner_state(module, run.objective)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_at()
        stateful = inner_state(module, run.objective) != before
        convolves = any("Convolution" in operation for operation in _operations(loss))
        gradient = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    weights = sum(value.nbytes for value in parameters.values())
    of = dict(zip(parameters, gradient, strict=True))
    unused = tuple(name for name, g in of.items() if g is None)
    sparse = tuple(name for name, g in of.items() if g is not None and g.layout != torch.strided)
    minibatch = 0.0 if run.batch_size is None else run.batch_size / run.examples
    return Footprint(
        _COPIES * weights + sum(saved.values()), unused, sparse, stateful, convolves, minibatch, writes.seen
    )


_COPIES = 6
"""A parameter stands beside its gradient, two moments, and what the step needs for a moment."""


class _Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, sees whether anything writes into the memory of tensors, be it by way of `.data`."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory, self.seen = {value.untyped_storage().data_ptr() for value in values} - {0}, False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named, arguments = kwargs or {}, func._schema.arguments
        if func._schema.is_mutable:
            given = {**dict(zip((one.name for one in arguments), args, strict=False)), **named}
            self.seen |= any(self._watches(given.get(one.name)) for one in arguments if one.is_write)
        return func(*args, **named)

    def _watches(self, value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return any(map(self._watches, value))
        return isinstance(value, Tensor) and value.untyped_storage().data_ptr() in self.memory


def _operations(loss: Tensor) -> Iterator[str]:
    """Yield the names of the operations that a loss was computed by."""
    left, seen = [loss.grad_fn], {loss.grad_fn}
    while left:
        node = left.pop()
        if node is not None:
            yield node.name()
            new = {before for before, _ in node.next_functions} - seen
            seen |= new
            left += new
