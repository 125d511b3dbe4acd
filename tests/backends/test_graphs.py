"""A graph, or compiled code, is what was to be traced and compiled, or is not used."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import alignment_checks as ac
from alignment_checks.backends import plan
from alignment_checks.backends.compilation import graphs
from alignment_checks.backends.compilation.graphs import Arguments, Graph
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties.experiment import Experiment
from alignment_checks.properties.sides import Sides


def dropping():
    return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.2), nn.Linear(4, 3))


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


def test_a_tensor_that_is_given_twice_when_it_is_traced_is_two_inputs():
    def difference(x, y):
        return [x - y], []

    graph, x, y = Graph(), torch.arange(3.0), torch.ones(3)
    graph(difference, Arguments(x, x))
    (found,), _ = graph(difference, Arguments(x, y))
    assert torch.equal(found, x - y)


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
    compiled = "not compiled: what was compiled differs from what the model computes by more than rounding; "
    assert {run.reason for run in found.runs} == {
        compiled * (how == "compiling")
        + "not traced: what was traced is not what the model computes: its code takes more than one path"
    }


def test_compiled_code_that_rounds_otherwise_than_it_may_goes_on_as_a_graph(blobs, compiling, monkeypatch):
    monkeypatch.setattr(graphs, "ROUNDING", 0)
    setup = replace(blobs, model=lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)))
    lanes, loop = (ac.run(setup, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-9)
    assert {run.reason for run in lanes.runs} == {
        "not compiled: what was compiled differs from what the model computes by more than rounding"
    }


def test_a_graph_that_is_not_compiled_has_to_give_the_same_bits(blobs, tracing):
    loss, mask = torch.ones(2, dtype=torch.bfloat16), torch.full((2, 3), -torch.inf)
    assert graphs._agree(([loss], [mask]), ([loss], [mask]), exactly=True)
    assert graphs._agree(([loss / 0 * 0], [mask]), ([loss / 0 * 0], [mask]), exactly=True)
    assert not graphs._agree(([loss * 1.01], [mask]), ([loss], [mask]), exactly=True)


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


def test_the_launches_of_an_experiment_trace_once(blobs, tracing, monkeypatch):
    traced = []
    trace = graphs.make_fx
    monkeypatch.setattr(graphs, "make_fx", lambda function: traced.append(function) or trace(function))
    experiment = Experiment(blobs, Sides(mesa=True, base=True), [0], backend="lanes")
    for rates in ((0.1, 0.2), (0.3, 0.4), (0.5,)):
        experiment.readings([Perturbation("label_noise", rate, 1.0, 0) for rate in rates])
    assert len(traced) == 1
