"""Dropout between the layers of a recurrent network: torch runs it layer by layer, and masks are drawn in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from alignment_checks.randomness.random_operations import Source

Recurrent = Callable[..., tuple[Tensor, ...]]
"""One of torch's recurrent operations: its outputs, and the last state of each layer, in one tensor or two."""


def _dropping(operation: Recurrent) -> Recurrent:
    """Return a recurrent operation that draws its dropout masks from a source; packed sequences are left to torch."""

    def dropped(draw: Source, *arguments: Any, **named: Any) -> tuple[Tensor, ...]:
        if named or len(arguments) != 9 or not _drops(*arguments[4:7]):
            return operation(*arguments, **named)
        x, state, weights, biases, layers, p, train, both, first = arguments
        states, each = state if isinstance(state, (tuple, list)) else (state,), len(weights) // layers
        ways, last = 2 if both else 1, list[tuple[Tensor, ...]]()
        for layer in range(layers):
            own = tuple(one[ways * layer : ways * (layer + 1)] for one in states)
            of = weights[each * layer : each * (layer + 1)]
            x, *after = operation(x, own if len(own) > 1 else own[0], of, biases, 1, 0.0, train, both, first)
            last.append(tuple(after))
            if layer < layers - 1:
                x = x * draw.below(1 - p, x) / (1 - p) if p < 1 else x * 0
        return (x, *(torch.cat(parts) for parts in zip(*last, strict=True)))

    return dropped


def _drops(layers: Any, p: Any, train: Any) -> bool:
    """Return whether these arguments are of an operation on a plain tensor that draws a mask."""
    return isinstance(p, float) and isinstance(layers, int) and layers > 1 and p > 0 and bool(train)


RECURRENT: Mapping[Recurrent, Callable[..., tuple[Tensor, ...]]] = MappingProxyType(
    {operation: _dropping(operation) for operation in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)}
)
"""torch's recurrent operations, and what runs them in their place."""
