"""The same run has the same bits in any company and in any order, and a batch goes through whatever it takes."""

import os
import signal
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks import runs
from alignment_checks.backends import dispatch, lanes, plan, slots, workers
from alignment_checks.backends.footprint import Footprint, footprint
from alignment_checks.backends.job import Job
from alignment_checks.drawing import Randomness
from alignment_checks.perturbations import Perturbation
from alignment_checks.realization import GradientNoise, realize

CPU = torch.device("cpu")
MODELS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)),
    "convolution": lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
    "batch norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Dropout(0.3), nn.Linear(5, 3)),
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def pictures(model, dtype, **changes):
    random = torch.Generator().manual_seed(1)
    y = torch.arange(12) % 3
    x = torch.randn(12, 1, 6, 6, generator=random) + y[:, None, None, None]
    plain = ac.TrainingSetup(
        model=MODELS[model],
        data=(x, y),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        steps=4,
        dtype=dtype,
    )
    return replace(plain, **changes)


GAINS = [Perturbation("init_gain", m, 1.0, 0) for m in (-0.5, 0.0, 0.3, 0.8)]
NOISES = [Perturbation("feature_noise", m, 1.0, s) for m, s in ((0.1, 1), (0.5, 2), (1.0, 3))]
LABELS = [Perturbation("label_noise", m, 1.0, s) for m, s in ((0.2, 1), (0.6, 2))]
KNOWN = [*GAINS, *NOISES, *LABELS]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_the_same_runs_in_another_order_or_company_are_the_same_bits(model, dtype, data):
    setup = pictures(model, dtype, batch_size=data.draw(st.sampled_from([None, 5])))
    everything = ac.run(setup, KNOWN, backend="lanes")
    some = data.draw(st.lists(st.sampled_from(range(len(KNOWN))), min_size=1, max_size=20))
    again = ac.run(setup, [KNOWN[index] for index in some], backend="lanes")
    np.testing.assert_array_equal(again.base, everything.base[some])
    np.testing.assert_array_equal(again.mesa, everything.mesa[some])


def half_frozen():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    model[2].requires_grad_(False)
    return model


def pretrained():
    """Return a model whose frozen layer is the same under every seed."""
    model = half_frozen()
    nn.init.constant_(model[2].weight, 0.3)
    nn.init.constant_(model[2].bias, 0.1)
    return model


def changed_frozen(run, magnitude, generator):
    return replace(run, constants={name: value * (1 + magnitude) for name, value in run.constants.items()})


FROZEN = find(pt.custom("frozen", changed_frozen, max_magnitude=1.0), lambda delta: delta.magnitude > 0)


@pytest.mark.parametrize("model", [half_frozen, pretrained])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_frozen_parameters_of_other_runs_change_no_bit(model, data):
    setup = replace(pictures("mlp", torch.float32), model=model, seed=1)
    known = [*GAINS, FROZEN, FROZEN.at(0.5)]
    everything = ac.run(setup, known, seeds=[0, 1, 2], backend="lanes")
    some = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
    seeds = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=1, unique=True))
    again = ac.run(setup, some, seeds=seeds, backend="lanes")
    rows = [3 * known.index(delta) + seed for delta in some for seed in seeds]
    np.testing.assert_array_equal(again.base, everything.base[rows])
    loop = ac.run(setup, some, seeds=seeds, backend="loop")
    np.testing.assert_allclose(again.base, loop.base, rtol=1e-4)


def test_frozen_parameters_that_are_the_same_under_every_seed_are_kept_once(monkeypatch):
    held, of = [], lanes.Weights.of
    monkeypatch.setattr(lanes.Weights, "of", lambda *arguments: held.append(of(*arguments)) or held[-1])
    ac.run(replace(pictures("mlp", torch.float32), model=pretrained), seeds=range(5), backend="lanes")
    assert {value.dim for weights in held for value in weights.frozen.values()} == {None}


@pytest.mark.parametrize("model", MODELS)
def test_where_a_slot_matters_the_run_decides_on_its_slot(model, monkeypatch):
    monkeypatch.setattr(dispatch, "slots_matter", lambda *_: True)
    setup = pictures(model, torch.float64)
    forward = ac.run(setup, KNOWN, backend="lanes")
    backward = ac.run(setup, KNOWN[::-1], backend="lanes")
    np.testing.assert_array_equal(forward.base, backward.base[::-1])
    loop = ac.run(setup, KNOWN, backend="loop")
    np.testing.assert_allclose(forward.base, loop.base, rtol=1e-9)


def job(setup, *scores, randomness=Randomness.NONE, **changes):
    return Job(replace(realize(setup, 0), **changes), scores or (None,), randomness)


def tilt_slots(monkeypatch, of):
    """Have a kernel whose slots differ compute the gradients and losses of the batches that `of` names."""

    class Uneven(slots.Batch):
        def gradient(self, weights, step=0):
            found = super().gradient(weights, step)
            tilted = {name: tilt(g) for name, g in found.gradient.items()}
            return found._replace(gradient=tilted) if of(self) else found

        def value(self, weights):
            return tilt(super().value(weights)) if of(self) else super().value(weights)

    def tilt(g):
        return g * (1 + 1e-3 * torch.arange(len(g), dtype=g.dtype).reshape(-1, *[1] * (g.ndim - 1)))

    monkeypatch.setattr(slots, "Batch", Uneven)


def test_a_model_whose_slots_differ_is_seen(blobs, monkeypatch):
    assert not slots.slots_matter(job(blobs), CPU, 4)
    tilt_slots(monkeypatch, lambda _: True)
    assert slots.slots_matter(job(blobs), CPU, 4)
    assert not slots.slots_matter(job(blobs), CPU, 1)


@pytest.mark.parametrize(
    ("changes", "of"),
    [
        ({"batch_size": 5}, lambda batch: batch.data[0].tensor.shape[-2] == 5),
        ({"batch_size": 5}, lambda batch: batch.data[0].tensor.shape[-2] == 4),
        ({"dtype": torch.float32}, lambda batch: batch.dtype is torch.float32),
        ({"dtype": torch.float32}, lambda batch: batch.dtype is torch.float64),
        ({"randomness": Randomness.SEEN}, lambda batch: batch.module.training),
        ({"randomness": Randomness.SEEN}, lambda batch: not batch.module.training),
    ],
    ids=["minibatch", "last minibatch", "narrower steps", "wide measures", "random steps", "measures in eval mode"],
)
def test_slots_are_seen_to_differ_in_whatever_is_trained(blobs, changes, of, monkeypatch):
    model = lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.2), nn.Linear(4, 3))  # noqa: E731
    probed = job(replace(blobs, model=model) if "randomness" in changes else blobs, **changes)
    assert not slots.slots_matter(probed, CPU, 4)
    tilt_slots(monkeypatch, of)
    assert slots.slots_matter(probed, CPU, 4)


def test_slots_are_seen_to_differ_in_what_is_scored(blobs, monkeypatch):
    halved = tuple(part[:12] for part in blobs.data)
    probed = job(blobs, None, replace(realize(blobs, 0), data=halved))
    assert not slots.slots_matter(probed, CPU, 4)
    tilt_slots(monkeypatch, lambda batch: batch.data[0].tensor.shape[-2] == 12)
    assert slots.slots_matter(probed, CPU, 4)


def test_slots_of_what_cannot_be_probed_are_taken_to_matter(blobs):
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2 if self.weight.sum() > 100 else 1)

    assert slots.slots_matter(job(replace(blobs, model=lambda: Branching(5, 3))), CPU, 4)


def layers(width, *between):
    return lambda: nn.Sequential(nn.Linear(5, width), nn.Tanh(), *between, nn.Linear(width, 3))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 29, "model": layers(4)},
        {"batch_size": 3, "model": layers(32)},
        {"model": layers(3, nn.Dropout(0.2))},
        {"model": layers(7, nn.Dropout(0.2))},
    ],
    ids=["minibatches of 29", "minibatches of 3", "dropout of 3", "dropout of 7"],
)
def test_the_bits_of_a_run_do_not_depend_on_the_order_of_seeds(blobs, changes):
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    setup = replace(blobs, data=(x, torch.arange(30) % 3), dtype=torch.float32, steps=20, **changes)
    forward, backward = (ac.run(setup, seeds=seeds, backend="lanes") for seeds in (range(16), range(15, -1, -1)))
    np.testing.assert_array_equal(forward.base, backward.base[::-1])
    np.testing.assert_array_equal(forward.mesa, backward.mesa[::-1])


def test_runs_that_differ_in_their_optimizer_alone_have_slots_of_their_own(blobs):
    rates = [Perturbation("learning_rate", m, 1.0, 0).applied(realize(blobs, 0)) for m in np.linspace(-0.9, 1, 16)]
    noises = [replace(realize(blobs, 0), noise=(GradientNoise(0.1, seed),)) for seed in range(16)]
    for runs_of_one_structure in (rates, noises):
        placed = slots.placed([Job(run, (None,)) for run in runs_of_one_structure], 16)
        assert len(placed) < 8
        assert placed == slots.placed([Job(run, (None,)) for run in runs_of_one_structure], 16)


# -------------------------------------------------------------------------------------------------------------- memory


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
]


@pytest.mark.parametrize("error", FULL, ids=["accelerator", "CPU"])
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


def test_what_is_no_faster_in_lanes_goes_through_the_loop_and_says_so(blobs, monkeypatch):
    monkeypatch.setattr(plan, "BESIDE", 1000.0)
    found = ac.run(blobs, seeds=range(20))
    assert {(run.backend, run.reason) for run in found.runs} == {("loop", "runs of this size are no faster in lanes")}
    assert {run.backend for run in ac.run(blobs, seeds=range(20), backend="lanes").runs} == {"lanes"}


# ----------------------------------------------------------------------------------------------------------- processes


@pytest.fixture
def forkable():
    """Skip where a fork would not be safe: a worker of pytest-xdist has a thread beside the test's."""
    if not workers._may_fork():
        pytest.skip("another thread runs beside this one, or there is an accelerator")


@pytest.fixture
def forking(monkeypatch, forkable):
    """Let the smallest work be shared out to two processes."""
    monkeypatch.setattr(plan, "FORKING", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", ["lanes", "loop"])
def test_processes_give_the_bits_that_one_process_gives(blobs, backend, forking, monkeypatch):
    found = ac.run(blobs, [*KNOWN[:2], *LABELS], seeds=range(20), backend=backend)
    monkeypatch.setattr(plan, "FORKING", np.inf)
    alone = ac.run(blobs, [*KNOWN[:2], *LABELS], seeds=range(20), backend=backend)
    np.testing.assert_array_equal(found.base, alone.base)
    np.testing.assert_array_equal(found.mesa, alone.mesa)
    for one, other in zip(found.end, alone.end, strict=True):
        assert all(torch.equal(value, other.parameters[name]) for name, value in one.parameters.items())


def test_tasks_are_done_in_as_many_processes_and_come_back_in_order(forkable):
    found = workers.shared_out([lambda i=i: (i, os.getpid()) for i in range(7)], 2)
    assert [index for index, _ in found] == list(range(7))
    assert len({process for _, process in found}) == 2
    assert found[0][1] == os.getpid()
    assert workers.shared_out([], 2) == []


def test_what_a_task_raises_is_raised_here():
    def wrong():
        raise ZeroDivisionError("of the user's own objective")

    with pytest.raises(ZeroDivisionError, match="of the user's own objective"):
        workers.shared_out([int, wrong, int], 2)


def test_a_worker_that_dies_is_named(forkable):
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"a worker process .* died \(exit code -9"):
        workers.shared_out([int, die], 2)


def test_a_second_thread_means_one_process():
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        assert set(workers.shared_out([os.getpid] * 4, 2)) == {os.getpid()}
    finally:
        done.set()
        other.join()


def test_one_thread_is_one_process(blobs, monkeypatch):
    monkeypatch.setattr(plan, "FORKING", 0)
    monkeypatch.setattr(workers, "_Worker", None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert len(ac.run(blobs, seeds=range(40)).runs) == 40
    finally:
        torch.set_num_threads(before)
