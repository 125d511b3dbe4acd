"""A process for each core gives the bits that one process gives."""

import os
import signal
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from cases.pictures import KNOWN, LABELS
from torch import nn

import alignment_checks as ac
from alignment_checks.backends import batches, plan, workers


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


def clipped(parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(parameters, 0.1) and None)
    return optimizer


class Squashed(torch.optim.Optimizer):
    """Steps by a function whose last bit depends on whether an element stands in a whole vector of the processor."""

    def __init__(self, parameters):
        super().__init__([{"params": [one]} for one in parameters], {})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad.exp().pow(1.3).log().tanh(), alpha=0.1)


OPTIMIZERS = {"rows": partial(torch.optim.Adam, lr=0.05), "vmap": clipped, "groups": Squashed}


@pytest.mark.parametrize("runs", [3, 9, 16])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_calls_of_a_single_batch_are_shared_out_and_no_bit_changes(blobs, forking, monkeypatch, optimizer, runs):
    monkeypatch.setattr(plan, "chunk", lambda *_: 4)
    data = (blobs.data[0].float(), blobs.data[1])
    setup, shares = replace(blobs, optimizer=optimizer, data=data, dtype=torch.float32), []

    def shared_out(tasks, processes):
        shares.append((len(tasks), processes))
        return workers.shared_out(tasks, processes)

    monkeypatch.setattr(batches, "shared_out", shared_out)
    found = ac.run(setup, seeds=range(runs), backend="lanes")
    monkeypatch.setattr(plan, "FORKING", np.inf)
    alone = ac.run(setup, seeds=range(runs), backend="lanes")
    assert shares == [(1 + (runs > 8), 2), (1, 1)]
    np.testing.assert_array_equal(found.base, alone.base)
    np.testing.assert_array_equal(found.mesa, alone.mesa)
    assert [run.reason for run in found.runs] == [run.reason for run in alone.runs]


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
