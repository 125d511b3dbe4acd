"""What is compiled is rewritten to what a CPU does faster, and gives the same numbers to rounding."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import cross_entropy, embedding, log_softmax

import alignment_checks as ac
from alignment_checks.backends.compilation import compiled
from alignment_checks.backends.compilation.rewriting import (
    embeddings_apart,
    exponentials_once,
    rational_tanh,
    transposed_products,
)

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


LABELS = torch.tensor([1, 0, 3, -100, 2])
PUSHES = {
    "a mean": (lambda z: cross_entropy(z, LABELS), True),
    "a sum of some": (lambda z: (cross_entropy(z, LABELS, reduction="none") * torch.arange(5.0)).sum(), True),
    "all ignored": (lambda z: cross_entropy(z, torch.full((5,), -100)) + z.square().sum(), True),
    "weights of classes": (lambda z: cross_entropy(z, LABELS, torch.arange(1.0, 5)), False),
    "smoothed labels": (lambda z: cross_entropy(z, LABELS, label_smoothing=0.1), False),
    "a share of each class": (lambda z: cross_entropy(z, torch.softmax(torch.eye(5, 4), 1)), False),
    "images, which are viewed otherwise": (lambda z: cross_entropy(z.mT[None], LABELS[None]), False),
    "over examples": (lambda z: log_softmax(z, 0).square().sum(), False),
    "twice": (lambda z: log_softmax(z, -1).exp()[:, 0].sum() + log_softmax(z, 1)[0, 1].square(), False),
}


@pytest.mark.parametrize("case", PUSHES)
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_log_softmax_and_its_gradient_by_the_same_exponentials_are_the_same_numbers(case, scale):
    """Of logits of a size such that most of their exponentials are 0, too."""
    loss, of_one_class = PUSHES[case]
    logits = scale * torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    found = torch.func.vmap(torch.func.grad_and_value(loss))
    graph = make_fx(found)(logits)
    assert aten._log_softmax_backward_data.default in targets(graph)
    exponentials_once(graph)
    assert {aten._log_softmax_backward_data.default, aten._log_softmax.default}.isdisjoint(targets(graph))
    graph.graph.eliminate_dead_code()
    assert (aten.scatter.value not in targets(graph) and aten.where.self in targets(graph)) is of_one_class
    torch.testing.assert_close(graph(logits), found(logits), equal_nan=True)


def test_exponentials_of_wider_numbers_and_of_narrower_ones_are_left_as_they_are():
    for dtype in (torch.float64, torch.bfloat16):
        graph = make_fx(torch.func.grad(lambda z: cross_entropy(z, LABELS)))(torch.ones(5, 4, dtype=dtype))
        exponentials_once(graph)
        assert aten._log_softmax_backward_data.default in targets(graph)


def test_a_token_model_whose_graph_is_rewritten_equals_the_loop(compiling, monkeypatch):
    """Its products are transposed, the gradient of its embedding is added up apart, its exponentials are taken once."""
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
    gone = {aten.tanh.default, aten.embedding_dense_backward.default, aten._log_softmax.default}
    assert all(gone.isdisjoint(kept) for kept in seen)
    assert any(aten.index_put.default in kept for kept in seen)
