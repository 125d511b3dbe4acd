"""What a user's own tensors are on is no matter, as long as they can be seen; else the error says what helps."""

import pytest
import torch
from cases.accelerated import MODELS, WEIGHTS, assert_alike, setup
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.inspection import placement


def on(device, values):
    return tuple(value.to(device) for value in values)


@pytest.mark.parametrize("there", [True, False])
def test_data_on_the_accelerator_and_a_model_built_there_train_anywhere(there, device):
    plain = ac.run(setup(model=MODELS["batch norm"]), seeds=range(2), device="cpu")
    theirs = setup(model=lambda: MODELS["batch norm"]().to(device), data=on(device, setup().data))
    assert_alike(ac.run(theirs, seeds=range(2), device=device if there else "cpu"), plain)


@pytest.mark.parametrize("there", [True, False])
def test_class_weights_on_the_accelerator_do_anywhere(there, device):
    def objective(weight):
        return torch.nn.CrossEntropyLoss(weight=weight)

    plain = ac.run(setup(objective=objective(WEIGHTS)), seeds=range(2), device="cpu")
    theirs = objective(WEIGHTS.to(device))
    assert_alike(ac.run(setup(objective=theirs), seeds=range(2), device=device if there else "cpu"), plain)
    assert theirs.weight.device.type == device


def test_a_tensor_that_nobody_sees_is_an_error_that_says_what_helps(device):
    hidden = WEIGHTS.clone()
    with pytest.raises(RuntimeError, match="same device") as caught:
        ac.run(setup(objective=lambda o, t: cross_entropy(o, t, weight=hidden)), device=device)
    (note,) = caught.value.__notes__
    assert f"trained on {device}" in note
    assert "--alignment-device=cpu" in note


def test_where_runs_ended_is_in_host_memory(device):
    for backend in ("lanes", "loop"):
        ends = ac.run(setup(mesa_objective=ac.step_l1), seeds=range(2), device=device, backend=backend).end
        assert {v.device.type for end in ends for v in (*end.parameters.values(), *end.step.values())} == {"cpu"}


def test_numbers_that_an_objective_holds_are_not_gone_through_one_by_one(monkeypatch):
    """A trainer's log may be long, and what holds it is looked through for each batch."""
    asked = []
    look = placement._Placed.of
    monkeypatch.setattr(placement._Placed, "of", lambda self, value: (asked.append(value), look(self, value))[1])
    held = {"log": [0.5] * 1000, "names": {"a": 1, "b": None}, "weight": torch.ones(3)}
    there = placement.placed(held, torch.device("meta"))
    assert there["weight"].device.type == "meta"
    assert there["log"] == held["log"]
    assert len(asked) < 10


def built_on_the_host():
    with torch.device("cpu"):
        return MODELS["dropout"]()


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("backend", ["lanes", "loop"])
def test_where_a_user_has_tensors_made_by_default_is_no_matter(there, backend, device):
    """`torch.set_default_device` is for what names no device: what is drawn for a run is drawn on the host."""
    where, more = device if there else "cpu", {"backend": backend, "examples": 4}
    deltas = [
        pt.Perturbation(name, 0.2, 1.0, 1) for name in ("label_noise", "subsample", "init_jitter", "feature_noise")
    ]
    plain = setup(model=built_on_the_host, batch_size=7, steps=5)
    expected = ac.run(plain, deltas, backend=backend, device=where)
    try:
        torch.set_default_device(device)
        found = ac.run(plain, deltas, backend=backend, device=where)
        verdict = ac.check_capability_robust(plain, under=pt.label_noise(max_rate=0.3), rtol=9, device=where, **more)
    finally:
        torch.set_default_device(None)
    assert_alike(found, expected, rtol=0)
    assert verdict.status == "pass"
