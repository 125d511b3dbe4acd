"""However many lanes one call evaluates or one optimizer steps, a run has the same bits, and those of the loop."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends import batches, lanes, plan
from alignment_checks.backends.compilation import graphs
from alignment_checks.backends.footprint import Footprint
from alignment_checks.backends.stacking import Batch
from alignment_checks.backends.stepping.stepper import Way
from alignment_checks.backends.weights import Shared, Weights
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.realization import realize

CPU = torch.device("cpu")
OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "Adam": partial(torch.optim.Adam, lr=0.05),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.01),
    "Rprop": partial(torch.optim.Rprop, lr=0.01),
    "Adagrad": partial(torch.optim.Adagrad, lr=0.1),
}


@pytest.fixture
def trained(monkeypatch):
    """Return the way and the number of lanes of each batch that is trained."""
    seen = []
    train = lanes.train

    def spied(jobs, device, way, *rest, **options):
        seen.append((way, len(jobs)))
        return train(jobs, device, way, *rest, **options)

    monkeypatch.setattr(batches.lanes, "train", spied)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_batches_that_are_stepped_together_give_the_bits_that_each_gives_alone(blobs, trained, optimizer, dtype):
    setup = replace(blobs, optimizer=OPTIMIZERS[optimizer], dtype=dtype, steps=20)
    together = ac.run(setup, seeds=range(40), backend="lanes")
    assert trained == [(Way.WIDE, 48)]
    for seeds in (range(16), range(16, 32), range(32, 40)):
        alone = ac.run(setup, seeds=seeds, backend="lanes")
        np.testing.assert_array_equal(alone.base, together.base[list(seeds)])
        np.testing.assert_array_equal(alone.mesa, together.mesa[list(seeds)])
    assert trained[1:] == [(Way.FLATTENED, 16)] * 3


def test_a_schedule_that_all_lanes_share_is_stepped_together_too(blobs, trained):
    setup = replace(blobs, scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=7))
    found = ac.run(setup, seeds=range(40), backend="lanes")
    np.testing.assert_allclose(found.base, ac.run(setup, seeds=range(40), backend="loop").base, rtol=1e-8)
    assert trained == [(Way.WIDE, 48)]


def test_an_optimizer_that_couples_elements_is_stepped_batch_by_batch_and_says_why(blobs, trained):
    def clipping(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(parameters, 0.1) and None)
        return optimizer

    setup = replace(blobs, optimizer=clipping)
    found = ac.run(setup, seeds=range(20), backend="lanes")
    np.testing.assert_allclose(found.base, ac.run(setup, seeds=range(20), backend="loop").base, rtol=1e-9)
    assert {width for way, width in trained if way is not Way.WIDE} == {16}
    assert {"can mix lanes" in (run.reason or "") for run in found.runs} == {True}


def test_lanes_with_options_of_their_own_are_stepped_batch_by_batch_without_a_word(blobs, trained):
    rates = [Perturbation("learning_rate", m, 1.0, 0) for m in np.linspace(-0.9, 0.9, 20)]
    found = ac.run(blobs, rates, backend="lanes")
    np.testing.assert_allclose(found.base, ac.run(blobs, rates, backend="loop").base, rtol=1e-9)
    assert trained == [(Way.FLATTENED, 16)] * 2
    assert {run.reason for run in found.runs} == {None}


@settings(max_examples=6, deadline=None)
@given(size=st.sampled_from([1, 2, 4, 8]), runs=st.integers(1, 20), batch_size=st.sampled_from([None, 5]))
@pytest.mark.parametrize("model", ["linear", "dropout", "batch norm"])
def test_calls_of_fewer_lanes_are_the_loop_too(blobs, model, size, runs, batch_size):
    middle = {"linear": nn.Tanh, "dropout": partial(nn.Dropout, 0.2), "batch norm": partial(nn.BatchNorm1d, 4)}[model]
    setup = replace(
        blobs, model=lambda: nn.Sequential(nn.Linear(5, 4), middle(), nn.Linear(4, 3)), batch_size=batch_size
    )
    deltas = [Perturbation("label_noise", m, 1.0, 3) for m in np.linspace(0, 0.5, runs)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan, "chunk", lambda *_: size)
        found = ac.run(setup, deltas, base=[pt.IDENTITY] * runs, backend="lanes")
    loop = ac.run(setup, deltas, base=[pt.IDENTITY] * runs, backend="loop")
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-8)
    np.testing.assert_allclose(found.mesa, loop.mesa, rtol=1e-8)
    assert {run.backend for run in found.runs} == {"lanes"}


def test_every_call_is_of_as_many_lanes_the_last_ones_filled_up(blobs):
    runs = [realize(blobs, seed) for seed in range(7)]
    weights, widths = Weights.of(runs, CPU), []

    def graph(function, arguments, calls):
        assert calls == 2
        widths.append({len(value) for value in arguments.given[1].values()})
        return function(*arguments.given)

    whole = Batch.of(runs, CPU)
    chunked = replace(whole, chunk=4, graph=graph)
    torch.testing.assert_close(chunked.gradient(weights)[:2], whole.gradient(weights)[:2], rtol=1e-12, atol=1e-12)
    assert widths == [{4}, {4}]


def test_calls_of_lanes_that_nobody_asks_for_are_left_out(blobs, monkeypatch):
    monkeypatch.setattr(plan, "chunk", lambda *_: 4)
    done, mapped = [], Batch._mapped

    def counted(batch, *arguments):
        done.append(-(-(batch.size - len(batch.idle)) // 4))
        graph = replace(batch, graph=lambda function, given, _: done.append(-1) or function(*given.given))
        return mapped(graph, *arguments)

    monkeypatch.setattr(Batch, "_mapped", counted)
    found = ac.run(blobs, seeds=range(6), backend="lanes")
    assert sum(done) == 0
    np.testing.assert_allclose(found.base, ac.run(blobs, seeds=range(6), backend="loop").base, rtol=1e-9)


@pytest.mark.parametrize("step", [0, graphs.AUDITED, graphs.AUDITED + 6], ids=["first", "audited", "last"])
@pytest.mark.parametrize("runs", [16, 40])
def test_a_graph_is_compared_in_all_lanes_at_the_steps_that_it_is_compared_at(blobs, monkeypatch, step, runs):
    monkeypatch.setattr(plan, "TRACING", 0)
    monkeypatch.setattr(plan, "chunk", lambda *_: 4)
    called, made = [], graphs.Graph._code
    calls = -(-runs // 4)

    def code(graph, *arguments):
        right = made(graph, *arguments)

        def run(values):
            called.append(len(called))
            wrong = called[-1] == step * calls + calls - 1  # of the last lanes
            return [value * (1 + 1e-6) if wrong else value for value in right.run(values)]

        return right._replace(run=run)

    monkeypatch.setattr(graphs.Graph, "_code", code)
    found = ac.run(replace(blobs, steps=graphs.AUDITED + 6), seeds=range(runs), backend="lanes")
    assert {"not traced" in (run.reason or "") for run in found.runs} == {True}


def test_what_is_scored_in_one_run_alone_is_scored_as_in_many(blobs):
    shown = [Perturbation("label_noise", m, 1.0, 3) for m in np.linspace(0.05, 0.5, 24)]
    aside = Perturbation("label_noise", 0.3, 1.0, 8)
    groups = partial(two_groups, torch.optim.SGD)
    for setup in (blobs, replace(blobs, optimizer=groups)):
        many = ac.run(setup, shown, base=[aside] * 24, backend="lanes")
        for alone in (0, 13, 23):
            base = [aside if index == alone else delta for index, delta in enumerate(shown)]
            found = ac.run(setup, shown, base=base, backend="lanes")
            np.testing.assert_array_equal(found.base[alone], many.base[alone])


def two_groups(kind, parameters):
    first, *rest = parameters
    return kind([{"params": [first], "lr": 0.1}, {"params": rest, "lr": 0.01}], lr=0.1)


def test_one_run_alone_in_a_batch_is_scored_without_its_perturbation(blobs, monkeypatch):
    monkeypatch.setattr(plan, "width", lambda *_: 1)
    shown = [Perturbation("label_noise", m, 1.0, 3) for m in np.linspace(0.05, 0.5, 5)]
    found, loop = (ac.run(blobs, shown, base=[pt.IDENTITY] * 5, backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-9)


def test_what_lanes_share_is_not_cut_up():
    shared, own = Shared(torch.arange(3), None), Shared(torch.arange(3), 0)
    assert shared.span(2, 2).tolist() == [0, 1, 2]
    assert own.span(0, 2).tolist() == [0, 1]
    assert own.span(2, 2).tolist() == [2, 2]


def test_a_call_takes_as_many_lanes_as_stay_in_the_cache_and_divide_a_batch():
    def chunk(size):
        return plan.chunk(Footprint(size, (), ()), CPU, 16)

    assert chunk(plan.CHUNK // 16) == 16
    assert chunk(plan.CHUNK // 15) == 8
    assert chunk(plan.CHUNK // 5) == 4
    assert chunk(2 * plan.CHUNK) == 1
    assert plan.chunk(Footprint(1, (), ()), torch.device("meta"), 16) is None


def test_batches_are_stepped_together_while_rows_stay_in_the_cache_and_no_core_is_idle():
    assert plan.load(1000, CPU, 16, batches=10, processes=1) == plan.WIDEST_LOAD
    assert plan.load(1000, CPU, 16, batches=4, processes=2) == 2
    assert plan.load(plan.ROWS // 32, CPU, 16, batches=10, processes=1) == 2
    assert plan.load(plan.ROWS, CPU, 16, batches=10, processes=1) == 1
    assert plan.load(1000, torch.device("meta"), 16, batches=10, processes=1) == 1
