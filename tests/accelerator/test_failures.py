"""What a device that fails, or a setup that cannot be trained on it, is answered with."""

import pytest
import torch
from cases.accelerated import MODELS, WEIGHTS, assert_alike, setup
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks.backends import lanes, loop
from alignment_checks.backends.reproducible import reproducible
from alignment_checks.backends.stepping import stepper
from alignment_checks.inspection.placement import told_of
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.devices import resolved


class Asserting(torch.optim.SGD):
    """Fails as a kernel does: at some later operation, and for good."""

    def step(self, closure=None):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize("backend", ["auto", "lanes", "loop"])
def test_a_device_that_failed_is_an_error_at_once_that_says_so(backend, device, monkeypatch):
    """No other way of stepping is tried, nor the loop: whatever is asked of it from then on fails as well."""
    began = []
    for module, name in ((stepper, "Stepper"), (loop, "_Loop")):
        kind = getattr(module, name)
        monkeypatch.setattr(kind, "__init__", _counted(kind.__init__, began))
    with pytest.raises(torch.AcceleratorError, match="device-side assert") as caught:
        ac.run(setup(optimizer=Asserting), seeds=range(8), device=device, backend=backend)
    (note,) = caught.value.__notes__
    assert "sim failed, and this process can no longer use it" in note
    assert "CUDA_LAUNCH_BLOCKING=1" in note
    assert len(began) == 1


def _counted(function, began):
    def called(*args, **named):
        began.append(function)
        return function(*args, **named)

    return called


def test_the_tensor_of_another_device_is_seen_in_what_a_convolution_says_of_it(device):
    kinds = "Input type (torch.{}.FloatTensor) and weight type (torch.{}FloatTensor) should be the same"
    for said, notes in ((kinds.format(device, ""), 1), (kinds.format(device, f"{device}."), 0)):
        with pytest.raises(RuntimeError) as caught, told_of(torch.device(device)):
            raise RuntimeError(said)
        assert len(getattr(caught.value, "__notes__", ())) == notes


class Naming(torch.nn.Linear):
    """Names the device that its author trains on."""

    def forward(self, x):
        return super().forward(x.flatten(1)) + torch.ones(3, device="sim", dtype=torch.float64)


def test_a_model_that_names_a_device_is_told_what_to_do_instead(device):
    with pytest.raises(ValueError, match=r"the model, called .* raised .* same device.*new tensors on .*x\.device"):
        ac.run(setup(model=lambda: Naming(36, 3)), device=device)


def test_an_objective_that_encloses_a_tensor_of_the_device_is_told_what_to_do_instead(device):
    weight = WEIGHTS.to(device)
    with pytest.raises(ValueError, match=r"`objective\(outputs, targets\)`, called .* raised .*functools\.partial"):
        ac.run(setup(objective=lambda o, t: cross_entropy(o, t, weight=weight)), device=device)


def test_a_device_that_there_is_not_is_refused_before_anything_is_trained(device):
    with pytest.raises(
        ValueError, match="`device` 'sim:1' is not available: torch reports 1 of 'sim', counted from 0, here"
    ):
        ac.run(setup(), device=f"{device}:1")


@pytest.fixture
def single():
    """Have the device compute in float32 and narrower alone, as a Mac's does."""
    torch.ops.simulated.has_float64(False)
    yield
    torch.ops.simulated.has_float64(True)


@pytest.mark.usefixtures("single")
def test_a_device_without_float64_is_not_taken_unless_it_is_named(device):
    assert resolved("auto") == torch.device("cpu")
    assert resolved(device) == torch.device(device)
    assert ac.run(setup(steps=2)).base.shape == (1, 3)


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("backend", ["lanes", "loop"])
def test_what_is_in_float32_trains_on_a_device_without_float64(backend, device):
    of = setup(dtype=torch.float32, optimizer=torch.optim.Adam, batch_size=7)
    here, there = (ac.run(of, seeds=range(2), device=d, backend=backend) for d in (device, "cpu"))
    assert_alike(here, there, rtol=1e-4)


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize(
    ("more", "deltas", "why"),
    [
        ({}, None, "the setup is in float64"),
        ({"dtype": torch.float32, "model": MODELS["dropout"]}, None, "the numbers that a run draws are"),
        ({"dtype": torch.float32}, [Perturbation("gradient_noise", 0.1, 0.2, 0)], "the numbers that a run draws are"),
    ],
)
def test_what_takes_float64_is_refused_where_there_is_none(more, deltas, why, device):
    with pytest.raises(ValueError, match=f"`device` 'sim' does not compute in float64, and {why}. Train on device='cp"):
        ac.run(setup(**more), deltas, device=device)


def test_the_device_that_runs_train_on_is_the_current_one(device):
    """So a generator's state that is asked for, or a kernel of the user's own, is of that one."""
    with reproducible(torch.device(device, 1)):
        assert torch.accelerator.current_device_index() == 1
    assert torch.accelerator.current_device_index() == 0


def test_a_batch_that_memory_fails_in_a_library_is_halved(device, monkeypatch):
    """cuBLAS has memory of its own, and says in its own way that there is none."""
    whole = lanes._Lanes.recorded

    def recorded(batch):
        if len(batch.jobs) > 2:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return whole(batch)

    monkeypatch.setattr(lanes._Lanes, "recorded", recorded)
    found = ac.run(setup(model=MODELS["mlp"], steps=2), seeds=range(4), device=device, backend="lanes")
    assert "in batches of at most 2, for lack of memory" in found.runs[0].reason
