"""`record_every`: which steps are recorded, and that means weigh what was recorded correctly."""

import re
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks.asymptotics.regimes import outlook
from alignment_checks.measures import quadrature
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.runs import along, follow
from alignment_checks.trajectory import Run, Trajectory, settled

few = settings(max_examples=25, deadline=None)
BOWL = ac.landscape(lambda x: x.square().sum(), [1.0, -2.0], optimizer=partial(torch.optim.SGD, lr=0.05), steps=40)


def recorded(base, mesa, t):
    """Return a trajectory that recorded these series at these steps."""
    base, mesa, outcomes = settled(np.array([base], dtype=float), np.array([mesa], dtype=float), t)
    runs = (Run(IDENTITY, IDENTITY, 0, "loop", None, outcomes[0], 0.0),)
    return Trajectory(BOWL, base, mesa, runs, 2.0**-52, tuple, t)


@st.composite
def records(draw):
    """Return some recorded steps from 0 on, and L and G there."""
    t = np.cumsum([0, *draw(st.lists(st.integers(1, 7), min_size=1, max_size=12))])
    values = st.lists(st.floats(-5, 5), min_size=len(t), max_size=len(t))
    return t, np.array(draw(values)), np.array(draw(values))


# ------------------------------------------------------------------------------------------------- what is recorded


@few
@given(st.integers(1, 50), st.integers(1, 50))
def test_what_is_recorded_is_every_kth_step_from_0_and_the_last(steps, every):
    expected = sorted({t for t in range(steps + 1) if t % every == 0} | {steps})
    assert list(replace(BOWL, steps=steps, record_every=every).recorded) == expected


@pytest.mark.parametrize("backend", ["loop", "lanes"])
@pytest.mark.parametrize("every", [1, 3, 4, 100])
@pytest.mark.parametrize("mesa", [ac.gradient_l1, ac.step_l1], ids=lambda mesa: mesa.name)
def test_the_same_numbers_are_recorded_at_fewer_steps(blobs, backend, every, mesa):
    whole = replace(blobs, mesa_objective=mesa, steps=8)
    deltas = [IDENTITY, Perturbation("init_gain", 0.3, 1.0, 0), Perturbation("label_noise", 0.3, 1.0, 0)]
    full, some = (
        ac.run(s, deltas, base=[IDENTITY, IDENTITY, IDENTITY], backend=backend)
        for s in (whole, replace(whole, record_every=every))
    )
    assert some.t.tolist() == list(replace(whole, record_every=every).recorded)
    np.testing.assert_array_equal(some.base, full.base[:, some.t])
    np.testing.assert_array_equal(some.mesa, full.mesa[:, some.t])
    for a, b in zip(some.end, full.end, strict=True):
        assert all(torch.equal(a.parameters[name], value) for name, value in b.parameters.items())
        assert all(torch.equal(a.step[name], value) for name, value in b.step.items())


def test_a_trajectory_of_every_step_says_so():
    assert ac.run(BOWL).t.tolist() == list(range(41))


def test_a_divergence_is_named_by_the_step_at_which_it_was_recorded():
    wild = replace(BOWL, optimizer=partial(torch.optim.SGD, lr=3.0))
    whole, some = (ac.run(replace(wild, record_every=k)).runs[0].outcome.diverged_at for k in (1, 7))
    assert some == 7 * -(-whole // 7)
    assert str(ac.run(replace(wild, record_every=7)).runs[0].outcome) == f"diverged at step {some}"


def test_a_path_is_scored_at_what_is_recorded(blobs):
    setup = replace(blobs, record_every=4)
    scores = [IDENTITY, Perturbation("label_smoothing", 0.3, 1.0, 0)]
    found, expected = along(follow(setup, [0]), scores), ac.run(setup, [IDENTITY] * 2, base=scores)
    np.testing.assert_allclose(found.base, expected.base, rtol=1e-12)
    assert found.t.tolist() == [0, 4, 6]


# ------------------------------------------------------------------------------------------------------------- means


@few
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=200))
def test_where_every_step_is_recorded_capability_is_definition_1_bit_for_bit(values):
    values = np.array(values)
    came = ac.capability(recorded(values, values, np.arange(len(values))))
    assert np.array_equal(came, [(values[1:] - values[0]).mean()])


@few
@example((np.array([0, 1]), np.array([0.0, 4.5e-135]), np.array([0.0, 4.5e-135])))
@given(records())
def test_capability_is_exact_on_a_series_that_is_linear_between_records(made):
    t, base, mesa = made
    whole = np.arange(t[-1] + 1)
    full = recorded(np.interp(whole, t, base), np.interp(whole, t, mesa), whole)
    some = recorded(base, mesa, t)
    for of in ("base", "mesa"):
        assert ac.capability(some, of=of) == pytest.approx(ac.capability(full, of=of), rel=1e-9, abs=1e-12)
    for of in ("levels", "increments"):
        assert ac.correlation(some, of=of) == pytest.approx(ac.correlation(full, of=of), rel=1e-9, nan_ok=True)


@few
@given(records())
def test_every_step_from_1_on_counts_once(made):
    """What of them does not count for a later record counts for t = 0, where the change is 0."""
    t, *_ = made
    assert quadrature(t).sum() + (t[1] - 1) / 2 == pytest.approx(t[-1])


def test_on_a_convex_decay_the_error_is_of_second_order_in_the_stride():
    """A right-endpoint rule, by which a record stands for the steps since the one before, is off to first order."""
    t = np.arange(1025)
    series = np.exp(-t / 200)
    exact, errors, endpoint = (series[1:] - 1).mean(), [], []
    for every in (4, 8, 16):
        some = series[::every]
        errors.append(ac.capability(recorded(some, some, t[::every]))[0] - exact)
        endpoint.append((some[1:] - 1).mean() - exact)
    assert [b / a for a, b in pairwise(errors)] == pytest.approx([4, 4], rel=0.1)
    assert [b / a for a, b in pairwise(endpoint)] == pytest.approx([2, 2], rel=0.2)
    assert max(errors) < 0.02 * abs(min(endpoint))


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("every", [0, -1, 2.0, True])
def test_a_stride_that_is_no_positive_int_is_refused(every):
    with pytest.raises(ValueError, match="`record_every` must be an int, at least 1; got"):
        replace(BOWL, record_every=every)


def test_strong_alignment_has_to_see_every_step():
    with pytest.raises(ValueError, match="between whose records a peak is not seen"):
        ac.check_strongly_aligned(replace(BOWL, record_every=2), worst=9.0, within=10)


def test_a_verdict_says_what_its_means_are_of():
    note = "L and G are recorded every 4 steps, and assumed linear in between"
    gain = Perturbation("init_gain", 0.01, 1.0, 0)
    some, whole = (ac.check_capability_robust(replace(BOWL, record_every=k), delta=gain, rtol=0.5) for k in (4, 1))
    assert note in some.notes
    assert note not in whole.notes


# ------------------------------------------------------------------------------------------------------------- limits


def limits(setup):
    trajectory = ac.run(setup)
    return ac.capability_limit(trajectory)[0], ac.capability_limit(trajectory, of="mesa")[0]


@pytest.mark.parametrize("every", [3, 7])
def test_the_limit_of_a_converging_run_is_found_from_fewer_records(every):
    """T = 100 is a multiple of neither."""
    whole = replace(BOWL, steps=100)
    (full, _), (some, _) = limits(whole), limits(replace(whole, record_every=every))
    assert some.regime is full.regime is ac.Regime.FIXED
    assert some.low <= full.value <= some.high
    assert some.value == pytest.approx(full.value, rel=1e-3)


@pytest.mark.parametrize(
    ("every", "regime"), [(1, ac.Regime.PERIODIC), (2, ac.Regime.DRIFTING), (3, ac.Regime.DRIFTING)]
)
def test_a_cycle_is_not_taken_for_what_every_kth_step_shows_of_it(every, regime):
    """Descent on |x| orbits with period 2: at every other step it stands still, at a value that is not its mean."""
    orbit = ac.landscape(lambda x: x.abs().sum(), [1.03], optimizer=partial(torch.optim.SGD, lr=0.1), steps=300)
    found, _ = limits(replace(orbit, record_every=every))
    assert found.regime is (ac.Regime.PERIODIC if every == 1 else ac.Regime.DRIFTING)
    assert np.isnan(found.value) == (every > 1)
    assert ("record_every=1 tells" in found.method) == (every > 1)


@pytest.mark.parametrize("kind", ["noise", "cycle", "torus", "short"])
def test_the_steps_that_a_method_names_are_steps_and_not_records(kind):
    random, t = np.random.default_rng(0), np.arange(800.0)
    after = 5 * np.exp(-t / 20)
    series = {
        "noise": after + random.normal(size=800),
        "cycle": after + (t % 3),
        "torus": after + np.cos(t),
        "short": t[:9],
    }[kind]
    one, four = (outlook(series, 2.0**-52, every=every) for every in (1, 4))
    assert repr(replace(four, method=one.method)) == repr(one)
    steps = [[int(word) for word in re.findall(r"(?:t = |period |^)(\d+)", text)] for text in (one.method, four.method)]
    assert steps[0]
    assert steps[1] == [4 * step for step in steps[0]]
