"""A search tells how far it has come, and ends when its time is over; the test turns the clock itself."""

import pytest

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.exploration.progress import Budget
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.search import search

NOISE = pt.label_noise(max_rate=0.5)


class Clocked:
    """An `evaluate` of which each batch takes a second, and fails from a magnitude on."""

    def __init__(self, bound):
        self.bound, self.now, self.batches = bound, 0.0, []

    def __call__(self, deltas):
        self.now += 1.0
        self.batches.append(tuple(deltas))
        return [self.judged(delta.magnitude or 0.0) for delta in deltas]

    def judged(self, magnitude):
        status = Status.FAIL if magnitude >= self.bound else Status.PASS
        return Judgement(status, 1.0, 1.0 + magnitude, magnitude, self.bound, magnitude / self.bound)


def searched(seconds, bound=0.123, **options):
    """Return what a search finds in so many seconds, and the `evaluate` that it asked; both trainings are one clock."""
    evaluate = Clocked(bound)
    budget = Budget(seconds, now=lambda: evaluate.now)
    return search(NOISE, evaluate, evaluate, examples=20, budget=budget, **options), evaluate


# ---------------------------------------------------------------------------------------------------------- the budget


@pytest.mark.parametrize("seconds", [0.001, 1, 1.5, 2, 3, 4, 5])
def test_the_time_is_honored_within_one_batch(seconds):
    _, evaluate = searched(seconds)
    assert evaluate.now <= seconds + 1


def test_a_budget_that_does_not_run_out_changes_nothing():
    with_, without = searched(1000.0), searched(None)
    assert with_[0] == without[0]
    assert with_[1].batches == without[1].batches
    assert not with_[0].stopped


@pytest.mark.parametrize("seconds", [2, 2.5, 3, 4])
def test_what_was_tried_by_then_is_what_would_have_been_tried_first(seconds):
    """All but the last batch, which trains afresh whatever is the smallest by then."""
    (stopped, part), (_, whole) = searched(seconds), searched(None)
    assert stopped.stopped
    assert part.batches[:-1] == whole.batches[: len(part.batches) - 1]


@pytest.mark.parametrize("seconds", [2, 3, 4])
def test_the_best_failure_so_far_is_trained_afresh_where_time_allows(seconds):
    result, evaluate = searched(seconds)
    assert result.stopped
    assert result.confirmed
    assert result.minimal[0] in evaluate.batches[-1]


def test_where_no_time_is_left_the_failure_is_reported_and_said_to_be_unconfirmed():
    result, evaluate = searched(0.5)
    assert result.minimal is not None
    assert (result.stopped, result.confirmed) == (True, False)
    assert len(evaluate.batches) == 1


def test_nothing_and_the_limits_are_always_tried():
    result, evaluate = searched(1e-9, bound=1.0)
    assert {0.0, 0.5} <= {delta.magnitude for delta in evaluate.batches[0]}
    assert result.minimal is None


# --------------------------------------------------------------------------------------------------------- what is told


def told(bound=0.123):
    heard = []
    result, evaluate = searched(None, bound, watch=heard.append)
    return heard, result, evaluate


def test_each_batch_is_told_before_it_trains_and_after_it():
    heard, _, evaluate = told()
    assert [one.in_flight for one in heard if one.in_flight] == evaluate.batches
    assert [one.rounds for one in heard if not one.in_flight] == list(range(1, len(evaluate.batches)))


def test_the_first_failure_is_told_at_once_and_the_smallest_as_it_shrinks():
    heard, result, _ = told()
    after = [one for one in heard if not one.in_flight]
    assert after[0].first == after[-1].first
    assert after[0].first[1].status is Status.FAIL
    smallest = [one.smallest[0].size for one in after]
    assert smallest == sorted(smallest, reverse=True)
    assert after[-1].smallest[0] == result.minimal[0]
    assert [one.confirming for one in heard] == [False] * (len(heard) - 1) + [True]


def test_the_counts_are_those_of_the_search():
    heard, result, _ = told(bound=1.0)
    assert heard[-1].judged == heard[-1].planned == result.judged
    assert (heard[-1].failures, heard[-1].smallest, heard[-1].first) == (0, None, None)


def test_an_interrupt_leaves_behind_what_was_told():
    heard = []

    def interrupted(progress):
        heard.append(progress)
        if progress.rounds == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(None, watch=interrupted)
    assert heard[-1].smallest[1].status is Status.FAIL


# ---------------------------------------------------------------------------------------------------------- in a check


def test_a_check_tells_the_runs_trained_and_says_that_it_stopped(blobs):
    heard = []
    verdict = ac.check_capability_robust(blobs, under=NOISE, rtol=1e-4, examples=10, max_time=1e-6, watch=heard.append)
    assert verdict.status == "fail"
    assert verdict.stopped_early
    assert "stopped early" in str(verdict)
    assert "what failed was not trained afresh" in str(verdict)
    assert verdict.to_dict()["stopped_early"] is True
    assert heard[-1].runs == verdict.runs > 0


def test_a_search_that_stopped_early_names_no_parts_that_do_nothing(blobs):
    """The corners of a composed domain, which are tried first, have parts at 0, and no round is left to drop them."""
    both = pt.compose(pt.init_gain(max_log2=1.0), pt.label_noise(max_rate=0.5))
    verdict = ac.check_capability_robust(blobs, under=both, rtol=1e-4, examples=10, max_time=1e-6)
    assert verdict.stopped_early
    found = [verdict.minimal, *verdict.others]
    assert len(found) > 2
    assert all(any(part.magnitude == 0 for part in one.perturbation.components) for one in found[:2])
    assert not any(idle in line for line in verdict.brief() for idle in ("log2=0,", "log2=0)", "rate=0,"))


def test_max_time_that_is_enough_is_not_mentioned(blobs):
    verdict = ac.check_capability_robust(blobs, under=NOISE, rtol=1e6, examples=10, max_time=3600)
    assert verdict.status == "pass"
    assert not verdict.stopped_early
    assert "stopped" not in str(verdict)


@pytest.mark.parametrize("wrong", [0, -1, "1", True, float("nan")])
def test_a_max_time_that_is_none_is_refused(blobs, wrong):
    with pytest.raises(ValueError, match="max_time"):
        ac.check_capability_robust(blobs, under=NOISE, rtol=0.1, max_time=wrong)
