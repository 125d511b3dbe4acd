"""Definitions 1 and 2 at finite T: against closed forms, what is refused, and what is undefined and not a number.

Where the law is about numbers alone the trajectories are made up here; else they are trained.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from cases.measures import EXACT, bowl, recorded
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.inference.readings import readings
from alignment_checks.perturbations import IDENTITY
from alignment_checks.search import drawn

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


def test_the_infimum_of_a_divergence_stays_one_where_that_is_a_difference_of_much_larger_numbers():
    """KL(p ‖ q) is 0 at q = p: of entropies near 2 that are subtracted in float32, 10⁻⁸ may be left, to either side."""
    generator = torch.Generator().manual_seed(0)
    x, teacher = torch.randn(64, 8, generator=generator), torch.randn(10, 8, generator=generator)
    nearly = teacher + 0.03 * torch.randn(10, 8, generator=generator)

    def model():
        student = torch.nn.Linear(8, 10, bias=False)
        student.weight.data.copy_(nearly)
        return student

    setup = ac.TrainingSetup(
        model,
        (x, (x @ teacher.T).softmax(-1)),
        lambda outputs, targets: torch.nn.functional.kl_div(outputs.log_softmax(-1), targets, reduction="batchmean"),
        partial(torch.optim.SGD, lr=1.0),
        steps=600,
    )
    trajectory = ac.run(setup)
    assert trajectory.base.min() < 0
    assert ac.capability(trajectory, normalized=True) == pytest.approx(-0.97, abs=0.03)


def test_what_l_was_seen_below_is_no_infimum_whoever_states_it():
    below, at = recorded([[1.0, 0.5, -0.1]], [[1.0, 1.0, 1.0]]), recorded([[1.0, 0.5, -1e-17]], [[1.0, 1.0, 1.0]])
    with pytest.raises(ValueError, match=r"L\* = 0 is stated, but L reached -0\.1 under identity\. Correct"):
        ac.capability(below, normalized=True)
    assert ac.capability(at, normalized=True) == pytest.approx(-0.75)
    assert ac.capability(below) == pytest.approx(-0.8)


def test_a_limit_is_not_held_above_what_l_was_seen_below():
    """½x² − ½y² + ¼y⁴ has its minima at −¼, and goes there past the 0 that a setup states unless told otherwise."""
    saddle = ac.landscape(
        lambda p: 0.5 * (p[0] ** 2 - p[1] ** 2) + 0.25 * p[1] ** 4,
        [1.0, 0.3],
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=200,
    )
    (limit,) = ac.capability_limit(trajectory := ac.run(saddle))
    assert limit.low <= -0.25 - trajectory.base[0, 0] <= limit.high
    verdict = ac.check_capability_robust(
        saddle, under=pt.init_gain(max_log2=0.01), rtol=0.5, normalized=True, examples=3
    )
    assert verdict.status == "inconclusive"
    assert "L reached -0.25" in str(verdict)


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


MEASURES = (ac.capability, ac.improvement, ac.alignment_factor, ac.correlation)


@pytest.mark.parametrize("measure", [*MEASURES, ac.capability_limit, ac.alignment_factor_limit])
def test_what_is_no_trajectory_is_refused(measure):
    """A setup is the likeliest."""
    with pytest.raises(TypeError, match=r"expected a Trajectory; got TrainingSetup .*Train one: ac\.run\(setup\)"):
        measure(bowl(1.0))
