"""`run`: which runs there are, in which order, by which backend, each trained once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.counted import Counted
from hypothesis import find, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks import runs
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.composition import assembled

NOISE, MORE = Perturbation("label_noise", 0.3, 0.5, 1), Perturbation("label_noise", 0.5, 0.5, 1)


NONE = Perturbation("label_noise", 1e-9, 0.5, 1)


PENALTY = Perturbation("l2_penalty", 0.1, 1.0, 0)


GAIN = Perturbation("init_gain", 0.5, 1.0, 0)


BACKENDS = pytest.mark.parametrize("backend", ["lanes", "loop"])


# ------------------------------------------------------------------------------------------------ which runs there are


@BACKENDS
def test_runs_are_perturbation_major(blobs, backend):
    trajectory = ac.run(blobs, [IDENTITY, GAIN], seeds=[4, 2], backend=backend)
    expected = [(IDENTITY, 4), (IDENTITY, 2), (GAIN, 4), (GAIN, 2)]
    assert [(run.perturbation, run.seed) for run in trajectory.runs] == expected
    for row, (delta, seed) in enumerate(expected):
        alone = ac.run(blobs, [delta], seeds=[seed], backend="loop")
        np.testing.assert_allclose(trajectory.base[row], alone.base[0], rtol=1e-12)
        np.testing.assert_allclose(trajectory.mesa[row], alone.mesa[0], rtol=1e-12)


def test_by_default_it_is_the_identity_under_the_setups_own_seed(blobs):
    trajectory = ac.run(replace(blobs, seed=7))
    assert [(run.perturbation, run.base, run.seed) for run in trajectory.runs] == [(IDENTITY, IDENTITY, 7)]
    assert np.array_equal(trajectory.base, ac.run(blobs, seeds=[7]).base)


@BACKENDS
@settings(max_examples=15, deadline=None)
@given(rates=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_a_run_under_zero_is_the_unperturbed_run_bit_for_bit(blobs, backend, rates):
    """δ = 0 is the identity, whatever it is called and whatever runs beside it."""
    zeros = [NOISE.at(0.0), GAIN.at(0.0), PENALTY.at(0.0), assembled([GAIN.at(0.0), NOISE.at(0.0)])]
    others = [Perturbation("label_noise", rate, 1.0, 1) for rate in rates]
    trajectory = ac.run(blobs, [IDENTITY, *zeros, *others], backend=backend)
    for row in range(1, 5):
        assert np.array_equal(trajectory.base[row], trajectory.base[0])
        assert np.array_equal(trajectory.mesa[row], trajectory.mesa[0])
    np.testing.assert_allclose(trajectory.base[0], ac.run(blobs, backend="loop").base[0], rtol=1e-12)


@BACKENDS
def test_training_and_scoring_are_each_under_their_own_perturbation(blobs, backend):
    """θ(t) and G are of the mesa side, L is of the base side."""
    trajectory = ac.run(blobs, [NOISE, NOISE, IDENTITY], base=[NOISE, IDENTITY, PENALTY], backend=backend)
    assert [(r.perturbation, r.base) for r in trajectory.runs] == [
        (NOISE, NOISE),
        (NOISE, IDENTITY),
        (IDENTITY, PENALTY),
    ]
    both, clean, penalized = trajectory.base
    assert np.array_equal(trajectory.mesa[0], trajectory.mesa[1])
    assert not np.array_equal(both, clean)
    plain = ac.run(blobs, backend="loop")
    np.testing.assert_allclose(trajectory.mesa[2], plain.mesa[0], rtol=1e-12)
    assert clean[0] == pytest.approx(plain.base[0, 0], rel=1e-12)
    norms = sum(float(value.square().sum()) for value in plain.end[0].parameters.values())
    assert penalized[-1] == pytest.approx(plain.base[0, -1] + 0.05 * norms, rel=1e-12)


# ------------------------------------------------------------------------------------------------ each is trained once


@pytest.mark.parametrize(("backend", "calls"), [("loop", [1] * 12), ("lanes", [1] * 24)])
def test_runs_which_train_alike_are_trained_once_however_they_are_scored(blobs, backend, calls):
    """The identity, a rate that flips nothing, and the same δ under two names are one run; L is scored apart.

    In lanes, what has data of its own has a batch of its own, and one lane is stepped by itself beside it: the audit.
    """
    counted = Counted()
    trained = [IDENTITY, NONE, NOISE.at(0.0), IDENTITY, NOISE, NOISE, assembled([NOISE, GAIN.at(0.0)])]
    scored = [IDENTITY, PENALTY, MORE, NOISE, NOISE, IDENTITY, NOISE]
    trajectory = ac.run(replace(blobs, optimizer=counted), trained, base=scored, backend=backend)
    assert counted.lanes == calls
    assert len({row.tobytes() for row in trajectory.mesa}) == 2
    expected = [ac.run(blobs, [t], base=[s], backend="loop").base[0] for t, s in zip(trained, scored, strict=True)]
    np.testing.assert_allclose(trajectory.base, expected, rtol=1e-12)


def test_seeds_are_trained_apart(blobs):
    counted = Counted()
    ac.run(replace(blobs, optimizer=counted), [IDENTITY, NONE], seeds=[0, 1, 2], backend="loop")
    assert counted.steps == 3 * blobs.steps


def test_scoring_along_kept_weights_trains_nothing_and_equals_the_runs(blobs):
    counted = Counted()
    setup = replace(blobs, optimizer=counted)
    deltas = [IDENTITY, PENALTY, NOISE, find(pt.objective_mix(ac.brier), lambda d: d.magnitude > 0.5)]
    paths = runs.follow(setup, [0, 3])
    assert counted.steps == 2 * blobs.steps
    along = runs.along(paths, deltas)
    assert counted.steps == 2 * blobs.steps
    expected = ac.run(blobs, [IDENTITY] * 4, base=deltas, seeds=[0, 3], backend="loop")
    assert [(r.base, r.seed, r.outcome) for r in along.runs] == [(r.base, r.seed, r.outcome) for r in expected.runs]
    np.testing.assert_allclose(along.base, expected.base, rtol=1e-12)
    np.testing.assert_allclose(along.mesa, expected.mesa, rtol=1e-12)


# ----------------------------------------------------------------------------------------------------------- backends


def test_auto_takes_lanes_for_many_and_the_loop_for_few(blobs):
    few, many = (ac.run(blobs, seeds=range(count)) for count in (2, 16))
    assert [(r.backend, r.reason) for r in few.runs] == [
        ("loop", "too few runs of this structure to be faster in lanes")
    ] * 2
    assert [(r.backend, r.reason) for r in many.runs] == [("lanes", None)] * 16


def test_runs_of_unlike_structure_share_no_batch_and_keep_their_order(blobs):
    half = Perturbation("subsample", 0.5, 1.0, 2)
    deltas = [half, IDENTITY, half.at(0.3), GAIN, PENALTY, PENALTY.at(0.5)]
    lanes, loop = (ac.run(blobs, deltas, backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-9)
    assert [run.perturbation for run in lanes.runs] == deltas


@BACKENDS
def test_one_thread_trains_and_the_thread_count_is_put_back(blobs, backend):
    seen, before = [], torch.get_num_threads()

    def watched(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        return optimizer

    def interrupted(outputs, targets):
        if torch.get_num_threads() == 1:
            raise KeyboardInterrupt
        return cross_entropy(outputs, targets)

    try:
        torch.set_num_threads(2)
        ac.run(replace(blobs, optimizer=watched), seeds=range(3), backend=backend)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyboardInterrupt):
            ac.run(replace(blobs, objective=interrupted), seeds=range(3), backend=backend)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------------------------------------- what comes back


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@BACKENDS
def test_a_trajectory_is_read_only_float64_with_the_resolution_of_its_dtype(blobs, backend, dtype):
    trajectory = ac.run(replace(blobs, dtype=dtype), [IDENTITY, NOISE], backend=backend)
    for series in (trajectory.base, trajectory.mesa):
        assert (series.shape, series.dtype) == ((2, 7), np.float64)
        with pytest.raises(ValueError, match="read-only"):
            series[0, 0] = 0
    assert trajectory.resolution == torch.finfo(dtype).eps
    assert [run.infimum for run in trajectory.runs] == [0.0, 0.0]


@BACKENDS
def test_ends_above_the_cap_are_trained_again_when_asked_for_and_are_the_same(blobs, backend, monkeypatch):
    counted = Counted()
    setup, deltas = replace(blobs, optimizer=counted), [IDENTITY, GAIN, NOISE]
    kept = ac.run(setup, deltas, seeds=[0, 1], backend=backend)
    once = counted.steps
    assert kept.end is kept.end
    assert counted.steps == once
    monkeypatch.setattr(runs, "KEPT_NUMBERS", 10)
    dropped = ac.run(setup, deltas, seeds=[0, 1], backend=backend)
    assert counted.steps == 2 * once
    ends = dropped.end
    assert counted.steps == 3 * once
    assert dropped.end is ends
    for a, b in zip(ends, kept.end, strict=True):
        assert a.learning_rate == b.learning_rate == (0.1,)
        assert a.parameters.keys() == a.step.keys() == b.parameters.keys()
        assert all(torch.equal(a.parameters[name], value) for name, value in b.parameters.items())
        assert all(torch.equal(a.step[name], value) for name, value in b.step.items())


@BACKENDS
def test_the_last_step_leads_to_the_end(blobs, backend):
    (end,) = ac.run(blobs, backend=backend).end
    (before,) = ac.run(replace(blobs, steps=blobs.steps - 1), backend=backend).end
    for name, value in end.parameters.items():
        torch.testing.assert_close(before.parameters[name] + end.step[name], value, rtol=1e-12, atol=1e-15)
