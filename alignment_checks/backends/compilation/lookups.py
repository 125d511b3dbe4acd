"""A traced graph that multiplies rows of an embedding by a matrix: the embedding is multiplied, the products looked up.

Where there are more examples than tokens, each row would be multiplied as often as it is looked up. On the way back,
what comes to each row is added up before it is multiplied. The gradients of two token models of 27 tokens, of 32 and of
128 hidden units, take 0.78 and 0.68 of the time for it, on one core and in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from alignment_checks.backends.compilation.rewriting import VIEWS, is_single, replace, unmerged, views_as_reshapes

_aten = torch.ops.aten
Node = Any
"""A node of a graph, or None. Torch says of its arguments that they may be of many types."""


class _Lookup(NamedTuple):
    """Rows of an embedding of each lane, put side by side.

    Attributes
    ----------
    table : Node
        The embedding, of shape (lanes, tokens, width).
    indices : Node
        Those that all lanes look up: as many as `rows` times `each`.
    rows, each : int
        How many rows it gives, and how many of the embedding are side by side in each.
    """

    table: Node
    indices: Node
    rows: int
    each: int

    @property
    def size(self) -> torch.Size:
        """The embedding's shape."""
        size: torch.Size = self.table.meta["val"].shape
        return size

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the rows."""
        return self.size[0], self.rows, self.each * self.size[2]

    @property
    def key(self) -> tuple[Node, tuple[int, ...]]:
        """What tells its embedding's gradient: the indices, and the shape that the lanes' have side by side."""
        lanes, tokens, width = self.size
        return self.indices, (tokens, lanes * width)


def products_looked_up(graph: fx.GraphModule) -> None:
    """Multiply embeddings rather than what is looked up in them, in place, and add up gradients before products."""
    nodes, sums, found = graph.graph, dict[tuple[Node, Node, int], Node](), False
    products = nodes.find_nodes(op="call_function", target=_aten.bmm.default)
    looked = {node: [_lookup(one) for one in node.args] for node in products if is_single(node)}
    known = {one.key: one for pair in looked.values() for one in pair if one is not None}
    for node in nodes.find_nodes(op="call_function", target=_aten.embedding_dense_backward.default):
        lookup, product = known.get((node.args[1], tuple(node.meta["val"].shape))), _pushed(node)
        if lookup is not None and product in looked and product.meta["val"].shape == lookup.shape:
            with nodes.inserting_before(node):
                replace(node, _of_embedding(nodes, node, product, lookup, sums))
            found = True
    for node, (left, right) in looked.items():
        with nodes.inserting_before(node):
            if left is not None:
                replace(node, _forward(nodes, node, left))
            elif right is not None:
                replace(node, _of_weights(nodes, node, right, sums))
        found = found or left is not None or right is not None
    if found:
        nodes.eliminate_dead_code()
        views_as_reshapes(graph)


def _lookup(operand: Node) -> _Lookup | None:
    """Return what a matrix of each lane is looked up in; None where that is nothing, or brings nothing."""
    rows_of = _bare(operand)
    split = _permuted(unmerged(rows_of) or rows_of, -2, 0)
    looked = None if split is None or split.target not in VIEWS else split.args[0]
    if looked is None or looked.target is not _aten.embedding.default:
        return None
    flat, indices = looked.args[:2]
    table = _permuted(unmerged(flat), 1, 0)
    if table is None or len(table.meta["val"].shape) != 3:
        return None
    (lanes, tokens, width), shape = table.meta["val"].shape, indices.meta["val"].shape
    _, rows, columns = rows_of.meta["val"].shape
    whole = split.meta["val"].shape == (*shape, lanes, width) and columns % width == 0
    if not whole or rows * (columns // width) != shape.numel() or tokens * max(_LEAST, columns // width) > rows:
        return None
    return _Lookup(table, indices, rows, columns // width)


_LEAST = 2
"""So many times as many rows as tokens are worth it; more of them where products would take more memory than rows."""


def _pushed(node: Node) -> Node:
    """Return the product that the gradient of an embedding is of, None where it is of anything else."""
    gradient, _, _, padding, scaled = node.args
    split = None if padding != -1 or scaled else _permuted(unmerged(gradient), 0, -2)
    if split is None:
        return None
    of = _bare(split)
    return _bare(of.args[0]) if of.target in VIEWS else of


def _forward(nodes: fx.Graph, node: Node, lookup: _Lookup) -> Node:
    """Return looked-up rows times a matrix: the sum of the products of each."""
    call, (lanes, tokens, width), (_, _, columns) = nodes.call_function, lookup.size, node.meta["val"].shape
    matrix = _apart(nodes, node.args[1], [lanes, lookup.each, width, columns], [lanes, width, lookup.each * columns])
    product = call(_aten.bmm.default, (lookup.table, matrix))
    table = call(_aten.reshape.default, (product, [lanes, tokens, lookup.each, columns]))
    found = call(_aten.index.Tensor, (table, _places(nodes, lookup)))
    return call(_aten.sum.dim_IntList, (found, [2]))


def _of_weights(nodes: fx.Graph, node: Node, lookup: _Lookup, sums: dict[Any, Node]) -> Node:
    """Return a transposed gradient times looked-up rows: the gradient of the matrix that these were multiplied by."""
    call, (lanes, tokens, width), (_, rows, _) = nodes.call_function, lookup.size, node.meta["val"].shape
    total = _sum(nodes, _transposed(nodes, node.args[0]), lookup, rows, sums)
    flat = call(_aten.reshape.default, (total, [lanes, tokens, lookup.each * rows]))
    product = call(_aten.bmm.default, (call(_aten.permute.default, (flat, [0, 2, 1])), lookup.table))
    return _apart(nodes, product, [lanes, lookup.each, rows, width], [lanes, rows, lookup.each * width])


def _of_embedding(nodes: fx.Graph, node: Node, product: Node, lookup: _Lookup, sums: dict[Any, Node]) -> Node:
    """Return the gradient of the embedding, the lanes' side by side."""
    call, (lanes, tokens, width), (push, matrix) = nodes.call_function, lookup.size, product.args
    inner = matrix.meta["val"].shape[1]
    total = _sum(nodes, _bare(push), lookup, inner, sums)
    flat = call(_aten.reshape.default, (total, [lanes, tokens, lookup.each * inner]))
    back = _apart(nodes, matrix, [lanes, inner, lookup.each, width], [lanes, lookup.each * inner, width])
    gradient = call(_aten.bmm.default, (flat, back))
    beside = call(_aten.permute.default, (gradient, [1, 0, 2]))
    return call(_aten.reshape.default, (beside, list(node.meta["val"].shape)))


def _sum(nodes: fx.Graph, push: Node, lookup: _Lookup, columns: int, sums: dict[Any, Node]) -> Node:
    """Return what comes to each token at each of its places, of shape (lanes, tokens, each, columns)."""
    like = lookup.table.meta["val"]
    lanes, tokens, _ = like.shape
    key = (push, lookup.indices, tokens, lookup.each)
    if key not in sums:
        with nodes.inserting_before(_after(push, lookup.indices)):  # whatever else adds it up comes later than both
            call = nodes.call_function
            size, of = [lanes, tokens, lookup.each, columns], {"dtype": like.dtype, "device": like.device}
            zeros = call(_aten.full.default, (size, 0.0), of)
            single = call(_aten.unsqueeze.default, (push, 2))
            values = call(_aten.expand.default, (single, [lanes, lookup.rows, lookup.each, columns]))
            sums[key] = call(_aten.index_put.default, (zeros, _places(nodes, lookup), values, True))
    return sums[key]


def _after(one: Node, other: Node) -> Node:
    """Return the first node before which two others, and all inputs of the graph, stand."""
    last = max(one, other)  # nodes compare as they stand in their graph
    while last.op == last.next.op == "placeholder":
        last = last.next
    return last.next


def _places(nodes: fx.Graph, lookup: _Lookup) -> list[Node | None]:
    """Return indices into (lanes, tokens, each, ...) that look up what of each row is side by side."""
    device = lookup.indices.meta["val"].device
    which = nodes.call_function(_aten.reshape.default, (lookup.indices, [lookup.rows, lookup.each]))
    return [None, which, nodes.call_function(_aten.arange.default, (lookup.each,), {"device": device})]


def _apart(nodes: fx.Graph, x: Node, split: list[int], size: list[int]) -> Node:
    """Return a matrix of each lane with the two axes in its middle, of its four when split, the other way round."""
    parts = nodes.call_function(_aten.reshape.default, (x, split))
    turned = nodes.call_function(_aten.permute.default, (parts, [0, 2, 1, 3]))
    return nodes.call_function(_aten.reshape.default, (turned, size))


def _bare(node: Node) -> Node:
    """Return what a node is another name of, in the same shape."""
    while node.target in _NAMES and node.args[0].meta["val"].shape == node.meta["val"].shape:
        node = node.args[0]
    return node


_NAMES = (*VIEWS, _aten.expand.default)


def _transposed(nodes: fx.Graph, node: Node) -> Node:
    of = _bare(node)
    if of.target is _aten.transpose.int and set(of.args[1:]) == {1, 2}:
        return _bare(of.args[0])
    return nodes.call_function(_aten.permute.default, (node, [0, 2, 1]))


def _permuted(node: Node, axis: int, to: int) -> Node:
    """Return what a node is with one axis put elsewhere and the others in their order; None if it is not that."""
    if node is None or node.target is not _aten.permute.default:
        return None
    of, order = node.args
    axes = list(range(len(order)))
    axes.insert(to % len(order), axes.pop(axis))
    return of if list(order) == axes else None
