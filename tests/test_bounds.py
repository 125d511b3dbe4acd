"""A bound is kept or not, and one is better than another or not, by how much is asked for."""

import math

import pytest
from cases.judgement import FAIL, INCONCLUSIVE, PASS, SPREAD, WORSE, number, paired, ratios
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment_checks.inference.judgement import Tolerance, better, bounded

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
