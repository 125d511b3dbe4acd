"""What a device that fails, or a setup that cannot be trained on it, is answered with."""

import pytest
import torch
from cases.accelerated import MODELS, setup

import alignment_checks as ac
from alignment_checks.backends import lanes, loop
from alignment_checks.backends.reproducible import reproducible
from alignment_checks.backends.stepping import stepper
from alignment_checks.placement import told_of


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
    assert "sim failed, and this process can use it no more" in note
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


def test_a_device_that_there_is_not_is_refused_before_anything_is_trained(device):
    with pytest.raises(ValueError, match="`device` 'sim:1' is not available: torch reports 1 of 'sim' here"):
        ac.run(setup(), device=f"{device}:1")


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
