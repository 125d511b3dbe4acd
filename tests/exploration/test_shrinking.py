"""What a search reports is the smallest failure: of one family, and of several composed."""

import math
import random
import statistics

import pytest
from cases.search import GAIN, MOST_LAUNCHES, NOISE, Graded, Planted, beyond, found, magnitude
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alignment_checks import perturbations as pt
from alignment_checks.exploration.rounds import FRUGAL, WIDE
from alignment_checks.perturbations import IDENTITY
from alignment_checks.search import drawn, search


def sizes(delta):
    """Return |magnitude| by family: 0 where a family is not there."""
    return {part.family: abs(part.magnitude) for part in delta.parts}


# ------------------------------------------------------------------------------------------------ the smallest failure


@settings(max_examples=10, deadline=None)
@given(bound=st.floats(1e-4, 0.499), resolution=st.sampled_from([0.1, 0.01, 0.001]), random_seed=st.integers(0, 10**6))
def test_the_smallest_failing_magnitude_is_found_within_the_resolution(bound, resolution, random_seed):
    result, evaluate = found(NOISE, beyond(bound), resolution=resolution, random_seed=random_seed)
    least = magnitude(result.minimal[0])
    assert bound <= least <= bound / (1 - resolution) * (1 + 1e-12)
    assert result.launches == len(evaluate.batches) <= MOST_LAUNCHES
    assert result.unconfirmed == ()


@settings(max_examples=10, deadline=None)
@given(bound=st.floats(0.01, 1.99), sign=st.sampled_from([-1, 1]))
def test_a_signed_family_is_shrunk_on_the_side_that_fails(bound, sign):
    result, evaluate = found(GAIN, lambda delta: sign * magnitude(delta) >= bound)
    least = magnitude(result.minimal[0])
    assert math.copysign(1, least) == sign
    assert bound <= abs(least) <= bound / 0.99 * (1 + 1e-12)
    assert len(evaluate.batches) <= MOST_LAUNCHES


@settings(max_examples=10, deadline=None)
@given(left=st.floats(0.01, 1.99), right=st.floats(0.01, 1.99))
@example(left=0.46875, right=0.5)
@example(left=0.1, right=1.9)
def test_of_two_sides_that_fail_the_smaller_is_the_minimal_one(left, right):
    for plan in (WIDE, FRUGAL):
        result, _ = found(GAIN, lambda delta: not -left < magnitude(delta) < right, plan=plan)
        bound = min(left, right)
        assert bound <= abs(magnitude(result.minimal[0])) <= bound / 0.99 * (1 + 1e-12)


@pytest.mark.parametrize("plan", [WIDE, FRUGAL], ids=["wide", "frugal"])
@pytest.mark.parametrize("random_seed", range(8))
def test_a_part_that_is_no_longer_needed_once_another_is_smaller_is_dropped(random_seed, plan):
    """Beside much noise it fails by a gain alone, beside little without one."""

    def fails(delta):
        size = sizes(delta)
        noise, gain = size.get("label_noise", 0.0), size.get("init_gain", 0.0)
        return noise >= 0.2 and (noise <= 0.22 or gain > 0.5 * (noise - 0.22))

    result, _ = found(pt.compose(NOISE, GAIN), fails, random_seed=random_seed, plan=plan)
    assert result.minimal[0].family == "label_noise"
    assert 0.2 <= magnitude(result.minimal[0]) <= 0.2 / 0.99 * (1 + 1e-12)


@pytest.mark.parametrize("plan", [WIDE, FRUGAL], ids=["wide", "frugal"])
@pytest.mark.parametrize("random_seed", range(8))
def test_so_is_one_that_is_there_or_not(random_seed, plan):
    """Beside much noise it fails at another seed of the init alone, beside little at any."""

    def fails(delta):
        size = sizes(delta)
        noise = size.get("label_noise", 0.0)
        return noise >= 0.2 and (noise <= 0.22 or size.get("init_seed", 0.0) > 0)

    result, _ = found(pt.compose(NOISE, GAIN, pt.init_seed()), fails, random_seed=random_seed, plan=plan)
    assert result.minimal[0].family == "label_noise"
    assert 0.2 <= magnitude(result.minimal[0]) <= 0.2 / 0.99 * (1 + 1e-12)


@pytest.mark.parametrize("random_seed", range(8))
def test_failing_sets_that_are_intervals_inside_a_passing_range_are_found(random_seed):
    """The failing set need not reach the limit, nor be what a bisection between 0 and the limit would come upon."""
    low = 0.01 + 0.05 * random_seed
    result, _ = found(NOISE, lambda delta: low <= magnitude(delta) <= low + 0.05, random_seed=random_seed, examples=100)
    least = magnitude(result.minimal[0])
    assert low <= least <= low / 0.99 * (1 + 1e-12)


def test_of_two_failing_intervals_the_lower_is_the_minimal_one():
    result, _ = found(NOISE, lambda delta: 0.05 <= magnitude(delta) <= 0.08 or magnitude(delta) >= 0.3)
    assert 0.05 <= magnitude(result.minimal[0]) <= 0.05 / 0.99
    assert magnitude(result.worst[0]) == 0.5


def test_seeds_that_fail_earlier_than_the_smallest_drawn_one_are_followed_too():
    """The seed of the smallest failing draw need not be the one that fails at the smallest magnitude."""
    draws = drawn(NOISE, 100, 0)
    at_limit = {delta.at(0.5).seed for delta in draws}
    bounds = {seed: 0.3 if seed % 2 else 0.1 for seed in at_limit}
    result, _ = found(NOISE, lambda delta: magnitude(delta) >= bounds.get(delta.seed, 1.0))
    assert 0.1 <= magnitude(result.minimal[0]) <= 0.1 / 0.99


def test_a_family_that_has_no_smaller_magnitude_is_reported_as_it_was_drawn():
    result, evaluate = found(pt.init_seed(), lambda delta: delta.family == "init_seed")
    assert result.minimal[0].magnitude == 1.0
    assert len(evaluate.batches) == 1


def test_where_everything_fails_the_identity_is_the_smallest():
    result, _ = found(NOISE, lambda delta: True)
    assert result.minimal[0] == IDENTITY
    assert result.holds_up_to is None


def test_the_worst_is_the_most_severe_one():
    fails = beyond(0.2)

    def severity(delta):
        """No float next to the limit rounds to the severity there."""
        return 0.0 if abs(magnitude(delta)) == 0.5 else abs(magnitude(delta)) - 0.6

    evaluate, confirm = Planted(fails, severity), Planted(fails, severity)
    result = search(NOISE, evaluate, confirm)
    assert magnitude(result.worst[0]) == 0.5
    assert result.worst[1].severity == 1.0


# -------------------------------------------------------------------------------------------------------- compositions


THREE = pt.compose(NOISE, GAIN, pt.init_jitter(max_sigma=1.0))


LIMITS = {"label_noise": 0.5, "init_gain": 2.0, "init_jitter": 1.0}


@settings(max_examples=10, deadline=None)
@given(bound=st.floats(0.02, 0.9), random_seed=st.integers(0, 10**6))
def test_a_composition_shrinks_to_its_one_guilty_component(bound, random_seed):
    def fails(delta):
        return sizes(delta).get("init_jitter", 0.0) >= bound

    result, evaluate = found(THREE, fails, random_seed=random_seed)
    least = result.minimal[0]
    assert least.family == "init_jitter"
    assert bound <= least.magnitude <= bound / 0.99 * (1 + 1e-12)
    assert len(evaluate.batches) <= MOST_LAUNCHES


@settings(max_examples=10, deadline=None)
@given(noise=st.floats(0.02, 0.3), gain=st.floats(0.1, 1.2), random_seed=st.integers(0, 10**6))
def test_where_two_components_are_needed_both_are_kept_at_their_joint_minimum(noise, gain, random_seed):
    def fails(delta):
        size = sizes(delta)
        return size.get("label_noise", 0.0) >= noise and size.get("init_gain", 0.0) >= gain

    result, _ = found(THREE, fails, random_seed=random_seed)
    least = sizes(result.minimal[0])
    assert set(least) == {"label_noise", "init_gain"}
    assert noise <= least["label_noise"] <= noise / 0.99 * (1 + 1e-12)
    assert gain <= least["init_gain"] <= gain / 0.99 * (1 + 1e-12)


def test_a_part_that_fails_alone_only_when_large_beats_two_that_fail_together_when_small():
    """Fewer components come first, so each part alone is tried at its limit too, not only as small as it was drawn."""

    def fails(delta):
        size = sizes(delta)
        together = size.get("label_noise", 0.0) > 0 and size.get("init_gain", 0.0) > 0
        return together or size.get("label_noise", 0.0) >= 0.49

    result, _ = found(pt.compose(NOISE, GAIN), fails)
    assert result.minimal[0].family == "label_noise"


@pytest.mark.parametrize("plan", [WIDE, FRUGAL], ids=["wide", "frugal"])
@pytest.mark.parametrize("families", [("label_noise",), ("label_noise", "init_jitter"), sorted(LIMITS)])
def test_as_many_families_as_it_takes_are_brought_to_the_boundary_in_fifteen_batches(plan, families):
    """It fails once each of the families is above its own bound; the median over seeds is what is promised."""
    launches = []
    for random_seed in range(11):
        chance = random.Random(random_seed)
        bounds = {family: LIMITS[family] * chance.uniform(0.05, 0.9) for family in families}

        def margin(delta, bounds=bounds):
            size = sizes(delta)
            return min(size.get(family, 0.0) / bound for family, bound in bounds.items())

        result = search(THREE, Graded(margin), Graded(margin), random_seed=random_seed, plan=plan)
        least = sizes(result.minimal[0])
        assert set(least) == set(families)
        assert all(bound <= least[family] <= bound / 0.99 * (1 + 1e-12) for family, bound in bounds.items())
        launches.append(result.launches)
    assert statistics.median(launches) <= MOST_LAUNCHES


def unchanged(run, magnitude, generator):
    return run


@pytest.mark.parametrize("plan", [WIDE, FRUGAL], ids=["wide", "frugal"])
@pytest.mark.parametrize("random_seed", range(3))
@pytest.mark.parametrize("filtered", [False, True], ids=["all", "filtered"])
@pytest.mark.parametrize(
    "abrupt", [pt.custom("signed", unchanged, 1.0), pt.precision(max_bits=13)], ids=["custom", "precision"]
)
def test_a_part_that_does_as_much_next_to_0_as_anywhere_is_never_said_to_be_0(abrupt, filtered, random_seed, plan):
    """What a user's function does, nobody else knows; a bit is given up at any magnitude."""

    def fails(delta):
        size = sizes(delta)
        return size.pop("init_gain", 0.0) >= 0.5 and any(size.values())

    strategy = pt.compose(abrupt, GAIN)
    strategy = strategy.filter(lambda delta: delta.parts[0].magnitude > 0) if filtered else strategy
    result, _ = found(strategy, fails, random_seed=random_seed, plan=plan)
    part, gain = result.minimal[0].parts
    assert 0 < part.magnitude < 1e-15
    assert "=0," not in str(result.minimal[0])
    assert "=0)" not in str(result.minimal[0])
    assert 0.5 <= abs(gain.magnitude) <= 0.5 / 0.99 * (1 + 1e-12)
    assert result.launches <= MOST_LAUNCHES


def test_seeds_that_were_not_drawn_are_tried_where_the_smallest_fails():
    """A seed in ten fails at a fifth of the others' magnitude; few searches draw one of them among their first ten."""

    def margin(delta):
        return abs(magnitude(delta)) / (0.04 if delta.seed % 10 == 7 else 0.2)

    found_low = 0
    for random_seed in range(20):
        result = search(NOISE, Graded(margin), Graded(margin), examples=5, random_seed=random_seed)
        found_low += magnitude(result.minimal[0]) < 0.05
    assert found_low >= 15


def test_seeds_that_make_no_difference_are_not_tried_on():
    """Whether randomness has a say in a user's own perturbation is found out from the runs, not declared."""
    evaluate = Graded(lambda delta: delta.size / 0.3)
    search(NOISE, evaluate, Graded(evaluate.severity), examples=5, plan=FRUGAL)
    shrunk = [delta for batch in evaluate.batches[1:] for delta in batch]
    assert len({delta.seed for delta in shrunk}) <= FRUGAL.width


@pytest.mark.parametrize("labels", [40, 400])
def test_of_magnitudes_that_come_to_few_runs_each_run_is_tried_once_and_two_rounds_tell(labels):
    """A rate flips whole labels: what lies between two of them is one run, and costs nothing to tell apart."""

    def flipped(delta):
        return (delta.seed, math.floor(labels * magnitude(delta)))

    def margin(delta):
        return flipped(delta)[1] / (0.101 * labels)

    evaluate = Graded(margin)
    result = search(NOISE, evaluate, Graded(margin), plan=FRUGAL, same=flipped)
    least = math.ceil(0.101 * labels) / labels
    assert least <= magnitude(result.minimal[0]) <= least / 0.99 * (1 + 1e-12)
    assert len(set(map(flipped, evaluate.seen))) == len(evaluate.seen)
    assert result.launches <= 4


def test_where_each_magnitude_is_a_run_of_its_own_hardly_more_are_looked_at_than_are_trained():
    """What a run is known by takes the data that it trains on."""
    looked, evaluate = [], Graded(lambda delta: abs(magnitude(delta)) / (0.1 + delta.seed % 10 / 50))
    search(NOISE, evaluate, Graded(evaluate.severity), plan=FRUGAL, same=lambda delta: looked.append(delta) or delta)
    assert len(looked) <= 2 * len(evaluate.seen)


def test_what_is_reported_is_trained_afresh_in_one_batch_with_the_curve():
    """The curve's end is known by then: what it shows is no worse than the worst that was trained afresh."""
    for random_seed in range(8):
        confirm = Graded(lambda delta: (delta.magnitude or 0.0) / (0.05 + delta.seed % 7 / 50))
        result = search(NOISE, Graded(confirm.severity), confirm, random_seed=random_seed, plan=FRUGAL, same_seeds=True)
        assert len(confirm.batches) == 1
        assert result.worst[1].severity == max(judgement.severity for _, judgement in (*result.curve, result.worst))


def test_on_a_cpu_nothing_and_the_ends_come_first_and_draws_once_those_hold():
    evaluate = Graded(lambda delta: 0.5 * abs(magnitude(delta)))
    search(GAIN, evaluate, evaluate, examples=70, plan=FRUGAL)
    first, second, *_ = evaluate.batches
    assert {magnitude(delta) for delta in first} == {0.0, -2.0, 2.0}
    assert len(second) == FRUGAL.width


@pytest.mark.parametrize("random_seed", [1, 5, 12])
def test_no_round_of_shrinking_is_wider_than_the_plan(random_seed):
    """One run more than are trained at once would cost as much as all of them; the limit at another seed counts."""
    bound = random.Random(random_seed).uniform(0.05, 0.9)
    evaluate = Graded(lambda delta: delta.size / bound * (1 + delta.seed % 10 / 20))
    search(NOISE, evaluate, Graded(evaluate.severity), random_seed=random_seed, plan=FRUGAL, same_seeds=True)
    assert max(map(len, evaluate.batches)) == FRUGAL.width


def test_where_seeds_differ_they_come_before_ladders_and_two_rounds_tell_the_smallest():
    """Sixteen seeds where the end leads one to expect the boundary, then the runs about that of the least of them."""
    launches = []

    def flipped(delta):
        return (delta.seed, math.floor(100 * magnitude(delta)))

    def margin(delta):
        return flipped(delta)[1] / (10.5 + (delta.seed + 25) % 50 / 5)

    for random_seed in range(20):
        evaluate, confirm = Graded(margin), Graded(margin)
        how = {"random_seed": random_seed, "plan": FRUGAL, "same": flipped, "same_seeds": True}
        least = search(NOISE, evaluate, confirm, **how).minimal[0]
        bound = math.ceil(10.5 + (least.seed + 25) % 50 / 5) / 100
        assert bound <= magnitude(least) <= bound / 0.99 * (1 + 1e-12)
        assert len({delta.seed for delta in evaluate.batches[1]}) == FRUGAL.seeds
        launches.append(len(evaluate.batches))
    assert statistics.median(launches) <= 3


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
def test_of_sixteen_seeds_the_one_that_fails_first_is_found_however_severity_grows(power):
    """Where the end of one seed leads one to look too low or too high, all that was judged there tells how it grows."""

    def bound(delta):
        return 0.05 * 1.7 ** ((delta.seed * 0.618 + 0.9) % 1)

    ratios = []
    for random_seed in range(10):
        evaluate = Graded(lambda delta: (magnitude(delta) / bound(delta)) ** power)
        least = search(NOISE, evaluate, Graded(evaluate.severity), random_seed=random_seed, plan=FRUGAL).minimal[0]
        ratios.append(magnitude(least) / min(bound(delta) for delta in evaluate.batches[1]))
    assert statistics.median(ratios) < 1.05
