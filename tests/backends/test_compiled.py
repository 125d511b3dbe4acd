"""Compiled lanes equal the loop, are compiled once, and are compared to rounding at every lane."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends import plan
from alignment_checks.backends.compilation import compiled, graphs
from alignment_checks.backends.compilation.convolutions import channels_last
from alignment_checks.backends.footprint import Footprint

CPU = torch.device("cpu")


def dropping():
    return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.2), nn.Linear(4, 3))


class Remembering(nn.Module):
    """Has buffers of other dtypes than numbers of any size."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.register_buffer("seen", torch.tensor([False, True]))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.seen.fill_(True)
        self.calls.add_(1)
        return self.layer(x) * self.seen.sum()


CHANGES = {
    "minibatches": {"batch_size": 5},
    "dropout": {"model": dropping},
    "buffers of truths and whole numbers": {"model": Remembering},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_compiled_lanes_equal_the_loop(blobs, compiling, changes):
    setup = replace(blobs, **changes)
    found, loop = (ac.run(setup, seeds=range(5), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-9)
    np.testing.assert_allclose(found.mesa, loop.mesa, rtol=1e-8)
    assert compiled.compiled.cache_info().currsize > 0
    assert {run.reason for run in found.runs} == {None}


def test_the_same_code_is_compiled_once_for_setups_built_apart(blobs, compiling):
    for _ in range(2):
        model = lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))  # noqa: E731
        ac.run(replace(blobs, model=model), seeds=range(3), backend="lanes")
    assert compiled.compiled.cache_info().misses == 1


def test_compiled_code_is_found_on_disk_by_whoever_has_not_compiled_it(blobs, compiling):
    from torch._dynamo.utils import counters  # of what TorchInductor has found in its own cache

    for _ in range(2):
        before = counters["inductor"]["fxgraph_cache_hit"]
        compiled.compiled.cache_clear()
        ac.run(blobs, seeds=range(3), backend="lanes")
    assert counters["inductor"]["fxgraph_cache_hit"] == before + 1


def test_a_compiler_that_fails_leaves_the_batch_uncompiled_and_says_so(blobs, compiling, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr("torch._inductor.standalone_compile", broken)
    found, loop = (ac.run(blobs, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-9)
    assert {run.reason for run in found.runs} == {"not compiled: RuntimeError: no C++ compiler found"}


def test_compiled_convolutions_equal_the_loop(compiling):
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 2, 6, 6, generator=random), torch.arange(12) % 3
    first, second = partial(nn.Conv2d, 2, 4, 3, padding=1), partial(nn.Conv2d, 4, 3, 3, stride=2)
    setup = ac.TrainingSetup(
        model=lambda: nn.Sequential(first(), nn.ReLU(), nn.AvgPool2d(2, 1), second(), nn.Flatten(), nn.Linear(12, 3)),
        data=(x, y),
        objective=nn.functional.cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=5,
    )
    found, loop = (ac.run(setup, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-5)
    np.testing.assert_allclose(found.mesa, loop.mesa, rtol=1e-4)
    assert compiled.compiled.cache_info().currsize > 0
    assert {run.reason for run in found.runs} == {None}


CONVOLVED = {
    "images": (nn.Conv2d(2, 4, 3), torch.randn(5, 3, 2, 6, 6), True),
    "float64": (nn.Conv2d(2, 4, 3, dtype=torch.float64), torch.randn(5, 3, 2, 6, 6, dtype=torch.float64), False),
    "signals": (nn.Conv1d(2, 4, 3), torch.randn(5, 3, 2, 6), False),
    "transposed": (nn.ConvTranspose2d(2, 4, 3), torch.randn(5, 3, 2, 6, 6), False),
}


@pytest.mark.parametrize("case", CONVOLVED)
def test_images_alone_are_laid_out_channels_last_and_are_the_same_numbers(case):
    layer, x, laid = CONVOLVED[case]

    def gradient(weight, x):
        def loss(weight):
            parameters = {"weight": weight, "bias": layer.bias.detach()}
            return functional_call(layer, parameters, x).relu().flatten(1).square().sum()

        return vmap(grad(loss))(weight)

    weights = torch.stack([layer.weight.detach()] * 3) + torch.arange(3).reshape(3, *[1] * layer.weight.ndim)
    graph = make_fx(gradient)(weights, x[0])
    channels_last(graph)
    layouts = {node.kwargs.get("memory_format") for node in graph.graph.nodes if node.op == "call_function"}
    assert (torch.channels_last in layouts) is laid
    torch.testing.assert_close(graph(weights, x[0]), gradient(weights, x[0]))


def test_a_value_that_differs_in_one_lane_alone_is_no_rounding():
    a = torch.arange(40, dtype=torch.float64).reshape(4, 10) / 40
    b = a.clone()
    b[0] *= 1e12
    assert graphs._agree(([b], []), ([b.clone()], []), exactly=False)
    wrong = b.clone()
    wrong[2, 3] += 1e-9
    assert not graphs._agree(([wrong], []), ([b], []), exactly=False)
    lost = b.clone()
    lost[1, 1] = torch.nan
    assert graphs._agree(([lost], []), ([lost.clone()], []), exactly=False)
    assert not graphs._agree(([lost], []), ([b], []), exactly=False)


def test_a_gradient_that_is_zero_but_for_rounding_is_not_compared_with_itself():
    loss, gradient = torch.ones(2, dtype=torch.float64), torch.full((2, 3), 1e-17, dtype=torch.float64)
    assert graphs._agree(([loss, -gradient], []), ([loss, gradient], []), exactly=False)


def test_a_sum_has_its_own_measure_and_lends_it_to_no_value():
    loss, total = torch.ones(2, dtype=torch.float64), torch.full((2,), 1e9, dtype=torch.float64)
    assert graphs._agree(([loss], [total * (1 + 1e-15)]), ([loss], [total]), exactly=False)
    assert not graphs._agree(([loss + 1e-9], [total]), ([loss], [total]), exactly=False)
    assert graphs._agree(([loss], [total / 0]), ([loss], [total / 0]), exactly=False)


def test_a_sum_over_the_gradient_may_be_off_by_what_its_terms_are_off_by():
    loss, gradient = torch.ones(2), torch.full((2, 900), 0.01)
    rounded = gradient + torch.finfo(torch.float32).eps
    expected, found = ([loss, gradient], [gradient.sum(1)]), ([loss, rounded], [rounded.sum(1)])
    assert graphs._agree(found, expected, exactly=False)
    assert not graphs._agree((found[0], [1.001 * rounded.sum(1)]), expected, exactly=False)


@pytest.mark.parametrize("exactly", [False, True])
@pytest.mark.parametrize("wrong", [0.0, 1e-16, 1e-14, 3e-14, 1e-13, 1e-9, torch.nan, torch.inf])
def test_the_quick_look_at_all_numbers_says_what_the_look_at_each_lane_says(wrong, exactly, monkeypatch):
    random = torch.Generator().manual_seed(0)
    expected = [[torch.randn(4, *shape, generator=random).double() for shape in of] for of in ([(), (3, 5)], [(2,)])]
    said = []
    for of, tensor in ((0, 0), (0, 1), (1, 0)):
        for at, scale in ((0, 1.0), (-1, 1e3)):
            found = [[value.clone() for value in values] for values in expected]
            found[of][tensor].view(-1)[at] += wrong * scale
            said.append(graphs._agree(found, expected, exactly=exactly))
            with monkeypatch.context() as patched:
                patched.setattr(graphs, "_surely_agree", lambda *_, **__: False)
                assert graphs._agree(found, expected, exactly=exactly) is said[-1]
    if not 1e-16 <= wrong <= 1e-13:
        assert said == [wrong == 0.0] * len(said)


def test_a_buffer_without_elements_is_nothing_to_compare():
    loss, empty = torch.ones(2), torch.empty(2, 0)
    assert graphs._agree(([loss], [empty]), ([loss], [empty]), exactly=False)


def test_compiling_has_to_pay_for_itself():
    small = Footprint(150_000, (), ())
    assert not plan.pays_to_compile(small, CPU, 16, runs=100, steps=100)
    assert plan.pays_to_compile(small, CPU, 16, runs=100, steps=2000)
    assert plan.pays_to_compile(small, CPU, 16, runs=4000, steps=100)


@pytest.mark.parametrize(("max_time", "expected"), [(None, 500), (60.0, 500), (3.0, 0)])
def test_where_there_is_hardly_time_no_code_is_compiled_for_what_may_never_be_trained(
    blobs, monkeypatch, max_time, expected
):
    asked = []
    monkeypatch.setattr(plan, "pays_to_compile", lambda *how: asked.append(how[3]) or False)
    noise = pt.label_noise(max_rate=1e-9)
    ac.check_capability_robust(blobs, under=noise, rtol=9.0, examples=500, max_time=max_time)
    assert max(asked, default=0) == expected


def test_what_the_compiler_logs_is_not_shown_of_a_test_that_fails(blobs, compiling, caplog):
    """torch logs its compilation at DEBUG, whatever is set; pytest captures it, and shows it of whatever fails."""
    compiled.compiled.cache_clear()
    logger = logging.getLogger("torch.__trace")
    capturing = [handler for handler in logger.handlers if handler is caplog.handler]
    ac.run(blobs, seeds=range(3), backend="lanes")
    assert compiled.compiled.cache_info().misses > 0
    assert [record for record in caplog.get_records("call") if record.name == "torch.__trace"] == []
    assert [handler for handler in logger.handlers if handler is caplog.handler] == capturing
