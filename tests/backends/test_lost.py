"""Lanes that have diverged are not evaluated any more, where that spares calls; no number that is recorded changes."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends import lost, plan
from alignment_checks.backends.stacking import Batch
from alignment_checks.heartbeat import listening
from alignment_checks.perturbations import IDENTITY, Perturbation

WILD = 8.0
"""log₂ of a gain from which the quartic bowl blows up within a few steps."""


def quartic(**more):
    """Return the descent of x⁴/4 from 1 at step ½: it converges from below √4, and beyond that blows up."""
    return ac.landscape(
        lambda x: x.square().square().sum() / 4,
        [1.0, 0.5],
        **{"optimizer": partial(torch.optim.SGD, lr=0.5), "steps": 40, **more},
    )


def gain(log2):
    return Perturbation("init_gain", log2, WILD, 0)


@pytest.fixture
def calls(monkeypatch):
    """Return how many lanes stand in each call of the batched function, calls being of two."""
    seen, laid_out = [], Batch._calls

    def counted(batch, *how):
        found = laid_out(batch, *how)
        seen.extend([found.width] * len(found.arguments))
        return found

    monkeypatch.setattr(plan, "chunk", lambda *_: 2)
    monkeypatch.setattr(Batch, "_calls", counted)
    return seen


@settings(max_examples=6, deadline=None)
@given(
    wild=st.lists(st.booleans(), min_size=2, max_size=18),
    chunk=st.sampled_from([1, 2, 16]),
    record_every=st.sampled_from([1, 3]),
    momentum=st.sampled_from([0.0, 0.5]),
    mesa=st.sampled_from([ac.gradient_l1, ac.step_l1]),
)
def test_what_is_recorded_is_what_all_steps_of_all_lanes_would_have_recorded(wild, chunk, record_every, momentum, mesa):
    setup = quartic(
        optimizer=partial(torch.optim.SGD, lr=0.5, momentum=momentum), record_every=record_every, mesa_objective=mesa
    )
    deltas = [gain(WILD if one else -index / 8) for index, one in enumerate(wild)]
    found = []
    for looked in (1, 10**9):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(plan, "chunk", lambda *_: chunk)
            patched.setattr(lost, "LOOKED", looked)
            found.append(ac.run(setup, deltas, backend="lanes"))
    stopped, whole = found
    np.testing.assert_array_equal(stopped.base, whole.base)
    np.testing.assert_array_equal(stopped.mesa, whole.mesa)
    assert [run.outcome for run in stopped.runs] == [run.outcome for run in whole.runs]
    assert [run.outcome.diverged_at is not None for run in stopped.runs] == wild
    for one, other in zip(stopped.end, whole.end, strict=True):
        assert one.parameters.keys() == other.parameters.keys()
        assert all(torch.equal(a.nan_to_num(), other.parameters[n].nan_to_num()) for n, a in one.parameters.items())


@pytest.mark.parametrize("wild", [0, 1, 6, 7])
def test_calls_all_of_whose_lanes_have_diverged_are_left_out(calls, monkeypatch, wild):
    """Of 16 lanes, 2 to a call, the first ones diverge before the first look."""
    deltas = [gain(WILD - i / 64) for i in range(wild)] + [gain(-i / 64) for i in range(16 - wild)]
    counted = []
    for looked in (10**9, 16):
        monkeypatch.setattr(lost, "LOOKED", looked)
        ac.run(quartic(), deltas, backend="lanes")
        counted.append(len(calls) - sum(counted))
    looked, all_steps = 1 + 16, 1 + 40
    assert counted[0] - counted[1] == wild // 2 * (all_steps - looked)


def test_a_batch_of_lanes_that_have_all_diverged_ends():
    steps = []
    with listening(lambda t, _: steps.append(t)):
        found = ac.run(quartic(steps=1000), [gain(WILD), gain(WILD - 1)], backend="lanes")
    assert max(steps) == lost.LOOKED
    assert all(run.outcome.diverged_at < lost.LOOKED for run in found.runs)
    assert all(bool(end.parameters["point"].isnan().all()) for end in found.end)


def test_a_run_that_has_diverged_under_one_score_goes_on_under_another(monkeypatch):
    """Its own L is 0 at θ = 0; what it is scored under beside it is not finite there."""

    def pole(outputs, targets=None):
        return 1 / outputs.abs().sum() ** 8

    toward = find(pt.objective_mix(pole), lambda _: True).at(1.0)
    setup = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.4), steps=60)
    monkeypatch.setattr(lost, "LOOKED", 1)
    found = ac.run(setup, [IDENTITY] * 2, base=[IDENTITY, toward], backend="lanes")
    assert [run.outcome.diverged_at is None for run in found.runs] == [True, False]
    assert np.isfinite(found.base[0]).all()


def test_the_lanes_of_a_setup_on_data_are_the_loop_beside_ones_that_diverge(blobs):
    setup = replace(blobs, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9), steps=40, batch_size=7)
    rates = [Perturbation("learning_rate", m, 60.0, 0) for m in (0.0, 55.0, 58.0, -1.0, 60.0)]
    lanes, loop = (ac.run(setup, rates, backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(lanes.base[[0, 3]], loop.base[[0, 3]], rtol=1e-9)
    assert [run.outcome for run in lanes.runs] == [run.outcome for run in loop.runs]
