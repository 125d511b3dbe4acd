"""`search` with judgements that cost nothing: what it finds, in how few batches, and that its plan is its own.

Each test plants a set of failing magnitudes and knows therefore the smallest of them. No training takes place.
"""

import math
import random
import statistics
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment_checks import perturbations as pt
from alignment_checks.judgement import Judgement, Status
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.rounds import FRUGAL, WIDE
from alignment_checks.search import drawn, search

NOISE = pt.label_noise(max_rate=0.5)
GAIN = pt.init_gain(max_log2=2.0)
MOST_LAUNCHES = 15


class Planted:
    """An `evaluate` that fails where it was told to, and keeps what it was asked."""

    def __init__(self, fails, severity=lambda delta: delta.size, side=lambda delta: 1.0):
        self.fails, self.severity, self.side = fails, severity, side
        self.batches = []

    def __call__(self, deltas):
        self.batches.append(list(deltas))
        return [self.judged(delta) for delta in deltas]

    def judged(self, delta):
        if not self.fails(delta):
            return Judgement(Status.PASS, 1.0, 1.0, 0.0, 0.5, 0.0)
        return Judgement(Status.FAIL, 1.0, 2.0, self.side(delta), 0.5, 1.0 + self.severity(delta))

    @property
    def seen(self):
        return [delta for batch in self.batches for delta in batch]


def magnitude(delta):
    return delta.magnitude or 0.0


def beyond(bound):
    return lambda delta: abs(magnitude(delta)) >= bound


def found(strategy, fails, **options):
    """Return what a search finds, and the `evaluate` that it asked; of 40 draws unless told otherwise."""
    evaluate = Planted(fails)
    return search(strategy, evaluate, Planted(fails), **{"examples": 40, **options}), evaluate


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
def test_of_two_sides_that_fail_the_smaller_is_the_minimal_one(left, right):
    result, _ = found(GAIN, lambda delta: not -left < magnitude(delta) < right)
    bound = min(left, right)
    assert bound <= abs(magnitude(result.minimal[0])) <= bound / 0.99 * (1 + 1e-12)


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


class Graded(Planted):
    """An `evaluate` of which severity is a margin: it fails from 1 on, and says how near to it what passes comes."""

    def __init__(self, margin):
        super().__init__(lambda delta: margin(delta) >= 1, margin)

    def judged(self, delta):
        severity = 0.0 if delta == IDENTITY else self.severity(delta)
        status = Status.FAIL if self.fails(delta) and delta != IDENTITY else Status.PASS
        return Judgement(status, 1.0, 1.0 + severity, severity, 1.0, severity)


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


def test_what_is_reported_is_trained_afresh_in_one_batch_with_the_curve():
    """The curve's end is known by then: what it shows is no worse than the worst that was trained afresh."""
    for random_seed in range(8):
        confirm = Graded(lambda delta: (delta.magnitude or 0.0) / (0.05 + delta.seed % 7 / 50))
        result = search(NOISE, Graded(confirm.severity), confirm, random_seed=random_seed, plan=FRUGAL, same_seeds=True)
        assert len(confirm.batches) == 1
        assert result.worst[1].severity == max(judgement.severity for _, judgement in (*result.curve, result.worst))


# ---------------------------------------------------------------------------------------- what is judged, and how often


@settings(max_examples=10, deadline=None)
@given(bound=st.floats(0.001, 0.6), random_seed=st.integers(0, 10**6))
def test_nothing_is_judged_twice_and_everything_is_counted(bound, random_seed):
    strategy = st.one_of(NOISE, GAIN, pt.compose(NOISE, GAIN))
    result, evaluate = found(strategy, lambda delta: delta.size >= bound, random_seed=random_seed)
    assert len(evaluate.seen) == len(set(evaluate.seen)) == result.judged
    assert len(evaluate.batches) == result.launches


@pytest.mark.parametrize(("strategy", "ends"), [(NOISE, {0.5}), (GAIN, {-2.0, 2.0})])
def test_the_first_batch_holds_nothing_at_all_and_the_ends_of_the_domain(strategy, ends):
    _, evaluate = found(strategy, lambda delta: False)
    assert IDENTITY in evaluate.batches[0]
    assert ends <= {magnitude(delta) for delta in evaluate.batches[0]}


def test_where_nothing_fails_one_batch_is_all():
    result, evaluate = found(NOISE, lambda delta: False)
    assert (result.minimal, result.worst, result.undecided, result.unconfirmed) == (None, None, None, ())
    assert len(evaluate.batches) == result.launches == 1
    assert result.holds_up_to == 0.5


def test_as_many_are_drawn_as_were_asked_for():
    for examples in (1, 7, 60):
        assert len(drawn(NOISE, examples, 0)) == examples


def test_first_is_tried_in_the_first_batch_and_shrunk():
    """A stored failure that no draw would come upon is found again, and its own line is followed."""
    stored = Perturbation("label_noise", 0.123, 0.5, seed=77777)
    result, evaluate = found(
        NOISE, lambda delta: delta.seed == 77777 and magnitude(delta) >= 0.06, first=[stored], examples=5
    )
    assert evaluate.batches[0][0] == stored
    assert result.minimal[0].seed == 77777
    assert 0.06 <= magnitude(result.minimal[0]) <= 0.06 / 0.99


def test_first_gets_back_what_it_lost_on_its_way_through_a_file():
    pool = pt.redraw(0.5, pool=(torch.zeros(4, 2), torch.zeros(4)))
    stored = eval(repr(drawn(pool, 3, 0)[0]))
    assert stored.payload is None
    _, evaluate = found(pool, lambda delta: False, first=[stored], examples=3)
    assert evaluate.batches[0][0].payload is not None


def test_no_examples_judges_first_alone_and_as_it_is():
    stored = Perturbation("label_noise", 0.4, 0.5, seed=3)
    result, evaluate = found(NOISE, beyond(0.1), first=[stored], examples=0)
    assert evaluate.batches == [[stored]]
    assert result.minimal[0] == result.worst[0] == stored


def test_no_examples_and_no_first_is_refused_and_not_a_vacuous_pass():
    with pytest.raises(ValueError, match="nothing to judge"):
        found(NOISE, beyond(0.1), examples=0)


# ----------------------------------------------------------------------------------------------------- how far it holds


@settings(max_examples=10, deadline=None)
@given(bound=st.floats(0.01, 0.49))
def test_what_holds_lies_between_the_resolution_and_the_smallest_failure(bound):
    result, _ = found(NOISE, beyond(bound))
    assert bound * 0.98 <= result.holds_up_to < bound


def test_what_could_not_be_judged_does_not_count_as_holding():
    class Straddling(Planted):
        def judged(self, delta):
            if 0.1 <= magnitude(delta) < 0.2:
                return Judgement(Status.INCONCLUSIVE, 1.0, 1.1, 0.1, 0.1, 1.0)
            return super().judged(delta)

    result = search(NOISE, Straddling(beyond(0.3)), Straddling(beyond(0.3)))
    assert magnitude(result.minimal[0]) >= 0.3
    assert result.holds_up_to < 0.1
    assert search(NOISE, Straddling(lambda delta: False), Planted(lambda delta: False)).holds_up_to < 0.1


def test_what_could_not_be_judged_is_told_where_nothing_failed():
    evaluate = Planted(lambda delta: False)
    unknown = Judgement(Status.INCONCLUSIVE, math.nan, math.nan, math.nan, math.nan, 0.0, "undefined")
    evaluate.judged = lambda delta: unknown
    result = search(NOISE, evaluate, evaluate)
    assert result.minimal is None
    assert result.undecided[1] is unknown


def test_two_families_have_no_common_magnitude_to_hold_up_to():
    result, _ = found(st.one_of(NOISE, GAIN), lambda delta: False)
    assert result.holds_up_to is None


# -------------------------------------------------------------------------------------------------------- confirmation


def test_what_does_not_fail_again_is_told_and_not_reported():
    fails, real = beyond(0.2), beyond(0.3)
    confirm = Planted(real)
    result = search(NOISE, Planted(fails), confirm, examples=30)
    assert result.minimal is not None
    assert all(real(delta) for delta, _ in (result.minimal, result.worst, *result.others))
    assert result.unconfirmed
    assert not any(real(delta) for delta, _ in result.unconfirmed)


def test_where_nothing_fails_again_nothing_is_found():
    result = search(NOISE, Planted(beyond(0.4)), Planted(lambda delta: False), examples=10)
    assert (result.minimal, result.worst, result.others) == (None, None, ())
    assert result.unconfirmed


def test_what_is_reported_carries_the_judgement_of_the_second_training():
    confirm = Planted(beyond(0.2), severity=lambda delta: 41.0)
    result = search(NOISE, Planted(beyond(0.2)), confirm)
    assert {result.minimal[1].severity, result.worst[1].severity} == {42.0}
    assert result.minimal[0] in confirm.seen
    assert len(confirm.seen) == len(set(confirm.seen))


# ---------------------------------------------------------------------------------------------- the plan is its own


def test_the_plan_depends_on_examples_and_seed_alone():
    def plan(**options):
        return found(pt.compose(NOISE, GAIN), lambda delta: delta.size > 0.3, **options)[1].batches

    random.seed(1)
    before = plan(examples=40, random_seed=5)
    random.seed(2)
    assert plan(examples=40, random_seed=5) == before
    assert plan(examples=40, random_seed=6) != before
    assert plan(examples=41, random_seed=5) != before


def test_the_draws_do_not_depend_on_which_other_modules_are_imported(tmp_path):
    """Hypothesis itself draws also constants that it finds in whatever modules of the project are imported."""
    (tmp_path / "full_of_constants.py").write_text(f"NUMBERS = {[n / 1009 for n in range(500)]}\n")
    code = "\n".join(
        [
            "import sys; sys.path.insert(0, sys.argv[1])",
            "import full_of_constants",
            "from alignment_checks import perturbations as pt",
            "from alignment_checks.search import drawn",
            "print(drawn(pt.label_noise(max_rate=0.5), 60, 3))",
        ]
    )
    beside = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert beside.stdout == f"{drawn(NOISE, 60, 3)}\n"


def test_the_random_state_of_the_user_is_left_alone():
    random.seed(12)
    np.random.seed(12)
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()
    found(NOISE, beyond(0.1))
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy


@settings(max_examples=3, deadline=None)
@given(bound=st.floats(0.1, 0.4))
def test_it_works_inside_a_test_that_uses_given_under_its_default_health_checks(bound):
    assert found(NOISE, beyond(bound), examples=10)[0].minimal is not None
    assert not [thread for thread in threading.enumerate() if thread.name == "alignment-checks draws"]


# ---------------------------------------------------------------------------------------------- strategies of all sorts


def test_strategies_may_be_joined_and_filtered():
    strategy = st.one_of(NOISE.filter(lambda delta: delta.magnitude < 0.3), GAIN)
    draws = drawn(strategy, 100, 0)
    assert {delta.family for delta in draws} == {"label_noise", "init_gain"}
    assert all(delta.magnitude < 0.3 for delta in draws if delta.family == "label_noise")


@settings(max_examples=4, deadline=None)
@given(low=st.floats(0.02, 0.2), high=st.floats(0.25, 0.45), random_seed=st.integers(0, 10**6))
def test_what_a_filter_or_a_map_leaves_out_is_never_judged(low, high, random_seed):
    """Neither at the ends of the family's own domain, nor while it shrinks, nor for the curve."""
    for strategy in (
        NOISE.filter(lambda delta: low <= delta.magnitude <= high),
        NOISE.map(lambda delta: delta.at(min(high, low + (high - low) * delta.magnitude / 0.5))),
        pt.compose(NOISE.filter(lambda delta: low <= delta.magnitude <= high), GAIN),
    ):
        result, evaluate = found(strategy, lambda delta: delta.size > 0, random_seed=random_seed)
        parts = [part for delta in evaluate.seen for part in delta.parts if part.family == "label_noise"]
        assert all(low <= part.magnitude <= high for part in parts)
        assert result.minimal is not None


def test_of_a_filtered_composition_no_part_is_dropped_that_was_always_drawn():
    both = pt.compose(NOISE, GAIN).filter(lambda delta: all(abs(part.magnitude or 0.0) > 0.1 for part in delta.parts))
    result, evaluate = found(both, lambda delta: delta.size > 0.2)
    assert result.minimal is not None
    parts = {tuple(part.family for part in delta.parts) for delta in evaluate.seen}
    assert parts == {("label_noise", "init_gain"), ("identity",)}
    assert all(
        abs(part.magnitude) > 0.1 for delta in evaluate.seen for part in delta.parts if part.family != "identity"
    )


def test_of_a_filtered_union_a_part_is_dropped_where_what_is_left_was_drawn():
    some = st.one_of(GAIN, pt.compose(NOISE, GAIN)).filter(lambda delta: delta.size > 0.1)
    result, _ = found(
        some, lambda delta: any(abs(p.magnitude or 0.0) > 0.2 for p in delta.parts if p.family == "init_gain")
    )
    assert result.minimal[0].family == "init_gain"


def test_of_joined_families_each_is_shrunk_by_itself():
    bounds = {"label_noise": 0.2, "init_gain": 0.5, "identity": 1.0}
    result, _ = found(st.one_of(NOISE, GAIN), lambda delta: abs(magnitude(delta)) >= bounds[delta.family])
    reported = {delta.family: abs(magnitude(delta)) for delta, _ in (result.minimal, *result.others)}
    assert reported.keys() == {"label_noise", "init_gain"}
    for family, least in reported.items():
        assert bounds[family] <= least <= bounds[family] / 0.99 * (1 + 1e-12)


@pytest.mark.parametrize(
    ("strategy", "came"),
    [
        (pt.label_noise, "got function"),
        (Perturbation("label_noise", 0.1, 0.5, 0), "passed as delta="),
        (None, "got NoneType"),
        (0.05, "got float 0.05"),
    ],
)
def test_what_is_no_strategy_is_refused(strategy, came):
    with pytest.raises(TypeError, match="expected a strategy of perturbations") as error:
        found(strategy, beyond(0.1))
    assert came in str(error.value)


@pytest.mark.parametrize("strategy", [st.floats(0, 1), st.one_of(NOISE, st.none())])
def test_a_strategy_that_yields_something_else_is_refused_before_anything_is_judged(strategy):
    evaluate = Planted(lambda delta: False)
    with pytest.raises(TypeError, match=r"expected a strategy of perturbations; .* drew (float|NoneType)"):
        search(strategy, evaluate, evaluate)
    assert evaluate.batches == []


def test_an_error_in_the_strategy_reaches_the_user():
    class BrokenError(Exception):
        pass

    def broken(delta):
        raise BrokenError

    with pytest.raises(BrokenError):
        found(NOISE.map(broken), beyond(0.1))
