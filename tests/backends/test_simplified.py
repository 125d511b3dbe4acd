"""A simplified graph gives the same bits by fewer operations, and what it gives is as much its own as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import cross_entropy, linear

import alignment_checks as ac
from alignment_checks.backends.compilation.simplified import direct, simplified

Function = Callable[..., Tensor | list[Tensor]]


def traced(function: Function, *values: Tensor) -> fx.GraphModule:
    graph = make_fx(function)(*values)
    graph.graph.eliminate_dead_code()
    return graph


def operations(graph: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def loss(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(linear(x, weight, bias).relu(), y)


def test_what_vmap_and_grad_leave_is_computed_by_fewer_operations_to_the_same_bits() -> None:
    values = numbers(3, 5, 4), numbers(3, 5), numbers(7, 4), torch.arange(7) % 5
    graph = traced(vmap(grad(loss, argnums=(0, 1)), in_dims=(0, 0, None, None)), *values)
    fewer = simplified(traced(vmap(grad(loss, argnums=(0, 1)), in_dims=(0, 0, None, None)), *values))
    assert len(operations(fewer)) < 0.8 * len(operations(graph))
    assert all(torch.equal(a, b) for a, b in zip(graph(*values), fewer(*values), strict=True))


def test_operations_called_directly_give_the_same_bits() -> None:
    def several(x: Tensor) -> list[Tensor]:
        first, *others = x.split(2, 1)
        return [
            torch.stack([first, first.double().sum(1, keepdim=True).expand_as(first)]),
            torch.zeros_like(x),
            *others,
        ]

    x = numbers(3, 7)
    found = direct(traced(several, x))
    assert not any(operation.startswith("aten.") for operation in operations(found))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found(x), several(x), strict=True))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, 1),
    "flat": lambda x: x.reshape(-1, x.shape[-1]),
    "expanded": lambda x: x.expand(x.shape),
    "narrowed": lambda x: x[: max(1, len(x) // 2)],
    "once": lambda x: torch.ops.aten.mul.Scalar(x, 1),
    "negated": lambda x: -x,
}


@given(st.lists(st.sampled_from(sorted(VIEWS)), max_size=8), st.integers(1, 3), st.integers(1, 3))
def test_any_chain_of_views_gives_the_same_tensor(names: list[str], rows: int, columns: int) -> None:
    def function(x: Tensor) -> Tensor:
        at = x
        for name in names:
            at = VIEWS[name](at)
        return at + 1

    x = numbers(rows, columns)
    expected, found = traced(function, x)(x), simplified(traced(function, x))(x)
    assert torch.equal(expected, found)
    assert expected.stride() == found.stride()


def test_views_that_change_nothing_are_not_called():
    x = numbers(2, 3)
    graph = simplified(traced(lambda x: x.t().t().expand(x.shape).view(2, 3) + 1, x))
    assert graph.code.count("torch.ops") == 1
    assert torch.equal(graph(x), x + 1)


DIFFERENT: dict[str, Callable[[Tensor], Tensor]] = {
    "another part": lambda x: x[:2] - x[2:],
    "a part as far apart": lambda x: x[:2].as_strided((2,), (1,), 2) - x[:2].as_strided((2,), (1,), 0),
    "the conjugate": lambda x: torch.complex(x, x).conj().imag - torch.complex(x, x).imag,
    "signs of zero": lambda x: torch.full_like(x, 0.0).reciprocal() * x + torch.full_like(x, -0.0).reciprocal() * x,
    "a whole number and another": lambda x: (x > 0) * 2.0 + ((x > 0) * 2).bitwise_and(2),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_only_looks_alike_stays_apart(case: str) -> None:
    x = numbers(4)
    found, expected = simplified(traced(DIFFERENT[case], x))(x), DIFFERENT[case](x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_two_inputs_that_share_memory_when_they_are_traced_stay_two() -> None:
    def difference(x: Tensor, y: Tensor) -> Tensor:
        return x.expand(x.shape) - y.expand(y.shape)

    x, y = numbers(4), torch.zeros(4)
    assert torch.equal(simplified(traced(difference, x, x.detach()))(x, y), x)


def test_what_is_given_out_does_not_change_with_what_came_in() -> None:
    def once(x: Tensor) -> list[Tensor]:
        return [torch.ops.aten.mul.Scalar(x, 1), torch.ops.aten.mul.Scalar(x, 1).view(-1)]

    x = numbers(2, 2)
    found = simplified(traced(once, x))(x)
    kept = [value.clone() for value in found]
    x.zero_()
    assert all(torch.equal(a, b) for a, b in zip(found, kept, strict=True))


def test_what_is_computed_once_and_given_out_twice_is_two_tensors() -> None:
    def sums(x: Tensor) -> list[Tensor]:
        return [x.sum(0), x.sum(0), x.sum(0).view(1, -1), x.t().exp(), x.exp()]

    x = numbers(2, 3)
    graph = traced(sums, x)
    expected, found = graph(x), simplified(graph)(x)
    for index, value in enumerate(found):
        value.zero_()
        assert all(torch.equal(a, b) for a, b in zip(found[index + 1 :], expected[index + 1 :], strict=True))


class TwoBiases(nn.Module):
    """A layer whose bias is the sum of two: both have the same gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.more = nn.Linear(5, 3), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.more


def test_a_step_that_scales_gradients_in_place_scales_equal_ones_once_each(blobs, tracing) -> None:
    def clipped(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(parameters, 0.1) and None)
        return optimizer

    setup = replace(blobs, model=TwoBiases, optimizer=clipped)
    lanes, loop = (ac.run(setup, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-12)
    assert not any("traced" in (run.reason or "") for run in lanes.runs)


def test_a_graph_that_writes_in_place_is_left_as_it_is() -> None:
    def counts(x: Tensor) -> Tensor:
        seen = x.clone()
        before = seen * 2
        seen.add_(1)
        return before + seen * 2

    graph = traced(counts, numbers(3))
    assert simplified(graph) is graph
