"""What "≈" means, and the verdict: its status, its text and its JSON.

x and x′ are ratios of sums over paired seeds; one seed is a number without uncertainty.
"""

import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks import verdict as verdicts
from alignment_checks.findings import Finding, Point, sparkline
from alignment_checks.judgement import Status, Tolerance, approximately, better, beyond, bounded, undecided
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.readings import Ratio
from alignment_checks.verdict import AlignmentViolation, Inconclusive, Verdict

PASS, FAIL, INCONCLUSIVE = Status.PASS, Status.FAIL, Status.INCONCLUSIVE
WORSE = {"capability": 1, "alignment": -1}
"""The sign of a change for the worse: capability is the more negative the better, alignment the higher."""


def number(*values):
    """Return a mean over as many seeds as there are values."""
    return Ratio(np.array(values, dtype=float), np.ones(len(values)))


def judged(x, y, rtol=0.1, atol=0.0, side="both", worse=1):
    x, y = (value if isinstance(value, Ratio) else number(value) for value in (x, y))
    return approximately(x, y, Tolerance(rtol, atol, side), worse=worse)


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


finite = st.floats(-100, 100)
tolerances = st.floats(0, 2)


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

ratios = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        *[st.lists(st.floats(-10, 10), min_size=n, max_size=n).map(np.array)] * 2,
        *[st.lists(st.floats(0.5, 4), min_size=n, max_size=n).map(np.array)] * 2,
    )
)


def paired(drawn):
    top_x, top_y, bottom_x, bottom_y = drawn
    return Ratio(top_x, bottom_x), Ratio(top_y, bottom_y)


@settings(max_examples=150)
@given(ratios, st.integers(-6, 6), st.floats(0.01, 1), st.sampled_from(["both", "worse"]), st.sampled_from([1, -1]))
def test_the_judgement_does_not_depend_on_the_unit(drawn, power, rtol, side, worse):
    """Both sides in another unit, atol with them: the same status. (Powers of 2, so that no bit is rounded.)"""
    x, y = paired(drawn)
    unit = 2.0**power
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


SPREAD = np.array([-1.0, -1.2, -0.9, -1.1, -1.05, -0.95])
"""x of six seeds: they scatter by 10 %."""


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


# -------------------------------------------------------------------------------------------- bounds, and being better


@pytest.mark.parametrize(
    ("value", "bound", "status"),
    [
        (1.0, 1.0, PASS),
        (1.1, 1.0, FAIL),
        (-1.0, -2.0, FAIL),
        (0.5, 0.0, FAIL),
        (0.0, 0.0, PASS),
        (0.5, -math.inf, FAIL),
        (math.nan, 1.0, FAIL),
        (1e9, math.inf, PASS),
    ],
)
def test_a_bound_is_kept_or_not_and_its_severity_is_a_number_that_orders(value, bound, status):
    judgement = bounded(value, bound)
    assert judgement.status is status
    assert (judgement.severity > 1) == (status is FAIL)


def test_the_further_beyond_a_bound_the_more_severe():
    assert bounded(3.0, 1.0).severity > bounded(2.0, 1.0).severity > 1


@pytest.mark.parametrize(("what", "x", "y"), [("capability", -1.0, -1.2), ("alignment", 1.0, 1.2)])
def test_better_is_ahead_by_more_than_the_margin(what, x, y):
    worse = WORSE[what]

    def status(x, y, rtol=0.0, atol=0.0):
        return better(number(x), number(y), Tolerance(rtol, atol), worse=worse).status

    assert status(x, y) is PASS
    assert status(y, x) is FAIL
    assert status(x, x) is FAIL
    assert (status(x, y, rtol=0.19), status(x, y, rtol=0.21)) == (PASS, FAIL)
    assert (status(x, y, atol=0.19), status(x, y, atol=0.21)) == (PASS, FAIL)


@settings(max_examples=100)
@given(ratios, st.sampled_from([1, -1]))
def test_no_two_are_better_than_each_other(drawn, worse):
    x, y = paired(drawn)
    there, back = (better(*pair, Tolerance(0.0), worse=worse).status for pair in ((x, y), (y, x)))
    assert {there, back} != {PASS}
    assert (there is PASS) <= (back is FAIL)


def test_better_over_seeds_needs_an_interval_clear_of_the_margin():
    x, y = number(*SPREAD), number(*1.05 * SPREAD)
    assert better(x, y, Tolerance(0.0), worse=1).status is PASS
    assert better(x, number(*1.05 * SPREAD[::-1]), Tolerance(0.0), worse=1).status is INCONCLUSIVE


# ----------------------------------------------------------------------------------------------------------- tolerances


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", None, True])
def test_a_tolerance_is_a_finite_number_from_zero(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a finite number, at least 0; got"):
        Tolerance(**{"rtol": 0.1, name: value})


def test_a_side_is_both_or_worse():
    with pytest.raises(ValueError, match="`side` must be 'both' or 'worse'"):
        Tolerance(0.1, side="better")


def test_a_tolerance_reads_as_it_was_given():
    assert str(Tolerance(0.1)) == "rtol=0.1"
    assert str(Tolerance(0.0, 0.5)) == "atol=0.5"
    assert str(Tolerance(0.1, 0.5, "worse")) == "rtol=0.1, atol=0.5, side='worse'"
    assert str(Tolerance(0.0)) == "rtol=0"


# ------------------------------------------------------------------------------------------------------- text and JSON


def finding(magnitude=0.03125, seed=7, **changes):
    delta = Perturbation("label_noise", magnitude, 0.05, seed)
    arguments = {
        "perturbation": delta,
        "base": delta,
        "mesa": delta,
        "reference": -0.6134,
        "value": -0.5469,
        "deviation": 0.0665,
        "allowed": 0.06134,
        "achieved": 11 / 362,
        "details": ("C_500(L) = -0.6134", "trained on L+δ, scored on L+δ"),
    }
    return Finding(**(arguments | changes))


FAILED = Verdict(
    status=FAIL,
    statement="capability is robust under label_noise(max_rate=0.05), rtol=0.1",
    denial="capability is not robust under label_noise(max_rate=0.05), rtol=0.1",
    minimal=finding(),
    worst=finding(0.05, seed=2, value=math.nan, deviation=math.inf),
    holds_up_to=0.031,
    runs=131,
    seconds=1.94,
    searched=100,
    steps=500,
    where="cpu (lanes)",
    notes=("something to know",),
    others=(finding(0.04, seed=3, value=-0.7, deviation=-0.0866),),
    curve=(Point(0.02, 0.05, 0.06, "pass"), Point(0.05, math.inf, 0.06, "fail")),
    replay="pytest 'test_it.py::test_it' --alignment-replay=3fa9c1",
)


def test_the_text_of_a_failure_is_the_one_of_the_design():
    assert str(FAILED).splitlines() == [
        "AlignmentViolation: capability is not robust under label_noise(max_rate=0.05), rtol=0.1",
        "",
        "  smallest failing δ   label_noise(rate=0.03125, seed=7)",
        "      C_500(L) = -0.6134",
        "      trained on L+δ, scored on L+δ",
        "  worst δ found        label_noise(rate=0.05, seed=2)      diverged",
        "  holds up to          label_noise(rate=0.031)",
        "  fails too at         label_noise(rate=0.04, seed=3)      off by 14.12 %",
        "  off by, up to 0.05   ███████████│×××××      │ more than is allowed",
        "  something to know",
        "  searched 100 perturbations, 131 runs of 500 steps in 1.9 s on cpu (lanes)",
        "  replay   pytest 'test_it.py::test_it' --alignment-replay=3fa9c1",
    ]


def test_a_worst_that_is_the_smallest_too_is_shown_once():
    assert "worst" not in str(replace(FAILED, worst=FAILED.minimal))


def test_what_holds_is_shown_on_the_side_that_fails():
    delta = Perturbation("init_gain", -0.5, 1.0, 0)
    one = replace(FAILED, minimal=finding(perturbation=delta), others=(), curve=(), holds_up_to=0.4)
    assert "holds up to          init_gain(log2=-0.4)" in str(one)


def test_the_text_of_a_pass_says_what_holds_and_of_an_open_question_what_was_asked():
    passed = replace(FAILED, status=PASS, minimal=None, worst=None, others=(), curve=(), replay=None)
    assert str(passed).startswith(f"{FAILED.statement}\n")
    assert "not robust" not in str(passed)
    asked = replace(passed, status=INCONCLUSIVE, notes=("α is undefined",))
    assert str(asked).startswith(f"inconclusive: whether {FAILED.statement}\n")
    assert "α is undefined" in str(asked)


@pytest.mark.parametrize(
    ("searched", "runs", "words"),
    [
        (0, 2, "trained 2 runs of 500 steps"),
        (1, 1, "searched 1 perturbation, 1 run of 500 steps"),
        (2, 2, "searched 2 perturbations, 2 runs of 500 steps"),
    ],
)
def test_the_cost_is_told_in_numbers_that_agree_with_their_nouns(searched, runs, words):
    assert f"  {words} in 1.9 s on cpu" in str(replace(FAILED, searched=searched, runs=runs))


def test_percentages_are_given_only_where_the_reference_is_clear_of_zero():
    assert finding(reference=-0.5, value=-0.4).off_by == "off by 20 %"
    assert finding(reference=0.0, value=0.25).off_by == "off by 0.25"
    assert finding(reference=1e-14, value=0.25).off_by == "off by 0.25"
    assert finding(reference=1.0, value=math.nan).off_by == "undefined"
    assert finding(deviation=math.inf).off_by == "diverged"


def test_a_verdict_is_plain_data_that_json_holds_without_extensions():
    data = FAILED.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["status"] == "fail"
    assert data["text"] == str(FAILED)
    assert data["worst"]["deviation"] == "inf"
    assert data["worst"]["value"] == "nan"
    assert data["curve"][1]["deviation"] == "inf"
    assert eval(data["minimal"]["repr"]) == FAILED.minimal.perturbation
    fields = set(Verdict.__dataclass_fields__)
    assert fields <= data.keys()


def test_the_json_of_a_composition_has_an_achieved_magnitude_for_each_part():
    data = replace(FAILED, minimal=finding(achieved=(0.1, 0.2))).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False))["minimal"]["achieved"] == [0.1, 0.2]


def test_a_verdict_is_frozen_and_its_status_compares_as_a_string():
    assert FAILED.status == "fail"
    with pytest.raises(FrozenInstanceError):
        FAILED.status = PASS


def test_a_sparkline_has_a_bar_for_each_step_of_the_magnitude_and_a_cross_where_there_is_no_number():
    line = [Point(m / 16, float(m), 1.0, "pass") for m in range(1, 17)]
    drawn = sparkline(line)
    assert len(drawn) == 16
    assert list(drawn) == sorted(drawn)
    assert (drawn[0], drawn[-1]) == ("▁", "█")
    flat = sparkline([Point(m, 0.0, 1.0, "pass") for m in (0.5, 1.0)])
    assert set(flat) == {"▁"}
    gone = sparkline(
        [replace(point, deviation=math.nan if point.magnitude > 0.5 else point.deviation) for point in line]
    )
    assert gone.endswith("×" * 8)
    assert "×" not in gone[:8]


def test_a_sparkline_marks_where_the_property_begins_to_fail_and_to_hold_again():
    statuses = ["pass"] * 4 + ["fail"] * 3 + ["pass"] * 5 + ["inconclusive"] + ["fail"] * 3
    drawn = sparkline([Point(m / 16, 1.0, 1.0, status) for m, status in enumerate(statuses, 1)])
    assert drawn == "████│███│██████│███"
    assert sparkline([Point(m, 1.0, 0.5, "fail") for m in (0.5, 1.0)], width=2) == "│██"


# ----------------------------------------------------------------------------------------------------------- violations


def test_a_violation_carries_its_verdict_and_says_what_it_says_once():
    error = ac.AlignmentViolation(FAILED)
    assert isinstance(error, AssertionError)
    assert error.verdict is FAILED
    assert str(error) == str(FAILED).removeprefix("AlignmentViolation: ")


def test_there_is_one_violation_for_each_property_and_each_is_a_class_of_its_own():
    """Hypothesis tells failures apart by their class."""
    kinds = {
        value for value in vars(verdicts).values() if isinstance(value, type) and issubclass(value, AlignmentViolation)
    }
    checks = [name for name in ac.__all__ if name.startswith("check_")]
    assert len(kinds - {AlignmentViolation, Inconclusive}) == len(checks) == 8
    assert all(kind.__bases__ == (AlignmentViolation,) for kind in kinds - {AlignmentViolation})


def test_the_identity_has_a_text_too():
    assert "smallest failing δ   identity" in str(
        replace(FAILED, minimal=finding(perturbation=IDENTITY), holds_up_to=None)
    )
