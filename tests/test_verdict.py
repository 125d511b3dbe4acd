"""The verdict: its text and its JSON, and the violations that carry it."""

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest
from cases.judgement import FAIL, INCONCLUSIVE, PASS

import alignment_checks as ac
from alignment_checks import verdict as verdicts
from alignment_checks.findings import Finding, Point, sparkline
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.verdict import AlignmentViolation, Inconclusive, Verdict

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
        "  off by, up to 0.05   ███████████│×××××      │ more than is allowed, × no number",
        "  fails too at         label_noise(rate=0.04, seed=3)      off by 14.12 %",
        "  something to know",
        "  searched 100 perturbations, 131 runs of 500 steps in 1.9 s on cpu (lanes)",
        "  replay   pytest 'test_it.py::test_it' --alignment-replay=3fa9c1",
    ]


def test_a_worst_that_is_the_smallest_too_is_shown_once():
    assert "worst" not in str(replace(FAILED, worst=FAILED.minimal))


@pytest.mark.parametrize(
    ("fails", "holds", "digits"), [(0.03125, 0.031, (0.03125, 0.031)), (0.0393891, 0.0393862, (0.039389, 0.039386))]
)
def test_what_fails_and_what_holds_are_told_apart_by_their_digits(fails, holds, digits):
    text = str(replace(FAILED, minimal=finding(fails), holds_up_to=holds))
    assert f"smallest failing δ   label_noise(rate={digits[0]}, seed=7)" in text
    assert f"holds up to          label_noise(rate={digits[1]})" in text


def test_what_is_off_by_hardly_more_than_is_allowed_does_not_read_as_if_it_were_allowed():
    assert finding(reference=-1.0, value=-0.8999996, allowed=0.1).off_by == "off by 10.00004 %"
    assert finding(reference=0.0, value=0.100001, allowed=0.1).off_by == "off by 0.100001"
    assert finding(reference=-1.0, value=-0.9, allowed=0.2).off_by == "off by 10 %"


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


@pytest.mark.parametrize("status", [PASS, FAIL, INCONCLUSIVE])
def test_a_verdict_is_neither_true_nor_false_so_that_asserting_one_is_no_vacuous_pass(status):
    with pytest.raises(TypeError, match=r"status: assert verdict\.status == 'pass', str\(verdict\)"):
        assert replace(FAILED, status=status)


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


def test_what_fails_unperturbed_is_said_to_without_a_delta():
    text = str(replace(FAILED, minimal=finding(perturbation=IDENTITY), holds_up_to=None))
    assert text.splitlines()[2] == "  fails unperturbed"
    assert "smallest failing δ" not in text
    assert "identity" not in text
