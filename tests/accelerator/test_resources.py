"""What a run takes of an accelerator, and leaves of it: reads, memory, random state, processes."""

import gc
import random
import time

import numpy as np
import pytest
import torch
from cases.accelerated import MODELS, OPTIMIZERS, SETUPS, setup

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends import plan, workers
from alignment_checks.perturbations import Perturbation

LARGE = {"model": lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 400), torch.nn.Linear(400, 3))}


def reads(of, device):
    torch.ops.simulated.reads()
    ac.run(of, seeds=range(2), device=device, backend="lanes")
    return len(torch.ops.simulated.reads())


@pytest.mark.parametrize("kind", ["Adam", "norms"])
@pytest.mark.parametrize("more", [{}, {"batch_size": 7}, {"model": MODELS["dropout"]}])
def test_lanes_wait_for_the_device_every_16_steps_alone(kind, more, device):
    after = [reads(setup(optimizer=OPTIMIZERS[kind], steps=steps, **more), device) for steps in (17, 31, 33)]
    assert after[0] == after[1], "between two looks"
    assert after[2] - after[1] == 6, "one look: two of the audit, two of L and two of G"


SCORED = {"perturbations": [pt.IDENTITY], "base": [Perturbation("label_noise", 0.2, 0.3, 0)]}
FASTER = {"perturbations": [Perturbation("learning_rate", 0.5, 1.0, 0), Perturbation("gradient_noise", 0.1, 0.2, 0)]}


@pytest.mark.parametrize("more", [{}, {"optimizer": torch.optim.Adam}, SETUPS["batch norm"], SETUPS["dropout"]])
@pytest.mark.parametrize("trained", [{}, SCORED, FASTER])
def test_lanes_have_nothing_to_copy_to_the_device_once_they_train(more, trained, device):
    """The host waits for such a copy, of however little, until the device has done all that it was given before."""
    copies = []
    for steps in (5, 9):
        torch.ops.simulated.writes()
        ac.run(setup(steps=steps, **more), **trained, device=device, backend="lanes")
        copies.append(len(torch.ops.simulated.writes()))
    assert copies[0] == copies[1] > 0


def used(patience=2.0):
    """Return the bytes in use, once autograd's thread for the device has let go of what it had."""
    until = time.monotonic() + patience
    while (now := torch.ops.simulated.used()) and time.monotonic() < until:
        time.sleep(0.01)
    return now


@pytest.mark.parametrize("backend", ["lanes", "loop"])
@pytest.mark.parametrize("kind", ["SGD with a tensor", "Adam", "norms", "reads", "diverging"])
def test_all_memory_of_a_batch_is_free_after_it_whenever_python_looks_for_cycles(kind, backend, device):
    gc.collect()
    gc.disable()
    try:
        kept = ac.run(setup(optimizer=OPTIMIZERS[kind], batch_size=7), seeds=range(3), device=device, backend=backend)
        assert used() == 0
        assert len(kept.end) == 3
    finally:
        gc.enable()


@pytest.mark.parametrize("share", [0.6, 0.25, pytest.param(0.06, marks=pytest.mark.slow)])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(share, device, monkeypatch):
    monkeypatch.setattr(plan, "_memory", lambda device: 2**34)  # plans as if there were enough
    gc.collect()
    torch.ops.simulated.most()
    of = setup(**LARGE, steps=4)
    full = ac.run(of, seeds=range(32), device=device, backend="lanes")
    torch.ops.simulated.limit(int(share * torch.ops.simulated.most()))
    less = ac.run(of, seeds=range(32), device=device, backend="lanes")
    assert "for lack of memory" in less.runs[0].reason
    np.testing.assert_allclose(less.base, full.base, rtol=1e-12)


def test_one_run_that_does_not_fit_says_so(device, monkeypatch):
    monkeypatch.setattr(plan, "_memory", lambda device: 2**34)
    torch.ops.simulated.limit(20_000)
    with pytest.raises(MemoryError, match="does not fit the memory of sim: use less data or model"):
        ac.run(setup(**LARGE), seeds=range(4), device=device, backend="lanes")


def test_batches_are_planned_by_the_memory_that_the_device_has(device):
    before = plan._memory(torch.device(device))
    torch.ops.simulated.limit(2**20)
    assert (before, plan._memory(torch.device(device))) == (2**34, 2**20)
    assert ac.run(setup(), seeds=range(40), device=device, backend="lanes").runs[0].reason is None


class Drawing(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)) + 0.1 * torch.normal(0.0, torch.ones(3, device=x.device))


@pytest.mark.parametrize("model", [MODELS["dropout"], lambda: Drawing(36, 3)])
def test_the_random_state_of_the_device_is_left_as_it_was_found(model, device):
    torch.manual_seed(5)
    before = torch.sim.get_rng_state(), torch.get_rng_state(), random.getstate()
    ac.run(setup(model=model, steps=3), seeds=range(2), device=device)
    after = torch.sim.get_rng_state(), torch.get_rng_state(), random.getstate()
    assert all(torch.equal(a, b) for a, b in zip(before[:2], after[:2], strict=True))
    assert before[2] == after[2]


def test_no_process_is_forked_beside_an_accelerator():
    assert not workers._may_fork()


def test_ways_are_those_of_a_cpu(device):
    """An optimizer is stepped in the way that it is on a CPU, and the reason is the same."""
    for optimizer in OPTIMIZERS.values():
        here, there = (
            ac.run(setup(optimizer=optimizer, steps=3), seeds=range(3), device=d, backend="lanes")
            for d in (device, "cpu")
        )
        assert [run.reason for run in here.runs] == [run.reason for run in there.runs]
