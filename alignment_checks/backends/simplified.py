"""A traced graph without the operations that change no bit of what it gives."""

from __future__ import annotations

import torch
from torch import fx
from torch.fx.passes.dialect.common.cse_pass import CSEPass, get_CSE_banned_ops

aten = torch.ops.aten


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
    graph.graph.eliminate_dead_code()
    graph.recompile()
    found = CSEPass(banned_ops=get_CSE_banned_ops())(graph)
    return graph if found is None else found.graph_module


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _same(node: fx.Node) -> fx.Node:
    """Return the first of the tensors that a node is a view of which is the very same; itself, if there is none."""
    found = at = node
    while _is_view(at) or _is_times_one(at):
        at = at.all_input_nodes[0]
        found = at if _layout(at) == _layout(node) else found
    return found


def _is_view(node: fx.Node) -> bool:
    """Return whether a node gives the memory of its first argument in another form."""
    schema = getattr(node.target, "_schema", None)
    views = schema is not None and len(schema.returns) == 1 and schema.returns[0].alias_info is not None
    return (views or node.target is aten._unsafe_view.default) and isinstance(node.meta["val"], torch.Tensor)


def _is_times_one(node: fx.Node) -> bool:
    """Return whether a node is what a bias becomes on the way into a product: 1 times it, which nobody is given."""
    ones = node.target is aten.mul.Scalar and node.args[1:] == (1,)
    return ones and _layout(node) == _layout(node.all_input_nodes[0]) and not _is_given(node)


def _is_given(node: fx.Node) -> bool:
    """Return whether what calls the graph gets a node's memory."""
    return any(user.op == "output" or (_is_view(user) and _is_given(user)) for user in node.users)


def _layout(node: fx.Node) -> tuple[object, ...]:
    value = node.meta["val"]
    return value.dtype, value.shape, value.stride(), value.storage_offset()
