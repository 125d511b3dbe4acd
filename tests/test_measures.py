"""Definitions 1 and 2 at finite T: against closed forms, what is refused, and what is undefined and not a number.

Where the law is about numbers alone the trajectories are made up here; else they are trained.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.decomposition import decomposition
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.readings import Ratio, readings
from alignment_checks.realization import realize
from alignment_checks.search import drawn
from alignment_checks.trajectory import Run, Trajectory, settled

EXACT = 1e-9


def half_square(curvature):
    return lambda x: 0.5 * curvature * x.square().sum()


def bowl(curvature=1.0, start=1.0, lr=0.1, steps=50, **more):
    """Return gradient descent on ½λθ²."""
    return ac.landscape(half_square(curvature), [start], optimizer=partial(torch.optim.SGD, lr=lr), steps=steps, **more)


SETUP = bowl()


def recorded(base, mesa, infimum=0.0, resolution=2.0**-52):
    """Return a trajectory that records these series, shape (runs, T + 1)."""
    base, mesa, outcomes = settled(*(np.array(series, dtype=float) for series in (base, mesa)))
    runs = tuple(Run(IDENTITY, IDENTITY, row, "loop", None, outcome, infimum) for row, outcome in enumerate(outcomes))
    return Trajectory(SETUP, base, mesa, runs, resolution, tuple)


def geometric(ratio, steps):
    """Return Σ_{t=1..T} ratioᵗ."""
    return ratio * (1 - ratio**steps) / (1 - ratio) if ratio != 1 else float(steps)


def on_a_quadratic(curvature, start, lr, steps):
    """Return C_B and C_M of gradient descent on ½λθ², from geometric sums."""
    ratio = 1 - lr * curvature
    base = 0.5 * curvature * start**2 * (geometric(ratio**2, steps) / steps - 1)
    mesa = curvature * abs(start) * (geometric(abs(ratio), steps) / steps - 1)
    return base, mesa


# ---------------------------------------------------------------------------------------------------- the closed forms

curvatures = st.floats(0.1, 4.0)
starts = st.floats(0.2, 5.0) | st.floats(-5.0, -0.2)
step_ratios = st.floats(0.02, 0.98) | st.floats(1.05, 1.95)


@settings(max_examples=40, deadline=None)
@given(curvature=curvatures, start=starts, step_ratio=step_ratios, steps=st.integers(1, 40))
def test_capability_and_alignment_on_a_quadratic_are_the_geometric_sums(curvature, start, step_ratio, steps):
    trajectory = ac.run(bowl(curvature, start, step_ratio / curvature, steps))
    base, mesa = on_a_quadratic(curvature, start, step_ratio / curvature, steps)
    assert ac.capability(trajectory)[0] == pytest.approx(base, rel=EXACT)
    assert ac.improvement(trajectory)[0] == pytest.approx(-base, rel=EXACT)
    assert ac.capability(trajectory, of="mesa")[0] == pytest.approx(mesa, rel=EXACT)
    assert ac.alignment_factor(trajectory)[0] == pytest.approx(base / mesa, rel=EXACT)


@settings(max_examples=30, deadline=None)
@given(curvature=curvatures, start=starts, step_ratio=step_ratios, steps=st.integers(1, 40))
def test_the_dimensionless_forms_are_the_literal_ones_in_units_of_what_there_was_to_gain(
    curvature, start, step_ratio, steps
):
    trajectory = ac.run(bowl(curvature, start, step_ratio / curvature, steps))
    base, mesa = on_a_quadratic(curvature, start, step_ratio / curvature, steps)
    base, mesa = base / (0.5 * curvature * start**2), mesa / (curvature * abs(start))
    assert ac.capability(trajectory, normalized=True)[0] == pytest.approx(base, rel=EXACT)
    assert ac.capability(trajectory, of="mesa", normalized=True)[0] == pytest.approx(mesa, rel=EXACT)
    assert ac.improvement(trajectory, of="mesa", normalized=True)[0] == pytest.approx(-mesa, rel=EXACT)
    assert ac.alignment_factor(trajectory, normalized=True)[0] == pytest.approx(base / mesa, rel=EXACT)


@pytest.mark.parametrize("start", [0.5, -3.0])
def test_alignment_on_a_quadratic_tends_to_half_the_distance(start):
    """α_T → |θ(0)|/2, whatever the curvature and the step: what is off at T is of order 1/T."""
    t = np.arange(200_001)
    path = start * 0.5**t
    trajectory = recorded([0.5 * 3.0 * path**2], [3.0 * abs(path)])
    assert ac.alignment_factor(trajectory)[0] == pytest.approx(abs(start) / 2, rel=1e-5)
    shorter = recorded([0.5 * 3.0 * path[:101] ** 2], [3.0 * abs(path[:101])])
    assert abs(ac.alignment_factor(shorter)[0] - abs(start) / 2) > 1e-3


def test_linear_regression_is_one_quadratic_for_each_eigenvalue():
    """With the ½ in the loss, L(t) − L* = Σ ½λᵢ cᵢ² ρᵢ²ᵗ; the gradient is rotated back before its 1-norm is taken."""
    random = torch.Generator().manual_seed(3)
    x = torch.randn(12, 3, generator=random, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    y = y + 0.3 * torch.randn(12, 1, generator=random, dtype=torch.float64)
    lr, steps = 0.2, 30
    setup = ac.TrainingSetup(
        model=lambda: torch.nn.Linear(3, 1, bias=False),
        data=(x, y),
        objective=lambda outputs, targets: 0.5 * (outputs - targets).square().sum(-1),
        optimizer=partial(torch.optim.SGD, lr=lr),
        steps=steps,
        dtype=torch.float64,
    )
    trajectory = ac.run(setup)
    hessian, best = (x.T @ x / 12).numpy(), torch.linalg.lstsq(x, y).solution.numpy().ravel()
    values, vectors = np.linalg.eigh(hessian)
    start = trajectory.base[0, 0]
    residual = 0.5 * float((x @ torch.from_numpy(best)[:, None] - y).square().mean())
    weight = realize(setup, setup.seed).parameters["weight"].numpy().ravel()
    modes = vectors.T @ (weight - best)
    t = np.arange(steps + 1)[:, None]
    decay = (1 - lr * values) ** t
    assert start == pytest.approx(residual + (0.5 * values * modes**2).sum(), rel=EXACT)
    base = residual + (0.5 * values * (decay * modes) ** 2).sum(1)
    mesa = np.abs((decay * modes * values) @ vectors.T).sum(1)
    expected = (base[1:] - base[0]).mean(), (mesa[1:] - mesa[0]).mean()
    assert ac.capability(trajectory)[0] == pytest.approx(expected[0], rel=EXACT)
    assert ac.capability(trajectory, of="mesa")[0] == pytest.approx(expected[1], rel=EXACT)
    assert ac.alignment_factor(trajectory)[0] == pytest.approx(expected[0] / expected[1], rel=EXACT)


def test_on_a_separable_example_t_times_loss_tends_to_one_over_lr_times_its_squared_norm():
    """Logistic loss without a bias: t·L(t) → 1/(η‖x‖²), and C_T's bias is of order log T / T."""
    x, lr, steps = [2.0, 1.0], 0.5, 4000
    setup = ac.landscape(
        lambda w: torch.nn.functional.softplus(-(w * torch.tensor(x, dtype=torch.float64)).sum()),
        [0.0, 0.0],
        optimizer=partial(torch.optim.SGD, lr=lr),
        steps=steps,
    )
    trajectory = ac.run(setup)
    assert steps * trajectory.base[0, -1] == pytest.approx(1 / (lr * 5.0), rel=0.01)
    bias = ac.capability(trajectory)[0] + math.log(2)
    assert bias == pytest.approx(math.log(steps) / (lr * 5.0 * steps), rel=0.3)


# ----------------------------------------------------------------------------------------------------- laws of numbers

positive = st.floats(0.01, 100.0)


@st.composite
def pairs_of_series(draw):
    steps = draw(st.integers(1, 12))
    base, mesa = (draw(st.lists(positive, min_size=steps + 1, max_size=steps + 1)) for _ in range(2))
    changes = [np.mean(np.array(series[1:]) - series[0]) for series in (base, mesa)]
    assume(all(abs(change) > 1e-3 for change in changes))
    return base, mesa


@settings(max_examples=60)
@given(pairs_of_series())
def test_base_capability_is_alignment_times_mesa_capability(pair):
    trajectory = recorded([pair[0]], [pair[1]])
    for normalized in (False, True):
        base, mesa = (ac.capability(trajectory, of=of, normalized=normalized) for of in ("base", "mesa"))
        assert ac.alignment_factor(trajectory, normalized=normalized) * mesa == pytest.approx(base, rel=1e-12)


@settings(max_examples=60)
@given(pairs_of_series(), st.floats(0.001, 1000.0), st.floats(0.001, 1000.0))
def test_literal_forms_carry_the_units_of_the_objectives_and_dimensionless_ones_none(pair, a, b):
    """L′ = aL gives C′ = aC and α′ = aα; G′ = bG gives α′ = α/b; C̃ and α̃ stay."""
    plain = recorded([pair[0]], [pair[1]])
    scaled = recorded([np.multiply(a, pair[0])], [np.multiply(b, pair[1])])
    assert ac.capability(scaled) == pytest.approx(a * ac.capability(plain), rel=1e-9)
    assert ac.capability(scaled, of="mesa") == pytest.approx(b * ac.capability(plain, of="mesa"), rel=1e-9)
    assert ac.alignment_factor(scaled) == pytest.approx(a / b * ac.alignment_factor(plain), rel=1e-9)
    for measure in (ac.capability, partial(ac.capability, of="mesa"), ac.alignment_factor):
        assert measure(scaled, normalized=True) == pytest.approx(measure(plain, normalized=True), rel=1e-9)


@settings(max_examples=60)
@given(pairs_of_series(), st.floats(-50.0, 50.0))
def test_literal_forms_do_not_see_a_constant_and_dimensionless_ones_see_it_as_the_infimum(pair, shift):
    plain = recorded([pair[0]], [pair[1]])
    shifted = recorded([np.add(shift, pair[0])], [pair[1]], infimum=shift)
    assert ac.capability(shifted) == pytest.approx(ac.capability(plain), rel=1e-9)
    assert ac.alignment_factor(shifted) == pytest.approx(ac.alignment_factor(plain), rel=1e-9)
    assert ac.capability(shifted, normalized=True) == pytest.approx(ac.capability(plain, normalized=True), rel=1e-9)


def test_the_value_at_the_start_is_what_is_compared_with_and_no_summand():
    trajectory = recorded([[4.0, 1.0, 1.0, 1.0]], [[3.0, 2.0, 1.0, 0.0]])
    assert ac.capability(trajectory)[0] == -3.0
    assert ac.capability(trajectory, of="mesa")[0] == -2.0
    assert ac.alignment_factor(trajectory)[0] == 1.5


def test_alignment_is_positive_also_where_both_objectives_got_worse():
    trajectory = recorded([[1.0, 2.0]], [[1.0, 3.0]])
    assert ac.alignment_factor(trajectory)[0] == 0.5
    assert not readings(trajectory, 1)[0].improves


# ----------------------------------------------------------------------------------- what is undefined, and no number


def test_descent_on_an_absolute_value_has_a_capability_and_no_alignment():
    """G ≡ 1: C_M is 0, C_B is not."""
    setup = ac.landscape(
        lambda x: x.abs().sum(), [0.95], optimizer=partial(torch.optim.SGD, lr=0.1), steps=30, objective_infimum=0.0
    )
    trajectory = ac.run(setup)
    assert ac.capability(trajectory, of="mesa")[0] == 0
    assert ac.capability(trajectory)[0] < -0.5
    assert math.isnan(ac.alignment_factor(trajectory)[0])
    assert math.isnan(ac.alignment_factor(trajectory, normalized=True)[0])


def test_at_a_critical_point_nothing_moves_and_alignment_is_undefined():
    trajectory = ac.run(ac.landscape(lambda x: 1 + x.pow(3).sum(), [0.0], optimizer=torch.optim.SGD, steps=5))
    assert (ac.capability(trajectory)[0], ac.capability(trajectory, of="mesa")[0]) == (0, 0)
    assert math.isnan(ac.alignment_factor(trajectory)[0])


def test_a_denominator_that_is_rounding_alone_gives_no_alignment():
    mesa = [1.0, 1.0 + 2.0**-52, 1.0, 1.0 + 2.0**-52]
    assert math.isnan(ac.alignment_factor(recorded([[1.0, 0.9, 0.8, 0.7]], [mesa]))[0])
    coarse = recorded([[1.0, 0.9]], [[1.0, 1.0 - 1e-7]], resolution=2.0**-23)
    assert math.isnan(ac.alignment_factor(coarse)[0])
    assert ac.alignment_factor(recorded([[1.0, 0.9]], [[1.0, 1.0 - 1e-7]]))[0] == pytest.approx(1e6, rel=1e-6)


@pytest.mark.parametrize(
    "gone", [[1.0, 0.5, math.nan], [1.0, math.inf, math.nan], [1.0, 0.5, 1e9], [1.0, 0.5, math.inf]]
)
def test_a_run_that_diverged_has_no_numbers_whenever_it_did(gone):
    """Also at its very last step, where nothing of the series is missing."""
    fine = [1.0, 0.5, 0.25]
    for base, mesa in ((gone, fine), (fine, gone)):
        trajectory = recorded([base, fine], [mesa, fine])
        values = [ac.capability(trajectory), ac.capability(trajectory, of="mesa"), ac.alignment_factor(trajectory)]
        values += [ac.capability(trajectory, normalized=True), ac.correlation(trajectory)]
        values += [ac.correlation(trajectory, of="increments")]
        for value in values:
            assert math.isnan(value[0])
            assert math.isfinite(value[1])
        first, second = readings(trajectory, 1)
        assert (first.diverged, second.diverged) == (True, False)
        assert math.isnan(first.capability("base", normalized=False).value)
        assert math.isnan(first.alignment(normalized=False).value)
        assert not first.defined


def test_descent_beyond_twice_the_inverse_curvature_diverges():
    inside, outside = (ac.run(bowl(lr=lr, steps=400)) for lr in (1.99, 2.11))
    assert np.isfinite(ac.capability(inside)).all()
    assert np.isnan(ac.capability(outside)).all()
    assert outside.runs[0].outcome.diverged_at is not None


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("infimum", "why"),
    [
        (None, "needs an infimum L\\* of the objective, and none is stated"),
        (1.0, "needs L\\(0\\) above the stated infimum L\\* = 1; got L\\(0\\) = 1 under identity"),
        (2.0, "needs L\\(0\\) above the stated infimum L\\* = 2; got L\\(0\\) = 1"),
    ],
)
def test_the_dimensionless_form_of_the_base_objective_needs_an_infimum_below_the_start(infimum, why):
    trajectory = recorded([[1.0, 0.5]], [[1.0, 0.5]], infimum=infimum)
    for measure in (ac.capability, ac.improvement, ac.alignment_factor):
        with pytest.raises(ValueError, match=why + r"[^\n]*normalized=False"):
            measure(trajectory, normalized=True)
        assert measure(trajectory)[0] == pytest.approx({ac.capability: -0.5, ac.improvement: 0.5}.get(measure, 1.0))
    assert ac.capability(trajectory, of="mesa", normalized=True)[0] == -0.5
    assert why.split(";")[0].replace("\\", "") in readings(trajectory, 1)[0].refusal


def test_the_dimensionless_form_of_the_mesa_objective_needs_a_gradient_to_start_with():
    trajectory = recorded([[1.0, 1.0]], [[0.0, 0.0]])
    with pytest.raises(ValueError, match=r"needs G\(0\) > 0; got 0 under identity"):
        ac.capability(trajectory, of="mesa", normalized=True)


def test_the_infimum_of_the_objective_that_scored_a_run_is_the_one_that_counts():
    """Under a mixture with an objective of another infimum L* is mixed too."""
    setup = bowl(steps=3)
    strategy = pt.objective_mix(lambda outputs, targets: outputs + 1, infimum=1.0)
    delta = drawn(strategy, 1, 0)[0].at(0.5)
    trajectory = ac.run(setup, [IDENTITY, delta])
    assert [run.infimum for run in trajectory.runs] == [0.0, 0.5]
    plain, shifted = ac.capability(trajectory, normalized=True)
    assert shifted == pytest.approx(plain, rel=EXACT)


@pytest.mark.parametrize("of", ["L", None, "both"])
def test_a_side_that_does_not_exist_is_refused(of):
    with pytest.raises(ValueError, match=r"`of` must be 'base' .* or 'mesa'"):
        ac.capability(recorded([[1.0, 0.5]], [[1.0, 0.5]]), of=of)


# --------------------------------------------------------------------------------------------------------- correlation


@settings(max_examples=40)
@given(pairs_of_series())
def test_correlation_is_pearsons(pair):
    assume(len(pair[0]) > 3)
    assume(all(np.ptp(series) > 1e-3 and np.ptp(np.diff(series)) > 1e-3 for series in pair))
    trajectory = recorded([pair[0]], [pair[1]])
    assert ac.correlation(trajectory)[0] == pytest.approx(np.corrcoef(*pair)[0, 1], abs=1e-9)
    increments = np.corrcoef(*np.diff(pair, axis=1))[0, 1]
    assert ac.correlation(trajectory, of="increments")[0] == pytest.approx(increments, abs=1e-9)


def test_levels_correlate_through_their_trend_alone_and_increments_do_not():
    random = np.random.default_rng(0)
    trend = np.linspace(10, 0, 500)
    trajectory = recorded([trend + random.normal(size=500)], [trend + random.normal(size=500)])
    assert ac.correlation(trajectory)[0] > 0.8
    assert abs(ac.correlation(trajectory, of="increments")[0]) < 0.2


@pytest.mark.parametrize("constant", [1.0, 0.1, 1 / 3])
def test_with_a_constant_nothing_correlates(constant):
    """The mean of equal numbers need not equal them, but for that rounding."""
    moving = np.random.default_rng(1).normal(size=10).cumsum()
    straight = np.linspace(1, 0.1, 10)
    assert math.isnan(ac.correlation(recorded([moving], [np.full(10, constant)]))[0])
    assert math.isnan(ac.correlation(recorded([np.full(10, constant)], [np.full(10, constant)]))[0])
    assert math.isnan(ac.correlation(recorded([moving], [straight]), of="increments")[0])


def test_correlation_is_of_levels_or_of_increments():
    with pytest.raises(ValueError, match=r"`of` must be 'levels' .* or 'increments'"):
        ac.correlation(recorded([[1.0, 0.5]], [[1.0, 0.5]]), of="differences")


# -------------------------------------------------------------------------------------------- readings of several seeds


def test_over_several_seeds_alignment_is_a_ratio_of_sums_and_no_mean_of_ratios():
    trajectory = recorded([[4.0, 0.0], [1.0, 0.0]], [[8.0, 0.0], [1.0, 0.0]])
    (reading,) = readings(trajectory, 2)
    assert reading.alignment(normalized=False).value == pytest.approx(5 / 9)
    assert reading.capability("base", normalized=False).value == -2.5
    assert reading.capability("mesa", normalized=False).value == -4.5
    assert reading.capability("base", normalized=True).value == -1.0


def test_a_reading_belongs_to_the_runs_that_stand_together():
    trajectory = recorded([[k, 0.0] for k in (1.0, 2.0, 3.0, 4.0)], [[k, 0.0] for k in (1.0, 1.0, 2.0, 2.0)])
    first, second = readings(trajectory, 2)
    assert (first.base.tolist(), second.base.tolist()) == ([-1.0, -2.0], [-3.0, -4.0])
    assert second.alignment(normalized=False).value == 7 / 4


def test_a_reading_knows_where_its_runs_began_ended_and_how_high_they_went():
    trajectory = recorded([[2.0, 5.0, 7.0, 1.0]], [[4.0, 3.0, 2.0, 1.0]])
    (whole,), (part,) = readings(trajectory, 1), readings(trajectory, 1, within=1)
    assert (whole.first[0], whole.last[0], whole.highest[0]) == (2.0, 1.0, 7.0)
    assert (whole.mesa_first[0], whole.mesa_last[0]) == (4.0, 1.0)
    assert part.highest[0] == 5.0


def test_one_run_that_diverged_makes_the_whole_reading_diverge():
    trajectory = recorded([[1.0, 0.5], [1.0, math.nan]], [[1.0, 0.5], [1.0, 0.5]])
    (reading,) = readings(trajectory, 2)
    assert reading.diverged
    assert reading.outcome == "diverged at step 1"


def test_pooled_alignment_is_undefined_where_the_seeds_cancel():
    (reading,) = readings(recorded([[1.0, 0.5], [1.0, 0.5]], [[1.0, 0.5], [1.0, 1.5]]), 2)
    assert not reading.defined
    assert math.isnan(reading.alignment(normalized=False).value)


def test_leaving_a_seed_out_leaves_the_others():
    ratio = Ratio(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]))
    assert ratio.value == 1.5
    assert ratio.left_out[1] == 4 / 3
    assert math.isnan(Ratio(np.array([1.0]), np.array([0.0])).value)


# ------------------------------------------------------------------------------------------------------- decomposition


def reading_of(base, mesa):
    """Return the reading of one run whose C_B and C_M are these numbers."""
    return readings(recorded([[100.0, 100.0 + base]], [[100.0, 100.0 + mesa]]), 1)[0]


improvements = st.floats(-50.0, -0.5)


@settings(max_examples=80)
@given(improvements, improvements, improvements, improvements)
def test_the_decomposition_adds_up_and_names_the_cause(base_a, mesa_a, base_b, mesa_b):
    a, b = reading_of(base_a, mesa_a), reading_of(base_b, mesa_b)
    found = decomposition(a, b, normalized=False)
    assert found.refusal is None
    assert found.base == pytest.approx(math.log(base_a / base_b), abs=1e-9)
    assert found.mesa == pytest.approx(math.log(mesa_a / mesa_b), abs=1e-9)
    assert found.base == pytest.approx(found.alignment + found.mesa, abs=1e-12)
    agree = [term * found.base > 0 and abs(term) > 0.01 * abs(found.base) for term in (found.mesa, found.alignment)]
    causes = {(True, False): "capability-limited", (False, True): "less aligned", (True, True): "both"}
    assert found.cause == causes.get(tuple(agree), "")


@pytest.mark.parametrize(
    ("a", "b", "cause"),
    [
        ((-4.0, -4.0), (-2.0, -2.0), "capability-limited"),
        ((-4.0, -2.0), (-2.0, -2.0), "less aligned"),
        ((-8.0, -4.0), (-2.0, -2.0), "both"),
        ((-4.0, -8.0), (-2.0, -2.0), "capability-limited"),
        ((-4.0, -1.0), (-2.0, -2.0), "less aligned"),
        ((-2.0, -2.0), (-2.0, -2.0), ""),
        ((-4.0, -2.000001), (-2.0, -2.0), "less aligned"),
        ((-4.0, -4.000001), (-2.0, -2.0), "capability-limited"),
        ((-4.0, -3.999999), (-2.0, -2.0), "capability-limited"),
    ],
)
def test_causes_by_example(a, b, cause):
    assert decomposition(reading_of(*a), reading_of(*b), normalized=False).cause == cause
    assert decomposition(reading_of(*b), reading_of(*a), normalized=False).cause == cause


@pytest.mark.parametrize(
    ("a", "b", "signs"),
    [
        ((1.0, -1.0), (-1.0, -1.0), "C_B(a) positive, C_M(a) negative, C_B(b) negative, C_M(b) negative"),
        ((-1.0, -1.0), (-1.0, 1.0), "C_B(a) negative, C_M(a) negative, C_B(b) negative, C_M(b) positive"),
        ((0.0, -1.0), (-1.0, -1.0), "C_B(a) 0, C_M(a) negative"),
        ((1.0, 1.0), (1.0, 1.0), "C_B(a) positive, C_M(a) positive"),
        ((-1e-14, -1.0), (-1.0, -1.0), "not all capabilities are clear of 0"),
        ((math.nan, -1.0), (-1.0, -1.0), "C_B(a) undefined"),
    ],
)
def test_without_four_improvements_clear_of_zero_there_is_no_decomposition_but_the_signs(a, b, signs):
    found = decomposition(reading_of(*a), reading_of(*b), normalized=False)
    assert signs in found.refusal
    assert found.cause == ""
    assert all(math.isnan(term) for term in (found.base, found.alignment, found.mesa))


def test_the_decomposition_of_dimensionless_forms_is_of_dimensionless_forms():
    a = readings(recorded([[10.0, 1.0]], [[2.0, 1.0]]), 1)[0]
    b = readings(recorded([[20.0, 11.0]], [[2.0, 1.0]]), 1)[0]
    assert decomposition(a, b, normalized=False).base == 0
    assert decomposition(a, b, normalized=True).base == pytest.approx(math.log(0.9 / 0.45))


def test_perturbations_come_before_seeds():
    """`run` is perturbation-major, and so are the readings."""
    gain = Perturbation("init_gain", 1.0, 1.0, 0)
    trajectory = ac.run(bowl(steps=4), [IDENTITY, gain], seeds=[0, 1])
    plain, doubled = readings(trajectory, 2)
    assert doubled.base == pytest.approx(4 * plain.base, rel=EXACT)
    assert doubled.mesa == pytest.approx(2 * plain.mesa, rel=EXACT)
