"""A traced graph without the operations that change no bit of what it gives, and without Python between the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import map_arg

_aten = torch.ops.aten


def simplified(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph that gives the same bits by fewer operations.

    What `vmap` and `grad` leave is full of views of a tensor as what it is already, and of operations that stand there
    twice: on small tensors each takes as long as one that computes something. A graph that writes in place is returned
    as it is.
    """
    if any(_writes(node) for node in graph.graph.nodes):
        return graph
    for node in graph.graph.nodes:
        same = _same(node)
        if same is not node:
            node.replace_all_uses_with(same)
    _compute_once(graph.graph)
    _give_apart(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def direct(graph: fx.GraphModule) -> fx.GraphModule:
    """Return the graph, in place, with its operations called directly: on small tensors, a tenth of their time."""
    for node in graph.graph.nodes:
        if type(node.target) is OpOverload:
            node.target = _called(node.target)
    graph.recompile()
    return graph


@cache
def _called(operation: OpOverload) -> Callable[..., Any]:
    """Return what calling an operation comes to; named, since a graph's code calls it by its name."""
    found = partial(operation._op)
    found.__name__, found.__module__ = str(operation).replace(".", "_"), __name__  # type: ignore[attr-defined]
    return found


def _compute_once(graph: fx.Graph) -> None:
    """Let operations of the same arguments be one, unless they draw at random.

    Arguments go by their repr, which tells a node by its name: 0.0 is equal to −0.0, and True to 1, and not the same.
    """
    first: dict[object, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "call_function" and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            same = first.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if same is not node:
                node.replace_all_uses_with(same)


def _give_apart(graph: fx.Graph) -> None:
    """Copy what is given out again, now that it is computed once: a step may write into each gradient that it gets."""
    (output,) = graph.find_nodes(op="output")
    seen: set[fx.Node] = set()

    def apart(node: fx.Node) -> fx.Node:
        memory = _viewed(node)
        if memory not in seen:
            seen.add(memory)
            return node
        with graph.inserting_before(output):
            return graph.call_function(_aten.clone.default, (node,))

    output.args = map_arg(output.args, apart)


def _viewed(node: fx.Node) -> fx.Node:
    """Return the node whose memory a node gives."""
    while _is_view(node):
        node = node.all_input_nodes[0]
    return node


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _same(node: fx.Node) -> fx.Node:
    """Return the first of the tensors that a node is a view of which is the very same; itself, if there is none."""
    found = at = node
    while (_is_view(at) and at.target not in _OTHERWISE) or _is_times_one(at):
        at = at.all_input_nodes[0]
        found = at if _layout(at) == _layout(node) else found
    return found


def _is_view(node: fx.Node) -> bool:
    """Return whether a node gives the memory of its first argument in another form."""
    views = isinstance(node.target, OpOverload) and node.target.is_view
    return (views or node.target is _aten._unsafe_view.default) and isinstance(node.meta["val"], torch.Tensor)


def _is_times_one(node: fx.Node) -> bool:
    """Return whether a node is what a bias becomes on the way into a product: 1 times it, which nobody is given."""
    ones = node.target is _aten.mul.Scalar and node.args[1:] == (1,)
    return ones and _layout(node) == _layout(node.all_input_nodes[0]) and not _is_given(node)


def _is_given(node: fx.Node) -> bool:
    """Return whether what calls the graph gets a node's memory."""
    return any(user.op == "output" or (_is_view(user) and _is_given(user)) for user in node.users)


def _layout(node: fx.Node) -> tuple[object, ...]:
    value = node.meta["val"]
    return value.dtype, value.shape, value.stride()


_OTHERWISE = (_aten._conj.default, _aten._neg_view.default, _aten.as_strided.default)
"""Views that may have the layout of what they are of, and give other numbers; no other one does."""
