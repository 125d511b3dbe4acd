"""A graph, or compiled code, is what was to be traced and compiled, or is not used."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import alignment_checks as ac
from alignment_checks.backends import compiled, graphs, plan
from alignment_checks.backends.convolutions import channels_last
from alignment_checks.backends.footprint import Footprint
from alignment_checks.backends.graphs import NotTraced
from alignment_checks.experiment import Experiment, Sides
from alignment_checks.perturbations import IDENTITY, Perturbation

CPU = torch.device("cpu")


@pytest.fixture
def tracing(monkeypatch):
    """Let the shortest training be traced."""
    monkeypatch.setattr(plan, "TRACING", 0)


@pytest.fixture
def compiling(monkeypatch):
    """Let the shortest training be compiled."""
    monkeypatch.setattr(plan, "COMPILING", 0)
    compiled.compiled.cache_clear()


def dropping():
    return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.2), nn.Linear(4, 3))


@pytest.mark.parametrize("changes", [{"batch_size": 5}, {"model": dropping}], ids=["minibatches", "dropout"])
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_graph_gives_the_same_bits(blobs, monkeypatch, dtype):
    setup = replace(blobs, model=dropping, dtype=dtype)
    deltas = [Perturbation("label_smoothing", m, 0.5, 0) for m in (0.0, 0.2, 0.4)]
    base = [IDENTITY] * 3
    found = {}
    for cost in (1e9, 0):
        monkeypatch.setattr(plan, "TRACING", cost)
        found[cost] = ac.run(setup, deltas, base=base, backend="lanes")
    np.testing.assert_array_equal(found[0].base, found[1e9].base)
    np.testing.assert_array_equal(found[0].mesa, found[1e9].mesa)
    assert {run.reason for run in found[0].runs} == {None}


def test_the_model_is_not_called_once_it_is_traced_but_to_be_compared(blobs, tracing):
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(x.shape)
            return super().forward(x)

    def called(steps):
        calls.clear()
        ac.run(replace(blobs, model=lambda: Counted(5, 3), steps=steps), seeds=range(3), backend="lanes")
        return len(calls)

    few = called(8)
    assert called(graphs.AUDITED - 2) == few
    assert called(graphs.AUDITED + 8) == few + 1


class Stateful(nn.Module):
    """Takes another path from its `after`-th call on, of which its tensors know nothing."""

    def __init__(self, after):
        super().__init__()
        self.layer, self.after, self.calls = nn.Linear(5, 3), after, 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * (2 if self.calls > self.after else 1)


STATEFUL = "the model or the objective keeps state of its own between calls, other than buffers"


class Counter:
    def __init__(self):
        self.calls = 0


class Nested(Stateful):
    """Keeps its count in an object of its own."""

    def __init__(self, after):
        super().__init__(after)
        self.counter = Counter()

    def forward(self, x):
        self.counter.calls += 1
        return self.layer(x) * (2 if self.counter.calls > self.after else 1)


@pytest.mark.parametrize("model", [Stateful, Nested])
def test_a_model_that_keeps_state_of_its_own_is_left_to_the_loop(blobs, tracing, model):
    setup = replace(blobs, model=lambda: model(3))
    several = ac.run(setup, seeds=range(5))
    assert {(run.backend, run.reason) for run in several.runs} == {("loop", STATEFUL)}
    np.testing.assert_array_equal(several.base[3], ac.run(setup, seeds=[3]).base[0])


def test_an_objective_that_keeps_state_of_its_own_is_left_to_the_loop(blobs, tracing):
    calls = 0

    def objective(outputs, targets):
        nonlocal calls
        calls += 1
        return nn.functional.cross_entropy(outputs, targets) * (2 if calls % 2 else 1)

    found = ac.run(replace(blobs, objective=objective), seeds=range(3))
    assert {(run.backend, run.reason) for run in found.runs} == {("loop", STATEFUL)}


class Drawn(nn.Module):
    """Draws at its init what is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale, self.features = nn.Linear(4, 3), float(torch.rand(())), torch.randn(5, 4)

    def forward(self, x):
        return self.scale * self.layer(torch.tanh(x @ self.features.to(x.dtype)))


def test_models_that_differ_in_what_torch_does_not_know_of_do_not_share_a_batch(blobs):
    setup = replace(blobs, model=Drawn)
    lanes, loop = (ac.run(setup, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-9)


NOW = [0]


class Elsewhere(nn.Module):
    """Takes another path from step 10 on, which it knows from where nobody looks."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x) * (2 if NOW[0] >= 10 else 1)


def clock(step):
    NOW[0] = step
    return 1.0


@pytest.mark.parametrize("steps", [12, graphs.AUDITED + 3])
@pytest.mark.parametrize("how", ["tracing", "compiling"])
def test_code_that_takes_another_path_later_is_trained_without_a_graph_and_says_so(blobs, how, request, steps):
    request.getfixturevalue(how)
    clock(0)
    scheduler = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=clock)
    setup = replace(blobs, model=Elsewhere, scheduler=scheduler, steps=steps)
    found, loop = (ac.run(setup, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-9)
    assert {run.reason for run in found.runs} == {
        "not traced: what was traced is not what the model computes: its code takes more than one path"
    }


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


def test_tanh_in_compiled_code_is_right_to_three_units_in_the_last_place():
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.logspace(-40, 0, 10_001), torch.tensor([0.0, 100.0, -1e30])])
    graph = make_fx(torch.tanh)(x)
    compiled.tanh_by_expm1(graph)
    assert torch.ops.aten.tanh.default not in {node.target for node in graph.graph.nodes}
    exact = torch.tanh(x.double())
    assert ((graph(x).double() - exact).abs() <= 3 * 2**-23 * exact.abs() + 1e-44).all()
    edges = graph(torch.tensor([torch.inf, -torch.inf, torch.nan]))
    assert edges.tolist()[:2] == [1, -1]
    assert edges[2].isnan()


def test_tanh_of_a_wider_dtype_is_left_as_it_is():
    graph = make_fx(torch.tanh)(torch.ones(2, dtype=torch.float64))
    compiled.tanh_by_expm1(graph)
    assert torch.ops.aten.tanh.default in {node.target for node in graph.graph.nodes}


def test_a_value_that_differs_in_one_lane_alone_is_no_rounding():
    a = torch.arange(40, dtype=torch.float64).reshape(4, 10) / 40
    b = a.clone()
    b[0] *= 1e12
    graphs._compare(([b], []), ([b.clone()], []))
    wrong = b.clone()
    wrong[2, 3] += 1e-9
    with pytest.raises(NotTraced, match="not what the model computes"):
        graphs._compare(([wrong], []), ([b], []))
    lost = b.clone()
    lost[1, 1] = torch.nan
    graphs._compare(([lost], []), ([lost.clone()], []))
    with pytest.raises(NotTraced):
        graphs._compare(([lost], []), ([b], []))


def test_a_gradient_that_is_zero_but_for_rounding_is_not_compared_with_itself():
    loss, gradient = torch.ones(2, dtype=torch.float64), torch.full((2, 3), 1e-17, dtype=torch.float64)
    graphs._compare(([loss, -gradient], []), ([loss, gradient], []))


def test_a_sum_has_its_own_measure_and_lends_it_to_no_value():
    loss, total = torch.ones(2, dtype=torch.float64), torch.full((2,), 1e9, dtype=torch.float64)
    graphs._compare(([loss], [total * (1 + 1e-15)]), ([loss], [total]))
    with pytest.raises(NotTraced):
        graphs._compare(([loss + 1e-9], [total]), ([loss], [total]))
    graphs._compare(([loss], [total / 0]), ([loss], [total / 0]))


def test_a_graph_that_is_not_compiled_has_to_give_the_same_bits(blobs, tracing):
    loss, mask = torch.ones(2, dtype=torch.bfloat16), torch.full((2, 3), -torch.inf)
    graphs._compare(([loss], [mask]), ([loss], [mask]), exactly=True)
    graphs._compare(([loss / 0 * 0], [mask]), ([loss / 0 * 0], [mask]), exactly=True)
    with pytest.raises(NotTraced):
        graphs._compare(([loss * 1.01], [mask]), ([loss], [mask]), exactly=True)


def test_a_buffer_without_elements_is_nothing_to_compare():
    loss, empty = torch.ones(2), torch.empty(2, 0)
    graphs._compare(([loss], [empty]), ([loss], [empty]))


def test_a_mesa_objective_without_a_hash_is_traced_too(blobs, tracing):
    @dataclass
    class Scaled:
        scale: float

        def __call__(self, push, parameters):
            return self.scale * sum(value.abs().sum() for value in push.values())

    setup = replace(blobs, mesa_objective=Scaled(2.0))
    found, loop = (ac.run(setup, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.mesa, loop.mesa, rtol=1e-9)
    assert {run.reason for run in found.runs} == {None}


def test_tracing_has_to_pay_for_itself():
    assert not plan.pays_to_trace(16, 16, steps=20)
    assert not plan.pays_to_trace(17, 16, steps=20)
    assert plan.pays_to_trace(64, 16, steps=100)


def test_compiling_has_to_pay_for_itself():
    small = Footprint(150_000, (), ())
    assert not plan.pays_to_compile(small, CPU, 16, runs=100, steps=100)
    assert plan.pays_to_compile(small, CPU, 16, runs=100, steps=2000)
    assert plan.pays_to_compile(small, CPU, 16, runs=4000, steps=100)


def test_the_launches_of_an_experiment_trace_once(blobs, tracing, monkeypatch):
    traced = []
    trace = graphs.make_fx
    monkeypatch.setattr(graphs, "make_fx", lambda function: traced.append(function) or trace(function))
    experiment = Experiment(blobs, Sides(mesa=True, base=True), [0], backend="lanes")
    for rates in ((0.1, 0.2), (0.3, 0.4), (0.5,)):
        experiment.readings([Perturbation("label_noise", rate, 1.0, 0) for rate in rates])
    assert len(traced) == 1
