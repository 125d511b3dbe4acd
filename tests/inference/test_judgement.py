"""What "≈" means, of numbers and of paired seeds.

x and x′ are ratios of sums over paired seeds; one seed is a number without uncertainty.
"""

import math

import numpy as np
import pytest
from cases.judgement import FAIL, INCONCLUSIVE, PASS, SPREAD, WORSE, finite, judged, number, paired, ratios, tolerances
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignment_checks.inference.judgement import Tolerance, better, beyond, undecided
from alignment_checks.inference.readings import Ratio

# ------------------------------------------------------------------------------------------------------- "≈" of numbers


@pytest.mark.parametrize(
    ("x", "y", "rtol", "atol", "status"),
    [
        (-1.0, -0.91, 0.1, 0.0, PASS),
        (-1.0, -0.89, 0.1, 0.0, FAIL),
        (-1.0, -1.09, 0.1, 0.0, PASS),
        (-1.0, -1.11, 0.1, 0.0, FAIL),
        (2.0, 2.19, 0.1, 0.0, PASS),
        (2.0, 2.21, 0.1, 0.0, FAIL),
        (2.0, 2.29, 0.1, 0.1, PASS),
        (2.0, 2.31, 0.1, 0.1, FAIL),
        (0.0, 0.05, 0.1, 0.1, PASS),
        (0.0, 1e-9, 0.1, 0.0, FAIL),
        (0.0, 0.0, 0.0, 0.0, PASS),
        (1.0, -1.0, 0.5, 0.0, FAIL),
    ],
)
def test_close_is_within_atol_plus_rtol_times_the_reference(x, y, rtol, atol, status):
    judgement = judged(x, y, rtol, atol)
    assert judgement.status is status
    assert (judgement.reference, judgement.value, judgement.deviation) == (x, y, y - x)
    assert judgement.allowed == atol + rtol * abs(x)
    assert (judgement.severity > 1) == (status is FAIL)


@settings(max_examples=200)
@given(x=finite, y=finite, rtol=tolerances, atol=tolerances)
def test_two_sided_closeness_is_its_formula(x, y, rtol, atol):
    allowed = atol + rtol * abs(x)
    assume(abs(abs(y - x) - allowed) > 1e-9)
    assert judged(x, y, rtol, atol).status is (PASS if abs(y - x) <= allowed else FAIL)


@settings(max_examples=200)
@given(x=finite, y=finite, rtol=tolerances, atol=tolerances, worse=st.sampled_from([1, -1]))
def test_one_sided_closeness_counts_deterioration_only(x, y, rtol, atol, worse):
    """More positive is worse for capability, less positive is worse for alignment."""
    allowed = atol + rtol * abs(x)
    assume(abs(worse * (y - x) - allowed) > 1e-9)
    judgement = judged(x, y, rtol, atol, "worse", worse)
    assert judgement.status is (PASS if worse * (y - x) <= allowed else FAIL)


@pytest.mark.parametrize(
    ("what", "x", "better_value", "worse_value"), [("capability", -1.0, -2.0, -0.5), ("alignment", 1.0, 2.0, 0.5)]
)
def test_an_improvement_passes_one_sided_and_fails_two_sided(what, x, better_value, worse_value):
    worse = WORSE[what]
    assert judged(x, better_value, side="worse", worse=worse).status is PASS
    assert judged(x, better_value, side="both", worse=worse).status is FAIL
    assert judged(x, worse_value, side="worse", worse=worse).status is FAIL


@settings(max_examples=100)
@given(x=finite, part=st.floats(-0.99, 0.99), rtol=st.floats(0.01, 2), more=tolerances)
def test_a_larger_tolerance_never_turns_a_pass_into_a_failure(x, part, rtol, more):
    y = x + part * rtol * abs(x)
    assert judged(x, y, rtol).status is PASS
    assert judged(x, y, rtol + more).status is PASS
    assert judged(x, y, rtol, atol=more).status is PASS


def test_the_severity_is_the_deviation_that_counts_over_what_is_allowed():
    assert judged(-1.0, -0.7).severity == pytest.approx(3.0)
    assert judged(-1.0, -1.3).severity == pytest.approx(3.0)
    assert judged(-1.0, -1.3, side="worse").severity == pytest.approx(-3.0)
    assert judged(1.0, 2.0, rtol=0.0).severity == math.inf
    assert judged(1.0, 1.0, rtol=0.0).severity == 0.0


# -------------------------------------------------------------------------------------------------- "≈" of paired seeds


@settings(max_examples=150)
@given(ratios, st.integers(-6, 6), st.floats(0.01, 1), st.sampled_from(["both", "worse"]), st.sampled_from([1, -1]))
def test_the_judgement_does_not_depend_on_the_unit(drawn, power, rtol, side, worse):
    """Both sides in another unit, atol with them: the same status. (Powers of 2, so that no bit is rounded.)"""
    x, y = paired(drawn)
    unit = 2.0**power
    numbers = np.abs(np.concatenate([x.numerator, y.numerator]))
    assume(((numbers == 0) | (numbers > 1e-200)).all())  # of a subnormal number, powers of 2 round bits too
    scaled = [Ratio(unit * ratio.numerator, ratio.denominator) for ratio in (x, y)]
    here = judged(x, y, rtol, 0.25, side, worse)
    there = judged(*scaled, rtol, 0.25 * unit, side, worse)
    assert (there.status, there.severity) == (here.status, here.severity)
    assert there.deviation == unit * here.deviation


@settings(max_examples=150)
@given(ratios, st.floats(0.01, 1), st.sampled_from(["both", "worse"]), st.sampled_from([1, -1]))
def test_the_judgement_of_the_negated_quantity_is_the_same(drawn, rtol, side, worse):
    x, y = paired(drawn)
    negated = [Ratio(-ratio.numerator, ratio.denominator) for ratio in (x, y)]
    assert judged(*negated, rtol, 0.1, side, -worse).status is judged(x, y, rtol, 0.1, side, worse).status


@settings(max_examples=150)
@given(ratios, st.floats(0.01, 1), st.sampled_from([1, -1]))
def test_one_side_is_no_stricter_than_both(drawn, rtol, worse):
    x, y = paired(drawn)
    both, one = (judged(x, y, rtol, 0.1, side, worse).status for side in ("both", "worse"))
    strictness = [PASS, INCONCLUSIVE, FAIL]
    assert strictness.index(one) <= strictness.index(both)


@settings(max_examples=100)
@given(ratios, st.floats(0, 1), st.floats(0, 1), st.sampled_from([1, -1]))
def test_what_does_not_change_does_not_fail(drawn, rtol, atol, worse):
    x, _ = paired(drawn)
    assert judged(x, x, rtol, atol, worse=worse).status is not FAIL
    assert judged(x, x, 0.0, atol, worse=worse).status is PASS


def test_one_seed_has_no_uncertainty_and_is_never_inconclusive():
    statuses = {judged(1.0, y).status for y in np.linspace(0.8, 1.2, 101)}
    assert statuses == {PASS, FAIL}


@pytest.mark.parametrize(("rtol", "status"), [(0.1, PASS), (0.01, FAIL)])
def test_what_the_seeds_have_in_common_cancels(rtol, status):
    """Every seed gets 5 % worse: seeds are paired, so that their own scatter of 10 % does not hide it."""
    assert judged(number(*SPREAD), number(*0.95 * SPREAD), rtol).status is status
    shuffled = number(*0.95 * SPREAD[::-1])
    assert judged(number(*SPREAD), shuffled, rtol).status is INCONCLUSIVE


def test_an_interval_wholly_inside_passes_wholly_outside_fails_and_else_nothing_is_said():
    x = number(*[1.0] * 4)
    noise = np.array([-0.01, 0.01, -0.01, 0.01])
    assert judged(x, number(*1.05 + noise)).status is PASS
    assert judged(x, number(*1.15 + noise)).status is FAIL
    assert judged(x, number(*1.10 + noise)).status is INCONCLUSIVE
    assert judged(x, number(*1.15 + 10 * noise)).status is INCONCLUSIVE


def test_the_interval_is_students_of_the_paired_differences():
    """With x the same for every seed the linear form is a plain mean: its jackknife error is the standard error."""
    y = np.array([1.0, 1.3, 1.1, 1.2, 0.9])
    reach = 2.7764451051977987 * y.std(ddof=1) / math.sqrt(5)
    edge = y.mean() - 1.0 + reach
    x = number(*[1.0] * 5)
    assert judged(x, number(*y), rtol=edge + 1e-9).status is PASS
    assert judged(x, number(*y), rtol=edge - 1e-9).status is INCONCLUSIVE


def test_at_the_very_boundary_either_decision_is_rare():
    """A deviation of exactly what is allowed: a decided verdict is as likely wrong as right, 5 % in all at most."""
    random = np.random.default_rng(0)
    statuses = []
    for _ in range(400):
        x = random.normal(-1.0, 0.1, size=8)
        y = 0.9 * x + random.normal(0.0, 0.02, size=8)
        statuses.append(judged(number(*x), number(*y), rtol=0.1).status)
    decided = sum(status is not INCONCLUSIVE for status in statuses) / 400
    assert 0 < decided < 0.08


def test_alignment_over_seeds_is_judged_as_a_ratio_of_sums():
    """Seeds with a small C_M have a wild ratio of their own and hardly count in the pooled one."""
    x = Ratio(np.array([-1.0, -1.0, -0.001]), np.array([-2.0, -2.0, -0.002]))
    y = Ratio(np.array([-1.0, -1.0, -0.004]), np.array([-2.0, -2.0, -0.002]))
    judgement = judged(x, y, rtol=0.1, worse=-1)
    assert judgement.status is PASS
    assert judgement.value == pytest.approx(2.004 / 4.002)


# ---------------------------------------------------------------------------------------------- what is not a number


@settings(max_examples=60)
@given(finite, tolerances, tolerances, st.sampled_from(["both", "worse"]), st.sampled_from([1, -1]))
def test_nan_never_passes_and_never_fails(x, rtol, atol, side, worse):
    for pair in ((math.nan, x), (x, math.nan), (math.nan, math.nan)):
        judgement = judged(*pair, rtol, atol, side, worse)
        assert judgement.status is INCONCLUSIVE
        assert judgement.note == "undefined"
        tolerance = Tolerance(rtol, atol)
        assert better(number(pair[0]), number(pair[1]), tolerance, worse=worse).status is INCONCLUSIVE


def test_nan_in_one_seed_of_several_never_passes():
    assert judged(number(1.0, 1.0), number(1.0, math.nan)).status is INCONCLUSIVE


def test_a_denominator_that_vanishes_without_one_seed_never_passes():
    x = Ratio(np.array([1.0, 1.0]), np.array([1.0, 0.0]))
    assert judged(x, x, rtol=5.0).status is INCONCLUSIVE


def test_what_has_a_name_and_no_number_is_inconclusive():
    judgement = undecided(1.0, math.nan, "α is undefined")
    assert (judgement.status, judgement.note) == (INCONCLUSIVE, "α is undefined")
    assert math.isnan(judgement.deviation)


def test_a_perturbed_run_that_diverged_fails_and_is_the_worst_there_is():
    judgement = beyond(1.0, 0.1, "diverged at step 3")
    assert (judgement.status, judgement.deviation, judgement.severity) == (FAIL, math.inf, math.inf)
