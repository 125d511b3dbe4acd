"""What seeds tell: intervals, p-values that agree with them, Holm's correction, and how many seeds would decide."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alignment_checks.asymptotics.intervals import LEVELS
from alignment_checks.inference.chance import corrected, holm
from alignment_checks.inference.evidence import Evidence, decisive, jackknifed
from alignment_checks.inference.judgement import Judgement, Status, Tolerance, approximately, at_least, better
from alignment_checks.inference.readings import Ratio

PASS, FAIL, INCONCLUSIVE = Status.PASS, Status.FAIL, Status.INCONCLUSIVE


def mean(values, slack=None):
    values = np.asarray(values, dtype=float)
    both = None if slack is None else (np.full(len(values), slack), np.full(len(values), slack))
    return Ratio(values, np.ones(len(values)), both)


def test_of_a_plain_mean_interval_and_p_value_are_students():
    values = np.array([0.3, 0.1, 0.25, 0.4, 0.15])
    found = jackknifed(lambda one: one, (mean(values),), (0.0, 0.0))
    expected = stats.ttest_1samp(values, 0.0)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p_above == pytest.approx(expected.pvalue)


@settings(max_examples=100)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0.01, 0.5))
def test_a_failure_at_95_per_cent_has_a_p_value_below_5(values, rtol):
    judgement = approximately(mean(np.ones(len(values))), mean(1 + np.array(values)), Tolerance(rtol), worse=1)
    if judgement.status is FAIL:
        assert judgement.p_value <= 0.05 + 1e-12


def test_one_seed_leaves_nothing_to_chance():
    judgement = approximately(mean([1.0]), mean([2.0]), Tolerance(0.1), worse=1)
    assert (judgement.status, judgement.p_value) == (FAIL, None)
    assert better(mean([1.0]), mean([2.0]), Tolerance(0.0), worse=1).p_value is None


def test_what_would_decide_is_n_times_half_width_over_distance_squared():
    noise = np.array([-0.1, 0.1, -0.1, 0.1])
    judgement = approximately(mean(np.ones(4)), mean(1.05 + noise), Tolerance(0.1), worse=1)
    assert judgement.status is INCONCLUSIVE
    half = stats.t.ppf(0.975, 3) * noise.std(ddof=1) / 2
    wanted = int(re.search(r"about (\d+) seeds would decide it \(now 4\)", judgement.needs)[1])
    assert wanted == pytest.approx(4 * (half / 0.05) ** 2, rel=0.1)


def test_at_the_tolerance_itself_no_number_of_seeds_is_promised():
    assert "more than 10000 seeds" in decisive([Evidence(0.0, 0.0, 0.1, 4)])


def test_an_interval_of_the_value_itself_counts_as_well():
    sure, unsure = (approximately(mean([1.0]), mean([1.05], slack), Tolerance(0.1), worse=1) for slack in (0.04, 0.06))
    assert (sure.status, unsure.status) == (PASS, INCONCLUSIVE)
    assert "more steps" in unsure.needs
    assert approximately(mean([1.0]), mean([1.2], 0.04), Tolerance(0.1), worse=1).status is FAIL
    assert approximately(mean([1.0], 0.1), mean([1.2]), Tolerance(0.1), worse=1).status is INCONCLUSIVE


def test_of_one_run_it_says_how_much_narrower_the_interval_of_its_limit_would_have_to_be():
    """1.05 ± 0.1 against a tolerance of 0.1: its end has to come from 0.05 beyond to 0.05 within it, half as far."""
    unsure = approximately(mean([1.0]), mean([1.05], 0.1), Tolerance(0.1), worse=1)
    assert "more steps: the limit's interval would have to be 2 times narrower" in unsure.needs
    assert "as many" not in unsure.needs, "how fast an extrapolation settles is not known here"
    at_it = approximately(mean([1.0]), mean([1.1], 0.1), Tolerance(0.1), worse=1)
    assert "the tolerance is in the middle of the limit's interval" in at_it.needs


@pytest.mark.parametrize(("off", "times"), [(0.05, "4"), (0.2, "1.1"), (0.075, "16"), (0.08, "25"), (0.0955, "500")])
def test_of_a_random_run_it_says_how_many_times_as_many_steps(off, times):
    """The interval of a mean of random values goes as T^-½."""
    half = 0.1 if off < 0.2 else 0.1001
    slack = (np.array([half]), np.array([half]))
    random = Ratio(np.array([1.0 + off]), np.ones(1), slack, (slack,) * len(LEVELS))
    judgement = approximately(mean([1.0]), random, Tolerance(0.1), worse=1)
    assert judgement.status is INCONCLUSIVE
    assert f"about {times} times as many" in judgement.needs


def test_a_floor_is_judged_by_its_interval():
    values = np.array([0.9, 1.1, 0.95, 1.05])
    assert [at_least(mean(values), floor).status for floor in (0.5, 1.0, 1.5)] == [PASS, INCONCLUSIVE, FAIL]
    assert [at_least(mean([1.0]), floor).status for floor in (1.0, 1.01)] == [PASS, FAIL]
    assert at_least(mean([math.nan]), 1.0).status is INCONCLUSIVE


# --------------------------------------------------------------------------------------------------------- correction


def failing(p_value):
    return Judgement(FAIL, 1.0, 2.0, 1.0, 0.1, 10.0, p_value=p_value)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_orders_as_the_p_values_do_and_never_makes_them_smaller(p_values):
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert all(a <= min(1.0, len(p_values) * p) + 1e-12 for p, a in zip(p_values, adjusted, strict=True))
    for p, a in zip(p_values, adjusted, strict=True):
        assert all(a <= b for q, b in zip(p_values, adjusted, strict=True) if p < q)


def test_only_failures_by_chance_are_corrected_and_what_fails_no_more_is_inconclusive():
    certain, passed = failing(None), Judgement(PASS, 1.0, 1.0, 0.0, 0.1, 0.0)
    found = corrected([failing(0.001), certain, failing(0.03), passed], 0.05)
    assert [one.status for one in found] == [FAIL, FAIL, FAIL, PASS]
    assert [one.p_value for one in found] == [0.002, None, 0.03, None]
    found = corrected([failing(0.03), failing(0.04)], 0.05)
    assert [one.status for one in found] == [INCONCLUSIVE, INCONCLUSIVE]
    assert "more seeds would tell" in found[0].needs


def test_what_is_too_unlikely_to_be_told_from_0_is_no_chance():
    """A p-value of 0 is what seeds that agree to the last bit come to: no number of them is told, nor needed."""
    found = corrected([failing(0.0), failing(0.0), failing(0.04)], 0.05, share=0.5)
    assert [one.status for one in found] == [FAIL, FAIL, INCONCLUSIVE]
    assert [one.p_value for one in found] == [0.0, 0.0, 0.08]


def test_a_share_of_the_level_is_a_stricter_level():
    assert corrected([failing(0.03)], 0.05)[0].status is FAIL
    assert corrected([failing(0.03)], 0.05, share=0.5)[0].status is INCONCLUSIVE
