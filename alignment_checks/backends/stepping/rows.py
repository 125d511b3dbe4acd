"""Lanes flattened: all parameters of a lane as one row, so that an operation of an optimizer is one call for all."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.backends.stepping.aligned import ALIGNED


class Rows:
    """Stacked tensors of one dtype as the rows of a matrix, one for each lane.

    Parameters
    ----------
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        What is copied into the rows, and from them by `write`.
    unused : collection of str
        Names of those that have no gradient: they stay by themselves.
    """

    def __init__(self, weights: Mapping[str, Tensor], unused: Collection[str] = ()) -> None:
        self.order = list(weights)
        self.weights = {name: value for name, value in weights.items() if name not in unused}
        self.others = {name: nn.Parameter(value) for name, value in weights.items() if name in unused}
        some = next(iter(self.weights.values()))
        self.lanes, self.sizes = len(some), [value[0].numel() for value in self.weights.values()]
        self.rest = some.new_zeros(self.lanes, -sum(self.sizes) % ALIGNED)
        self.used = sum(self.sizes)
        self.parameter = nn.Parameter(self.joined(self.weights))
        self.views = self.parts(self.parameter.detach())

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What an optimizer is over."""
        return [self.parameter, *self.others.values()]

    def joined(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return tensors of the form of the weights as rows."""
        return torch.cat([*(values[name].reshape(self.lanes, -1) for name in self.weights), self.rest], 1)

    def parts(self, rows: Tensor) -> dict[str, Tensor]:
        """Return views of rows in the form of the weights, or of one row in that of a lane's."""
        first, parts = 0, {}
        for (name, weight), size in zip(self.weights.items(), self.sizes, strict=True):
            parts[name] = rows.narrow(-1, first, size).view((*rows.shape[:-1], *weight.shape[1:]))
            first += size
        return parts

    def row(self, lane: int) -> Tensor:
        """Return all elements of a lane, in the memory of the parameter."""
        return self.parameter.detach().select(0, lane).narrow(0, 0, self.used)

    def write(self) -> None:
        """Copy the rows to the weights."""
        if self.parameter.data_ptr() != next(iter(self.views.values())).data_ptr():  # another was put in its place
            self.views = self.parts(self.parameter.detach())
        torch._foreach_copy_(list(self.weights.values()), list(self.views.values()))

    @contextmanager
    def unfolded(self, optimizer: Optimizer) -> Iterator[dict[str, Tensor]]:
        """Let an optimizer over the rows look like one over the stacked tensors, its state split; yield those."""
        state, (group,) = optimizer.state, optimizer.param_groups
        split: defaultdict[Any, Any] = defaultdict(
            dict, {key: kept for key, kept in state.items() if key is not self.parameter}
        )
        if self.parameter in state:
            split.update({view: self._of(name, state[self.parameter]) for name, view in self.views.items()})
        stacked: dict[str, Tensor] = {name: {**self.views, **self.others}[name] for name in self.order}
        optimizer.state, group["params"] = split, list(stacked.values())
        try:
            yield stacked
        finally:
            optimizer.state, group["params"] = state, self.parameters

    def _of(self, name: str, kept: Any) -> Any:
        """Return what is kept for one of the tensors, views of what has the shape of the rows."""
        if isinstance(kept, dict):
            return {key: self._of(name, value) for key, value in kept.items()}
        if isinstance(kept, list):
            return [self._of(name, value) for value in kept]
        return self.parts(kept)[name] if isinstance(kept, Tensor) and kept.shape == self.parameter.shape else kept


def are_one_group(optimizer: Optimizer, parameters: Sequence[Tensor]) -> bool:
    """Return whether an optimizer has these parameters as one group, in this order, and they are of one dtype."""
    (first, *more) = optimizer.param_groups
    same = len(first["params"]) == len(parameters) and all(map(operator.is_, first["params"], parameters))
    return same and not more and len({value.dtype for value in parameters}) == 1
