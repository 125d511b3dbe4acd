"""How wide a batch is: what does not fit goes on in halves, and what gains nothing goes through the loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.pictures import CPU, KNOWN, MODELS, pictures
from hypothesis import given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks import runs
from alignment_checks.backends import lanes, plan
from alignment_checks.backends.footprint import Footprint, footprint
from alignment_checks.setups.realization import realize


class Full:
    """`lanes.train` on a device that holds no more than so many runs, where it says so at its last step."""

    def __init__(self, most, error):
        self.most, self.error, self.finished = most, error, []
        self.train = lanes._Lanes.recorded

    def __call__(self, batch):
        records = self.train(batch)
        if len(batch.jobs) > self.most:
            raise self.error
        self.finished.append(len(batch.jobs))
        return records


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 9.00 GB, max allowed: 18 GB)"),
]


@pytest.mark.parametrize("error", FULL, ids=["accelerator", "CPU", "driver", "library", "MPS"])
def test_a_batch_that_does_not_fit_goes_on_in_halves_and_says_so(blobs, monkeypatch, error):
    expected = ac.run(blobs, seeds=range(20), backend="lanes")
    full = Full(5, error)
    monkeypatch.setattr(lanes._Lanes, "recorded", lambda batch: full(batch))
    found = ac.run(blobs, seeds=range(20), backend="lanes")
    np.testing.assert_allclose(found.base, expected.base, rtol=1e-12)
    assert full.finished == [4] * 8
    assert {run.reason for run in found.runs} == {
        "in batches of at most 4, for lack of memory; in batches of at most 8, for lack of memory"
    }


def test_one_run_that_does_not_fit_is_an_error_that_says_so(blobs, monkeypatch):
    full = Full(0, FULL[0])
    monkeypatch.setattr(lanes._Lanes, "recorded", lambda batch: full(batch))
    with pytest.raises(MemoryError, match="one run of this setup does not fit the memory of cpu"):
        ac.run(blobs, seeds=range(4), backend="lanes")


def test_runs_are_made_ready_a_chunk_at_a_time_and_are_the_same(blobs, monkeypatch):
    expected = ac.run(blobs, KNOWN[:4], seeds=range(5), backend="lanes")
    monkeypatch.setattr(runs, "CHUNK", 7)
    found = ac.run(blobs, KNOWN[:4], seeds=range(5), backend="lanes")
    np.testing.assert_array_equal(found.base, expected.base)
    assert [(run.perturbation, run.seed) for run in found.runs] == [
        (run.perturbation, run.seed) for run in expected.runs
    ]


def test_the_width_on_a_cpu_depends_on_the_setup_alone(blobs):
    need = footprint(realize(blobs, 0))
    assert {plan.width(need, CPU, runs) for runs in (1, 5, 1000)} == {plan.WIDEST_ON_CPU}
    large = replace(need, bytes=plan.CACHE // 3)
    assert plan.width(large, CPU, 1000) == 3
    assert plan.width(replace(need, bytes=2 * plan.CACHE), CPU, 1000) == 1


@settings(deadline=None)
@given(size=st.integers(1, 2 * plan.CACHE))
def test_a_batch_on_a_cpu_is_evaluated_some_lanes_at_a_time_where_more_than_one_stays_in_the_cache(size):
    need = Footprint(size, (), ())
    width = plan.width(need, CPU, 1000)
    assert 1 <= width <= plan.WIDEST_ON_CPU
    assert (plan.chunk(need, CPU, width) > 1) is (2 * size <= plan.CHUNK)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_that_convolves_is_seen_to(model):
    assert footprint(realize(pictures(model, torch.float32), 0)).convolves is (model == "convolution")


def test_few_runs_of_a_size_that_calls_hardly_gain_by_are_left_to_the_loop():
    middle = Footprint(plan.CHUNK // 4 - 100_000, (), ())
    assert plan.batched(middle, CPU, 16, 4) == 0
    assert plan.batched(replace(middle, convolves=True), CPU, 16, 4) == 4
    assert plan.batched(replace(middle, bytes=1000), CPU, 16, 16) == 16


@pytest.mark.parametrize("size", [200, 150_000])
def test_what_finding_out_about_batches_takes_is_shared_by_the_steps_and_the_runs_that_are_planned(size):
    need = Footprint(size, (), ())

    def least(steps, planned=None):
        def pays(runs):
            return plan.batched(need, CPU, 16, runs, plan.Beside.of(need, CPU, 16, steps, planned or runs))

        return next(runs for runs in range(1, 17) if pays(runs))

    known = next(runs for runs in range(1, 17) if plan.batched(need, CPU, 16, runs))
    assert least(10) > least(200) >= least(100_000) == known
    assert least(10, planned=100_000) == known


def test_on_minibatches_fewer_runs_pay_in_lanes_since_each_of_their_steps_is_two_gradients(blobs):
    assert footprint(realize(blobs, 0)).minibatch == 0
    some = footprint(realize(replace(blobs, batch_size=7), 0))
    assert some.minibatch == 7 / len(blobs.data[0])
    whole, apart = (Footprint(200_000, (), (), minibatch=part) for part in (0.0, 0.2))
    least = [next(n for n in range(1, 17) if plan.batched(need, CPU, 16, n)) for need in (apart, whole)]
    assert least[0] < least[1]


def test_what_is_no_faster_in_lanes_goes_through_the_loop_and_says_so(blobs, monkeypatch):
    monkeypatch.setattr(plan, "BESIDE", 1000.0)
    found = ac.run(blobs, seeds=range(20))
    assert {(run.backend, run.reason) for run in found.runs} == {("loop", "runs of this size are no faster in lanes")}
    assert {run.backend for run in ac.run(blobs, seeds=range(20), backend="lanes").runs} == {"lanes"}


@pytest.mark.parametrize("planned", [40, 400])
def test_of_what_is_planned_a_structure_counts_on_its_own_share(planned):
    """Each size of a batch is a structure, which is found out about, and traced, by itself."""
    setup = pictures("mlp", torch.float32, batch_size=3)
    deltas = [ac.Perturbation("batch_size", m, 2.0, 0) for m in (-1.58, -0.58, 0.0, 0.42, 1.0)]

    def trained(some, planned):
        part = runs.Part(setup, some, seeds=range(8))
        (found,) = runs.run_parts([part], device="cpu", backend="auto", planned=planned)
        return [one.backend for one in found.runs]

    apart = [backend for delta in deltas for backend in trained([delta], planned // 5)]
    assert trained(deltas, planned) == apart
