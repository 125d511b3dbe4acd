"""What chance has a part in: a failure that no other seeds confirm is one picked among all that were searched."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import norm, t

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.asymptotics.intervals import LEVELS
from alignment_checks.asymptotics.stationarity import Mean
from alignment_checks.exploration.confirmation import Confirmation
from alignment_checks.exploration.knowledge import Knowledge
from alignment_checks.exploration.rounds import FRUGAL, WIDE
from alignment_checks.exploration.shrinking import ROUNDS
from alignment_checks.inference.chance import Chance
from alignment_checks.inference.evidence import least_level
from alignment_checks.inference.horizons import LimitReading
from alignment_checks.inference.judgement import Judgement, Status, Tolerance, approximately, at_least, better
from alignment_checks.limits import Estimate, Limits, Regime
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties.judging import bearable
from alignment_checks.search import search

PASS, FAIL, INCONCLUSIVE = Status.PASS, Status.FAIL, Status.INCONCLUSIVE
ERROR = 0.01
NOISE = pt.label_noise(max_rate=0.5)


def estimate(value, error=ERROR):
    """Return a limit that is a mean of random values, worth a thousand independent ones."""
    found = Mean(value, error, 1000.0).interval
    return Estimate(found.value, found.low, found.high, Regime.STATIONARY, "made up", found.stricter)


def reading(limit):
    """Return the reading of one run whose C_B has this limit."""
    one = np.ones(1)
    return LimitReading(-one, -one, *[one] * 7, True, True, "finished", None, limits=(Limits(limit, limit, limit),))


def capability(value, error=ERROR):
    return reading(estimate(value, error)).capability("base", normalized=False)


class OneRun:
    """An `evaluate` of limits that are each known from one random run, off by `effect` × δ's size.

    Under δ it is noisier: the unperturbed limit is known five times as well. Afresh, a run has the same bits: what was
    measured is remembered.
    """

    def __init__(self, case, effect=0.0):
        self.random, self.effect, self.known = np.random.default_rng(case), effect, {}
        self.plain = capability(-1 + ERROR / 5 * self.random.normal(), ERROR / 5)

    def __call__(self, deltas):
        return [self.known.setdefault(delta, self.judged(delta)) for delta in deltas]

    def judged(self, delta):
        if delta == IDENTITY:
            return approximately(self.plain, self.plain, Tolerance(0.0), worse=1)
        value = capability(-1 + self.effect * delta.size + ERROR * self.random.normal())
        return approximately(self.plain, value, Tolerance(0.0), worse=1)


def searched(case, effect=0.0, level=0.05):
    evaluate = OneRun(case, effect)
    found = search(NOISE, evaluate, evaluate, examples=30, random_seed=case, level=level, same_seeds=True)
    return found, evaluate


def test_of_many_limits_of_one_random_run_each_the_worst_is_allowed_for():
    """Nothing changes under any δ. Of 60 searches, 95 % intervals alone would have failed in many."""
    alarms, uncorrected = 0, 0
    for case in range(60):
        found, evaluate = searched(case)
        alarms += found.minimal is not None
        uncorrected += any(judgement.status is FAIL for judgement in evaluate.known.values())
    assert uncorrected >= 8
    assert alarms <= 1


def test_what_is_clear_of_all_that_were_searched_fails_with_its_p_value():
    found, evaluate = searched(0, effect=0.2)
    delta, judgement = found.minimal
    assert judgement.status is FAIL
    own = evaluate.known[delta].p_value
    among = judgement.p_value / own
    assert among == round(among) >= max(2 * found.planned, found.judged)
    assert own < judgement.p_value <= 0.05


def test_a_stricter_level_asks_for_more():
    """As where a suite has many tests: what fails at 0.05 need not at a thousandth of it, and is then open."""
    sizes = [searched(3, effect=0.2, level=level)[0].minimal[0].size for level in (0.05, 0.00005)]
    assert sizes[0] < sizes[1]


def failing(p_value):
    return Judgement(FAIL, 1.0, 2.0, 1.0, 0.1, 10.0, p_value=p_value)


@pytest.mark.parametrize(
    ("p_value", "among", "status"), [(0.001, 40, FAIL), (0.001, 60, INCONCLUSIVE), (None, 60, FAIL), (0.9, 60, None)]
)
def test_a_p_value_is_multiplied_by_how_many_it_was_picked_among(p_value, among, status):
    found = Chance(0.05, among).allowing(failing(p_value), among)
    assert found.status is (status or INCONCLUSIVE)
    assert found.p_value == (None if p_value is None else min(1.0, among * p_value))
    assert ("picked among 60, more steps would tell" in found.needs) == (found.status is INCONCLUSIVE)


def test_where_other_seeds_confirm_only_what_is_confirmed_counts():
    assert Chance(0.05).allowing(failing(0.04), 100) == failing(0.04)


def test_more_than_were_foreseen_count_too():
    """Foreseen are 2; 60 are judged: a p-value of 0.001 is then no longer below 0.05."""
    deltas = [Perturbation("label_noise", 0.005 * (i + 1), 0.5, 0) for i in range(60)]
    lucky, sure = deltas[7], deltas[50]

    def evaluate(asked):
        passed = Judgement(PASS, 1.0, 1.0, 0.0, 0.1, 0.0)
        return [failing(0.001) if delta == lucky else failing(1e-5) if delta == sure else passed for delta in asked]

    state = Knowledge(evaluate, chance=Chance(0.05, 2))
    state.judge(deltas)
    assert state.failing() == [lucky, sure]
    found = Confirmation(state).outcome(evaluate)
    assert found.minimal[0] == found.worst[0] == sure
    assert found.minimal[1].p_value == pytest.approx(60e-5)
    assert found.undecided[0] == lucky
    assert "picked among 60" in found.undecided[1].needs


def test_what_no_level_of_one_run_is_small_enough_for_is_not_said_to_need_more_steps():
    """The least level times 10,000 is 1.5e-5: a share of the level that is smaller is not reached by any one run."""
    found = Chance(1e-6, 10_000).allowing(failing(LEVELS[-1]), 10_000)
    assert found.status is INCONCLUSIVE
    assert "picked among 10000, and one run shows none smaller: several seeds, or fewer examples" in found.needs
    assert "more steps" not in found.needs


@pytest.mark.parametrize("plan", [FRUGAL, WIDE])
def test_the_levels_suffice_for_all_that_is_searched_and_for_thousands_of_tests(plan):
    most = 1.28 * 100 + 64 + 100 + plan.width * ROUNDS + plan.curve
    share = 0.05 / 2 / 3000
    assert Chance(share, round(most)).allowing(failing(LEVELS[-1]), round(most)).status is FAIL


def test_it_is_said_how_many_times_as_many_bring_a_p_value_to_the_level():
    """At 3 standard errors of 400 values, 3.5 are those of 400·(3.5/3)² = 544."""
    found = Chance(2 * float(norm.sf(3.5)), 1).allowing(failing(2 * float(norm.sf(3.0))), 1)
    assert found.needs.endswith("more steps would tell, about 1.4 times as many")


def undecided(severity, p_value=None):
    return Judgement(INCONCLUSIVE, 1.0, 1.0 + severity, severity, 1.0, severity, p_value=p_value)


@pytest.mark.parametrize(
    ("severities", "told"), [((0.2, 0.9, 0.4), 1), ((0.0, 1.3, 0.9), 1), ((0.0, 0.0, 0.0), 0), ((0.9, 0.9, 0.1), 0)]
)
def test_of_what_is_undecided_the_closest_to_failing_is_named(severities, told):
    """What has no number has no severity; of those as severe as each other it is the smallest."""
    deltas = [Perturbation("label_noise", 0.1 * (i + 1), 0.5, 0) for i in range(3)]
    judgements = dict(zip(deltas, map(undecided, severities), strict=True))
    state = Knowledge(lambda asked: [judgements[delta] for delta in asked])
    state.judge(reversed(deltas))
    assert Confirmation(state).outcome(state.evaluate).undecided[0] == deltas[told]


class Steep:
    """An `evaluate` of one random run each: from 0.3 on they fail, by a p-value of 0.05/`halvings` twos and falling."""

    def __init__(self, halvings):
        self.halvings, self.batches = halvings, 0

    def __call__(self, deltas):
        self.batches += 1
        return [self.judged(abs(delta.magnitude or 0.0) / 0.3) for delta in deltas]

    def judged(self, severity):
        if severity <= 1:
            return Judgement(PASS, 1.0, 1.0, severity, 1.0, severity)
        return Judgement(FAIL, 1.0, 2.0, severity, 1.0, severity, p_value=0.05 / 2 ** (self.halvings + 3 * severity))


@pytest.mark.parametrize("plan", [FRUGAL, WIDE])
@pytest.mark.parametrize("examples", [0, 3, 10])
def test_how_many_it_is_picked_among_is_fixed_beforehand_so_that_nothing_drops_out_afterwards(plan, examples):
    """Shrinking and the curve count too, though few or none are drawn: each failure is corrected once, for all."""
    failed = 0
    for halvings in range(12):
        evaluate, confirm = Steep(halvings), Steep(halvings)
        first = [] if examples else [Perturbation("label_noise", 1.0, 1.0, 0)]
        how = {"examples": examples, "first": first, "shrink": True, "plan": plan, "same_seeds": True}
        found = search(pt.label_noise(max_rate=1.0), evaluate, confirm, **how)
        assert found.unconfirmed == ()
        assert confirm.batches <= 1
        if found.minimal is not None:
            failed += 1
            delta, judgement = found.minimal
            among = judgement.p_value / evaluate.judged(delta.magnitude / 0.3).p_value
            assert among >= found.judged
            assert all(point.status is not FAIL or point.p_value <= 0.05 for _, point in found.curve)
    assert failed >= 3


def test_what_is_outside_again_when_trained_afresh_and_may_be_chance_is_said_to_be_that():
    """The same run twice, as `confirm` sees it, is no clearer of chance for it: nothing is said of training afresh."""
    delta = Perturbation("label_noise", 0.3, 0.5, 0)
    state = Knowledge(lambda asked: [failing(0.02) for _ in asked], chance=Chance(0.05, 2))
    state.judge([delta])
    found = Confirmation(state).outcome(lambda asked: [failing(0.03) for _ in asked])
    assert (found.minimal, found.unconfirmed) == (None, ())
    assert found.undecided[0] == delta
    assert "picked among 2, more steps would tell" in found.undecided[1].needs


# ------------------------------------------------------------------------------------ the p-value of one random run


def test_the_first_level_is_that_of_the_interval_and_each_is_half_the_one_before():
    one = estimate(1.0)
    assert one.stricter[0] == (one.low, one.high)
    assert LEVELS[0] == 0.05
    assert all(b == a / 2 for a, b in pairwise(LEVELS))
    assert all(b[0] < a[0] and a[1] < b[1] for a, b in pairwise(one.stricter))


@pytest.mark.parametrize("errors", [1.0, 2.0, 2.5, 3.5, 5.0])
def test_the_p_value_is_the_least_level_at_which_the_interval_is_clear(errors):
    """Against a number that is exact: Student's own p-value, rounded up to the next level."""
    judgement = at_least(capability(-1.0), -1.0 + errors * ERROR)
    exact = 2 * t.sf(errors, 30)
    if exact > 0.05:
        assert judgement.status is INCONCLUSIVE
    else:
        assert judgement.status is FAIL
        assert exact <= judgement.p_value < 2 * exact


def test_a_comparison_of_two_random_runs_has_a_p_value_too():
    ahead = better(capability(-1.0), capability(-0.9), Tolerance(0.0), worse=1)
    assert ahead.status is FAIL
    assert 0 < ahead.p_value < 0.01


def test_a_limit_that_is_no_mean_of_random_values_leaves_nothing_to_chance():
    exact = reading(Estimate(-1.0, -1.01, -0.99, Regime.FIXED, "made up")).capability("base", normalized=False)
    other = reading(Estimate(-0.5, -0.51, -0.49, Regime.FIXED, "made up")).capability("base", normalized=False)
    judgement = approximately(exact, other, Tolerance(0.1), worse=1)
    assert (judgement.status, judgement.p_value) == (FAIL, None)
    assert least_level([]) is None


def test_where_a_random_run_ends_has_a_p_value_and_what_its_transient_showed_has_none():
    """L(0) = 1, and C_∞ = 0.05: L ends at 1.05, clear of L(0) by 5 standard errors."""
    ends_above = bearable(reading(estimate(0.05)), worst=9.0, within=1, margin=Tolerance(0.0))
    assert ends_above.status is FAIL
    assert 0 < ends_above.p_value < 1e-4
    peak = bearable(reading(estimate(0.05)), worst=0.5, within=1, margin=Tolerance(0.0))
    assert (peak.status, peak.p_value) == (FAIL, None)
    assert "the highest L" in peak.note


def test_nothing_is_left_to_chance_in_a_capability_at_a_finite_horizon():
    bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=20)
    verdict = ac.check_capability_robust(bowl, under=pt.init_gain(max_log2=1), rtol=0.1, examples=5)
    assert (verdict.status, verdict.p_value) == ("fail", None)
