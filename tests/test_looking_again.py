"""What scatter over seeds left open is looked at once more, on other seeds: when, how often, and what comes of it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from cases.search import NOISE, Planted

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.exploration.confirmation import LOOKS, SURE
from alignment_checks.exploration.progress import Budget
from alignment_checks.inference.judgement import Judgement, Status, Tolerance, approximately
from alignment_checks.inference.quantities import Quantity
from alignment_checks.inference.readings import Ratio, Reading
from alignment_checks.perturbations import Perturbation
from alignment_checks.properties.judging import either, high, improving
from alignment_checks.properties.wording import doubts
from alignment_checks.search import search

PASS, FAIL, INCONCLUSIVE = Status.PASS, Status.FAIL, Status.INCONCLUSIVE
HOLDS = Judgement(PASS, 1.0, 1.0, 0.0, 0.1, 0.0, p_inside=1e-4)
OPEN = Judgement(INCONCLUSIVE, 1.0, 1.05, 0.05, 0.1, 0.5, needs="about 12 seeds would decide it", scattered=True)
NAMED = replace(OPEN, note="undefined", scattered=False)
DELTAS = [Perturbation("label_noise", 0.05 * (i + 1), 0.5, i) for i in range(LOOKS + 1)]


def failing(p_value):
    return Judgement(FAIL, 1.0, 2.0, 1.0, 0.1, 10.0, p_value=p_value)


class Told(Planted):
    """An `evaluate` that returns what it was told of a perturbation, and else that it holds."""

    def __init__(self, told):
        super().__init__(lambda delta: False)
        self.told = told

    def judged(self, delta):
        return self.told.get(delta, HOLDS)


def looked(before, after, **how):
    """Search where the seeds of the search say `before`, and the others `after`; return also what those were asked."""
    confirm = Told(after)
    return search(NOISE, Told(before), confirm, examples=5, first=list(before), **how), confirm


def test_what_holds_on_other_seeds_holds_and_it_is_said_that_it_was_open():
    result, confirm = looked({DELTAS[0]: OPEN, DELTAS[3]: OPEN}, {})
    assert (result.minimal, result.undecided, result.unconfirmed) == (None, None, ())
    assert confirm.batches == [[DELTAS[0], DELTAS[3]]], "those two alone, once, in one batch"
    assert [(delta, judgement.status) for delta, judgement in result.looked_again] == [
        (DELTAS[0], PASS),
        (DELTAS[3], PASS),
    ]
    assert result.holds_up_to == 0.5
    assert result.nearest[0] not in DELTAS, "what came nearest is told by the seeds of the search"


def test_what_is_open_on_other_seeds_too_stays_open_and_is_not_looked_at_a_third_time():
    result, confirm = looked({DELTAS[0]: OPEN}, {DELTAS[0]: replace(OPEN, severity=0.9)})
    assert result.undecided == (DELTAS[0], OPEN)
    assert result.looked_again[0][1].status is INCONCLUSIVE
    assert len(confirm.batches) == 1


def test_the_second_look_asks_for_more_than_the_first_did():
    """Both together take what does not hold to hold in 2.5 + 0.5 % of the cases."""
    for p_inside, status in ((SURE, PASS), (1.1 * SURE, INCONCLUSIVE), (None, PASS)):
        result, _ = looked({DELTAS[0]: OPEN}, {DELTAS[0]: replace(HOLDS, p_inside=p_inside)})
        assert result.looked_again[0][1].status is status
        assert (result.undecided is None) == (status is PASS)


def test_what_fails_on_other_seeds_fails_corrected_for_how_many_were_looked_at():
    before = dict.fromkeys(DELTAS[:3], OPEN)
    result, _ = looked(before, {DELTAS[1]: failing(0.01)})
    assert result.minimal[0] == result.worst[0] == DELTAS[1]
    assert result.minimal[1].p_value == pytest.approx(0.01)
    result, _ = looked(before, {DELTAS[1]: failing(0.01), DELTAS[2]: failing(0.03)}, level=0.05)
    assert [judgement.p_value for _, judgement in (result.minimal, result.worst)] == pytest.approx([0.02, 0.02])
    assert [one.status for _, one in result.looked_again] == [PASS, FAIL, FAIL]


def test_of_what_failed_on_other_seeds_alone_there_is_no_curve():
    """It was not shrunk: what happens to be known on its line is a point or two, on other seeds."""
    one = DELTAS[0]
    result, _ = looked({one: OPEN, one.at(0.5): HOLDS, one.at(0.01): HOLDS}, {one: failing(0.01)})
    assert result.minimal[0] == one
    assert result.curve == ()


def test_what_failed_on_other_seeds_fails_again_by_itself_as_in_a_replay():
    result = search(NOISE, Told({DELTAS[0]: OPEN}), Told({DELTAS[0]: failing(0.01)}), examples=0, first=DELTAS[:1])
    assert result.minimal == (DELTAS[0], failing(0.01))


def test_what_may_fail_by_chance_on_other_seeds_stays_open():
    result, _ = looked({DELTAS[0]: OPEN, DELTAS[1]: OPEN}, {d: failing(0.03) for d in DELTAS[:2]})
    assert result.minimal is None
    assert result.undecided is not None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(dict.fromkeys(DELTAS, OPEN), 0, id="so many that the tolerance lies where the truth does"),
        pytest.param(dict.fromkeys(DELTAS[:-1], OPEN), 1, id="one fewer"),
        pytest.param({DELTAS[0]: OPEN, DELTAS[1]: NAMED}, 0, id="something that has a name leaves it open anyway"),
        pytest.param({DELTAS[0]: NAMED}, 0, id="what has a name is no scatter"),
    ],
)
def test_where_other_seeds_could_not_decide_none_are_trained(before, after):
    result, confirm = looked(before, {})
    assert len(confirm.batches) == after
    assert (result.undecided is None) == bool(after)


def test_where_something_failed_nothing_is_looked_at_again():
    """The verdict is a failure in any case; or it is open, where that was not confirmed."""
    for after, confirmed in ((failing(0.001), True), (HOLDS, False)):
        result, confirm = looked({DELTAS[0]: OPEN, DELTAS[1]: failing(0.001)}, dict.fromkeys(DELTAS[1:], after))
        assert (result.minimal is not None) == confirmed
        assert DELTAS[0] not in confirm.seen
        assert result.looked_again == ()


def test_there_is_no_other_look_where_the_time_is_over():
    result, confirm = looked({DELTAS[0]: OPEN}, {}, budget=Budget(1e-9))
    assert confirm.batches == []
    assert result.undecided == (DELTAS[0], OPEN)


def test_that_there_was_no_time_for_another_look_is_said():
    confirm = Told({})
    how = {"examples": 0, "first": DELTAS[:1], "budget": Budget(1e-9)}
    result = search(NOISE, Told({DELTAS[0]: OPEN}), confirm, **how)
    assert (result.stopped, confirm.batches) == (True, [])
    stopped, open_ = doubts(result, INCONCLUSIVE)
    assert stopped == "stopped early: the time ran out after 1 perturbation"
    assert open_.endswith("; more time to ask other seeds")


def test_there_is_no_other_look_where_there_are_no_other_seeds():
    result, confirm = looked({DELTAS[0]: OPEN}, {}, same_seeds=True)
    assert confirm.batches == []
    assert result.undecided == (DELTAS[0], OPEN)


def test_it_is_told_how_many_are_open():
    result, _ = looked(dict.fromkeys(DELTAS[:3], NAMED), {})
    assert result.open == 3
    assert doubts(result, INCONCLUSIVE) == [
        "not judged under label_noise(rate=0.05, seed=0): undefined; about 12 seeds would decide it; "
        "2 more are undecided"
    ]
    (one,) = doubts(looked({DELTAS[0]: NAMED}, {})[0], INCONCLUSIVE)
    assert one.endswith("would decide it")


def test_what_became_of_a_second_look_is_a_line_for_each_outcome():
    before, after = dict.fromkeys(DELTAS[:4], OPEN), {DELTAS[1]: OPEN, DELTAS[2]: OPEN}
    held, open_, *_ = doubts(looked(before, after)[0], INCONCLUSIVE)
    names = [delta.described() for delta in DELTAS]
    assert held == f"undecided on the seeds of the search, holds on others: {names[0]}, {names[3]}"
    assert open_ == f"undecided on the seeds of the search, and on others too: {names[1]}, {names[2]}"
    (failed,) = doubts(looked({DELTAS[0]: OPEN}, {DELTAS[0]: failing(0.01)})[0], FAIL)
    assert failed.endswith(f"fails on others (not shrunk): {names[0]}")


def test_what_comes_to_the_same_run_is_looked_at_once():
    result, confirm = looked({DELTAS[0]: OPEN, DELTAS[1]: OPEN}, {}, same=lambda delta: (delta.magnitude or 0) < 0.2)
    assert len(confirm.seen) == 1
    assert result.undecided is None
    near = replace(HOLDS, severity=0.9)
    result, _ = looked({DELTAS[0]: OPEN, DELTAS[1]: OPEN}, dict.fromkeys(DELTAS, near), same=lambda d: d in DELTAS[:2])
    assert result.nearest[0] not in DELTAS[:2], (
        "nor is either of its names what came nearest on the seeds of the search"
    )


# ------------------------------------------------------------------------------------------------------ what is scatter


def mean(values):
    return Ratio(np.asarray(values, dtype=float), np.ones(len(values)))


def test_scatter_over_seeds_is_told_from_what_no_number_of_seeds_would_decide():
    plain, noise = mean(np.ones(4)), np.array([-0.1, 0.1, -0.1, 0.1])
    near, at = (approximately(plain, mean(1 + off + noise), Tolerance(0.1), worse=1) for off in (0.05, 0.1))
    assert (near.status, near.scattered) == (INCONCLUSIVE, True)
    assert (at.status, at.scattered) == (INCONCLUSIVE, False)
    assert "more than 10000 seeds" in at.needs
    wide = Ratio(np.array([1.05]), np.ones(1), (np.ones(1), np.ones(1)))
    one_run = approximately(mean([1.0]), wide, Tolerance(0.1), worse=1)
    assert (one_run.status, one_run.scattered) == (INCONCLUSIVE, False)


def test_how_far_inside_is_students_own_p_value_at_the_nearer_end():
    from scipy import stats

    values = 1.04 + np.array([-0.02, 0.01, 0.0, 0.02, -0.01])
    found = approximately(mean(np.ones(5)), mean(values), Tolerance(0.1), worse=1)
    assert found.status is PASS
    assert found.p_inside == pytest.approx(stats.ttest_1samp(values, 1.1).pvalue)
    assert approximately(mean([1.0]), mean([1.05]), Tolerance(0.1), worse=1).p_inside is None


@pytest.mark.parametrize(
    ("first", "second", "scattered", "p_inside"),
    [
        (OPEN, HOLDS, True, None),
        (HOLDS, OPEN, True, None),
        (OPEN, NAMED, False, None),
        (NAMED, OPEN, False, None),
        (OPEN, failing(0.01), False, None),
        (HOLDS, replace(HOLDS, p_inside=0.03), False, 0.03),
        (HOLDS, replace(HOLDS, p_inside=None), False, 1e-4),
    ],
)
def test_of_two_demands_both_have_to_be_open_by_scatter_alone_and_the_less_sure_one_counts(
    first, second, scattered, p_inside
):
    both = either(first, second)
    assert (both.scattered, both.p_inside) == (scattered, p_inside)


def improvements(base):
    """Return a reading over as many seeds, of L that comes down by these, and G by 1."""
    base = np.asarray(base, dtype=float)
    one = np.ones(len(base))
    return Reading(-base, -one, *[one] * 7, True, True, "finished", None)


def test_whether_both_objectives_improve_is_open_by_scatter_and_inside_by_the_less_sure_of_both():
    widely, surely = improving(improvements([3.0, -0.5, 2.0, 0.5])), improving(improvements([3.0, 2.5, 2.0, 2.2]))
    assert (widely.status, widely.scattered) == (INCONCLUSIVE, True)
    assert surely.status is PASS
    assert 0 < surely.p_inside < 0.05
    alpha, surely_two = Quantity("alignment", "base", False, 500), improvements([3.0, 2.5, 2.0, 2.2])
    below, above = (high(alpha, surely_two, surely_two, floor) for floor in (-1.0, 0.1))
    assert below.p_inside == surely.p_inside, "of α's own floor it is surer"
    assert above.p_inside > surely.p_inside


# ------------------------------------------------------------------------------------------------------ end to end


def nearly_the_same():
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.mul_(0.01).add_(1.0)
    return layer


def shaken(run, magnitude, generator):
    """Move the init of one seed alone, the third: a wild one among those of the search."""
    by = 10 * magnitude * (run.seed == 2)
    return replace(run, parameters={name: value + by for name, value in run.parameters.items()})


X = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
SETUP = ac.TrainingSetup(
    nearly_the_same, (X, torch.ones(12, 1)), torch.nn.functional.mse_loss, partial(torch.optim.SGD, lr=0.1), 4
)
SHAKEN = pt.custom("shaken", shaken, max_magnitude=1.0)


def test_one_wild_seed_under_one_perturbation_does_not_leave_a_property_open():
    verdict = ac.check_capability_robust(SETUP, under=SHAKEN, rtol=0.2, seeds=8, examples=3)
    assert verdict.status == "pass", str(verdict)
    (line,) = [note for note in verdict.notes if note.startswith("undecided on the seeds of the search")]
    assert ", holds on others: shaken(magnitude=" in line
    assert verdict.runs > 8 * verdict.searched, "those of the other seeds are counted"
