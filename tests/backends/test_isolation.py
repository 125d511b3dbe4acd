"""The same run has the same bits in any company and in any order, and a batch goes through whatever it takes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.pictures import CPU, DTYPES, GAINS, KNOWN, MODELS, pictures
from hypothesis import find, given, settings
from hypothesis import strategies as st
from torch import nn

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends import dispatch, lanes, layouts, slots
from alignment_checks.backends.job import Job
from alignment_checks.perturbations import Perturbation
from alignment_checks.randomness.drawing import Randomness
from alignment_checks.setups.realization import GradientNoise, realize


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
        placed = layouts.at_own_slots([Job(run, (None,)) for run in runs_of_one_structure], 16)
        assert len(placed) < 8
        assert placed == layouts.at_own_slots([Job(run, (None,)) for run in runs_of_one_structure], 16)
