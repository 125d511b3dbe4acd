"""Rows of an embedding that are multiplied by a matrix: products are looked up, and the numbers are the same."""

import pytest
import torch
from hypothesis import given as drawing
from hypothesis import strategies as st
from torch.func import grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import embedding, linear

from alignment_checks.backends.compilation.lookups import products_looked_up

aten = torch.ops.aten
LANES, TOKENS, WIDTH, HIDDEN = 3, 5, 4, 6


def drawn(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(len(shape)))


def tokens(*shape):
    return torch.randint(0, TOKENS, shape, generator=torch.Generator().manual_seed(0))


def flat(x):
    return x.flatten(1)


def several(indices, dtype=torch.float32, between=flat, padding=None):
    """Return a loss of an embedding, of another one, of a matrix and of indices; these, the last for all lanes."""
    each = WIDTH * (indices.shape[1] if between is flat and indices.ndim > 1 else 1)

    def loss(table, other, matrix, indices):
        rows = between(embedding(indices, table, padding))
        return linear(rows, matrix).tanh().square().sum() + other.sum()

    shapes = (TOKENS, WIDTH), (1, WIDTH), (HIDDEN, each)
    return loss, [*(drawn(LANES, *shape, dtype=dtype) for shape in shapes), indices]


def twice(indices):
    """Return a loss whose looked-up rows meet two matrices, so that no gradient of them is of one product."""
    _, given = several(indices)

    def loss(table, other, matrix, indices):
        rows = flat(embedding(indices, table))
        return (linear(rows, matrix).tanh() + linear(rows, matrix.square())).square().sum() + other.sum()

    return loss, given


def side_by_side(indices):
    """Return a loss of two embeddings of the same indices, of which another one is wider."""
    loss, given = several(indices)
    given[1] = drawn(LANES, TOKENS, HIDDEN)

    def both(table, other, matrix, indices):
        return loss(table, other[:1], matrix, indices) + (embedding(indices, other) @ matrix[:, :1]).square().sum()

    return both, given


def of_two_vocabularies(indices):
    """Return a loss of two embeddings of the same indices, one of more tokens, whose products are added."""
    _, given = several(indices)
    given[1] = drawn(LANES, TOKENS + 2, WIDTH)

    def added(table, other, matrix, indices):
        rows = flat(embedding(indices, table)), flat(embedding(indices, other))
        return (linear(rows[0], matrix) + linear(rows[1], matrix.square())).tanh().square().sum()

    return added, given


REWRITTEN = {
    "several tokens to a row": several(tokens(20, 3)),
    "one token to a row": several(tokens(20)),
    "a row for each of a sequence's": several(tokens(10, 2), between=lambda x: x),
    "a padding token, whose gradient is left out": several(tokens(20, 3), padding=1),
    "by two matrices": twice(tokens(20, 3)),
    "beside another embedding of the same tokens": side_by_side(tokens(20, 3)),
    "beside another embedding, of more tokens, with the same gradient": of_two_vocabularies(tokens(40, 3)),
}
LEFT = {
    "hardly more rows than tokens": several(tokens(8)),
    "more products than rows": several(tokens(12, 3)),
    "wider numbers": several(tokens(20, 3), torch.float64),
    "rows that are changed before": several(tokens(20), between=torch.tanh),
}


def operations(graph):
    return [node.target for node in graph.graph.nodes]


def rewritten(case):
    """Return how the gradient is traced, rewritten, what it should give, and what it gives."""
    loss, given = case
    function = vmap(grad_and_value(loss, argnums=(0, 1, 2)), in_dims=(0, 0, 0, None))
    graph = make_fx(function)(*given)
    before = operations(graph)
    products_looked_up(graph)
    return before, operations(graph), function(*given), graph(*given)


KEPT = ("a padding token, whose gradient is left out", "by two matrices")


@pytest.mark.parametrize("case", REWRITTEN)
def test_looked_up_products_and_their_gradients_are_the_same_numbers(case):
    before, after, expected, found = rewritten(REWRITTEN[case])
    torch.testing.assert_close(found, expected)
    assert aten.index.Tensor in after
    assert aten.index.Tensor not in before
    assert (aten.embedding_dense_backward.default in after) is (case in KEPT)


def test_nothing_of_the_size_of_the_examples_is_multiplied():
    """Neither forward, nor for the gradient of the embedding or of the matrix: what comes to each token is added up."""
    _, after, _, _ = rewritten(REWRITTEN["several tokens to a row"])
    assert {aten.embedding.default, aten.embedding_dense_backward.default}.isdisjoint(after)
    assert after.count(aten.index_put.default) == 1
    assert after.count(aten.bmm.default) == 3


@pytest.mark.parametrize("case", LEFT)
def test_what_it_brings_nothing_to_or_what_is_not_looked_up_is_left_as_it_is(case):
    before, after, expected, found = rewritten(LEFT[case])
    assert before == after
    torch.testing.assert_close(found, expected)


@drawing(order=st.permutations(range(3)), computed=st.booleans(), activated=st.booleans(), turned=st.booleans())
def test_nothing_is_looked_up_or_added_up_before_it_is_there(order, computed, activated, turned):
    """Whichever of the matrix, the embedding and the indices comes first, as an input or as what is computed of one."""
    indices = tokens(20, 3)
    given = drawn(LANES, *((20, HIDDEN) if turned else (HIDDEN, 20))), drawn(LANES, TOKENS, WIDTH), indices

    def loss(*placed):
        matrix, table, indices = (placed[order.index(one)] for one in range(3))
        matrix = matrix.tanh() if activated else matrix
        rows = embedding((indices + 1) % TOKENS if computed else indices, table).flatten(1)
        return ((matrix.transpose(0, 1) if turned else matrix) @ rows).tanh().square().sum()

    lanes, weights = [None if one == 2 else 0 for one in order], tuple(at for at, one in enumerate(order) if one != 2)
    function, placed = vmap(grad_and_value(loss, argnums=weights), in_dims=tuple(lanes)), [given[one] for one in order]
    graph = make_fx(function)(*placed)
    products_looked_up(graph)
    graph.graph.lint()
    kinds = [node.op for node in graph.graph.nodes]
    assert aten.index_put.default in operations(graph)
    assert kinds[:3] == ["placeholder"] * 3
    torch.testing.assert_close(graph(*placed), function(*placed), rtol=1e-3, atol=1e-4)
