"""What is compiled is rewritten to what a CPU does faster, and gives the same numbers to rounding."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import cross_entropy, embedding

import alignment_checks as ac
from alignment_checks.backends import compiled
from alignment_checks.backends.rewriting import embeddings_apart, rational_tanh, transposed_products

aten = torch.ops.aten


def targets(graph):
    return {node.target for node in graph.graph.nodes}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own making
def test_tanh_in_compiled_code_is_right_to_three_epsilons_near_zero_too():
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.logspace(-35, 0, 10_001), torch.tensor([0.0, 100.0, -1e30])])
    run = compiled.compiled(compiled.Traced(make_fx(lambda x: [torch.tanh(x)])(x), [x]))
    (found,) = run([x])
    exact = torch.tanh(x.double())
    assert ((found.double() - exact).abs() <= 3 * 2**-23 * exact.abs()).all()
    edges = torch.full_like(x, torch.nan)
    edges[:3] = torch.tensor([torch.inf, -torch.inf, -0.0])
    (found,) = run([edges])
    assert found[:2].tolist() == [1, -1]
    assert found[2].signbit()
    assert found[3:].isnan().all()


def test_tanh_of_a_wider_dtype_is_left_as_it_is():
    graph = make_fx(torch.tanh)(torch.ones(2, dtype=torch.float64))
    rational_tanh(graph)
    assert aten.tanh.default in targets(graph)


SHAPES = {"short rows": (3, 20, 5, True), "whole vectors": (3, 20, 16, False), "fewer rows": (3, 4, 5, False)}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_short_rows_alone_are_transposed_and_are_the_same_numbers(case, dtype):
    lanes, rows, columns, short = SHAPES[case]
    a, b = torch.randn(lanes, rows, 7, dtype=dtype), torch.randn(lanes, columns, 7, dtype=dtype)
    product = lambda a, b: torch.bmm(a, b.mT).view(lanes, -1)  # noqa: E731
    graph = make_fx(product)(a, b)
    transposed_products(graph)
    (node,) = graph.graph.find_nodes(op="call_function", target=aten.bmm.default)
    assert (node.args[1].target is aten.permute.default) is (short and dtype is torch.float32)
    torch.testing.assert_close(graph(a, b), product(a, b))


@pytest.mark.parametrize("padding", [None, 2])
def test_the_gradient_of_an_embedding_in_lanes_is_the_same_number(padding):
    tokens = torch.tensor([[0, 1, 1], [4, 2, 0]])

    def gradient(weights):
        def loss(weight):
            return embedding(tokens, weight, padding).square().sum() * weight[0, 0]

        return torch.func.vmap(torch.func.grad(loss))(weights)

    weights = torch.randn(3, 5, 2)
    graph = make_fx(gradient)(weights)
    assert aten.embedding_dense_backward.default in targets(graph)
    embeddings_apart(graph)
    assert (aten.embedding_dense_backward.default in targets(graph)) is (padding is not None)
    torch.testing.assert_close(graph(weights), gradient(weights))


def test_a_token_model_whose_graph_is_rewritten_equals_the_loop(compiling, monkeypatch):
    """Its products are transposed and the gradient of its embedding is added up apart."""
    seen = []
    monkeypatch.setattr(compiled, "rational_tanh", lambda graph: (rational_tanh(graph), seen.append(targets(graph))))
    random = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 7, (20, 2), generator=random), torch.randint(0, 7, (20,), generator=random)
    setup = ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 7)),
        data=(x, y),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=5,
    )
    found, loop = (ac.run(setup, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-5)
    np.testing.assert_allclose(found.mesa, loop.mesa, rtol=1e-4)
    assert {run.reason for run in found.runs} == {None}
    assert seen
    assert all({aten.tanh.default, aten.embedding_dense_backward.default}.isdisjoint(kept) for kept in seen)
    assert any(aten.index_put.default in kept for kept in seen)
