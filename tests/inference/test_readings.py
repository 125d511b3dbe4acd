"""Readings of several seeds, and the decomposition of what two setups differ by."""

import math

import numpy as np
import pytest
from cases.measures import EXACT, bowl, recorded
from hypothesis import given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks.inference.readings import Ratio, readings
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties.comparison import decomposition

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
    assert reading.outcome == "diverged at step 1 (1 of 2 seeds)"


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
    trajectory = ac.run(bowl(steps=4), [IDENTITY, gain], seeds=[0, 1], backend="lanes")
    plain, doubled = readings(trajectory, 2)
    assert doubled.base == pytest.approx(4 * plain.base, rel=EXACT)
    assert doubled.mesa == pytest.approx(2 * plain.mesa, rel=EXACT)
