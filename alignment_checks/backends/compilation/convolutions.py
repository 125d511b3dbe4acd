"""Convolutions in a graph that is to be compiled: images channels last, as their kernels read them.

A batch of convolutions is one with a group of channels for each lane. oneDNN computes that from images whose channels
stand last; any other layout it copies there and back, at each call. Compiled code writes what the convolution is to
read in that layout to begin with. Measured on one core: the gradient of two small layers 1.2 times faster for it, and
twice as slow where TorchInductor chooses all layouts itself; of ten other shapes, all but one from as fast to twice
as fast, forward and backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from alignment_checks.backends.compilation.rewriting import views_as_reshapes

_aten = torch.ops.aten
_IMAGES: dict[Any, tuple[tuple[int, ...], int]] = {
    _aten.convolution.default: ((0, 1), 6),
    _aten.convolution_backward.default: ((0, 1, 2), 7),
}
"""Which arguments have channels, and which one says that the convolution is transposed."""


def channels_last(graph: fx.GraphModule) -> None:
    """Give convolutions of float32 images their arguments channels last, in place; others are left as they are."""
    laid: dict[fx.Node, fx.Node] = {}
    for node in [node for node in graph.graph.nodes if _is_of_images(node)]:
        for place in _IMAGES[node.target][0]:
            argument = node.args[place]
            if argument not in laid:
                laid[argument] = _laid(graph.graph, argument, node)
            node.update_arg(place, laid[argument])
    if laid:
        views_as_reshapes(graph)


def _is_of_images(node: fx.Node) -> bool:
    if node.target not in _IMAGES:
        return False
    first: torch.Tensor = node.args[0].meta["val"]  # type: ignore[union-attr]
    return first.ndim == 4 and first.dtype is torch.float32 and not node.args[_IMAGES[node.target][1]]


def _laid(graph: fx.Graph, argument: fx.Node, before: fx.Node) -> fx.Node:
    with graph.inserting_before(before):
        copy = graph.call_function(_aten.clone.default, (argument,), {"memory_format": torch.channels_last})
    copy.meta.update(argument.meta)
    return copy
