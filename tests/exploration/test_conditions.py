"""What a user's `.filter` leaves out is never judged and never reported, whatever its form."""

import pytest
from cases.search import GAIN, NOISE, Planted, found
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from alignment_checks import perturbations as pt
from alignment_checks.exploration.conditions import as_drawn, conditions, draws_whole
from alignment_checks.exploration.rounds import FRUGAL, WIDE
from alignment_checks.search import search

BOTH = pt.compose(NOISE, GAIN)


def outside_the_hole(delta):
    return not 0.02 < abs(delta.magnitude) < 0.3


def large(delta):
    return delta.size >= 0.6


def mostly_gain(delta):
    """Written for what the strategy draws: two parts, in this order."""
    return abs(delta.parts[1].magnitude) >= 4 * delta.parts[0].magnitude


def noisy(delta):
    return any(part.magnitude >= 0.05 for part in delta.parts if part.family == "label_noise")


def beyond_a_tenth(delta):
    return abs(delta.magnitude or 0.0) >= 0.1


@pytest.mark.parametrize("plan", [WIDE, FRUGAL], ids=["wide", "frugal"])
@pytest.mark.parametrize("random_seed", range(3))
@pytest.mark.parametrize(
    ("strategy", "allows", "fails", "smallest"),
    [
        (NOISE, outside_the_hole, beyond_a_tenth, 0.3 / 0.5),
        (st.one_of(NOISE, GAIN), outside_the_hole, beyond_a_tenth, 0.3 / 2),
        (BOTH, large, noisy, 0.6),
        (BOTH, mostly_gain, noisy, 0.05 / 0.5 + 0.2 / 2),
    ],
)
def test_all_that_is_judged_passes_the_filter_and_the_smallest_that_does_is_found(
    strategy, allows, fails, smallest, random_seed, plan
):
    result, evaluate = found(strategy.filter(allows), fails, random_seed=random_seed, plan=plan)
    drawn = [as_drawn(delta, [BOTH_FORM]) if strategy is BOTH else delta for delta in evaluate.seen]
    assert all(allows(delta) for delta in drawn if not delta.is_identity)
    assert result.minimal[0].size == pytest.approx(smallest, rel=0.01)


BOTH_FORM = pt.Perturbation(
    "compose",
    None,
    None,
    0,
    components=(pt.Perturbation("label_noise", 0.1, 0.5, 0), pt.Perturbation("init_gain", 1.0, 2.0, 0)),
)


def test_a_condition_is_asked_of_what_was_drawn_not_of_what_is_left_of_it():
    noise, gain = BOTH_FORM.parts
    assert as_drawn(gain, [BOTH_FORM]).parts == (noise.at(0.0), gain)
    assert as_drawn(gain, [BOTH_FORM, gain]) == gain
    other = pt.Perturbation("init_jitter", 0.1, 0.5, 0)
    assert as_drawn(other, [BOTH_FORM]) == other


def outside_as_a_part(delta):
    return all(outside_the_hole(part) for part in delta.parts if part.family == "label_noise")


def noise_beyond_a_tenth(delta):
    return any(part.magnitude >= 0.1 for part in delta.parts if part.family == "label_noise")


OUTSIDE = NOISE.filter(outside_the_hole)
OUTSIDE_OR_MORE = st.deferred(lambda: st.one_of(OUTSIDE, pt.compose(GAIN, OUTSIDE_OR_MORE)))


@pytest.mark.parametrize("plan", [WIDE, FRUGAL], ids=["wide", "frugal"])
@pytest.mark.parametrize("random_seed", range(3))
@pytest.mark.parametrize(
    "strategy",
    [
        pt.compose(OUTSIDE, GAIN),
        pt.compose(pt.compose(GAIN, OUTSIDE), pt.init_jitter(max_sigma=1.0)),
        pt.compose(st.one_of(GAIN, OUTSIDE), pt.init_jitter(max_sigma=1.0)),
        st.one_of(OUTSIDE, GAIN),
        st.one_of(pt.compose(OUTSIDE, GAIN), GAIN).filter(lambda delta: delta.size < 2),
        st.deferred(lambda: st.one_of(OUTSIDE, pt.compose(GAIN, OUTSIDE_OR_MORE))),
    ],
    ids=["part", "nested", "branch-of-part", "branch", "part-of-branch", "recursive"],
)
def test_what_a_part_or_a_branch_was_filtered_by_is_kept_to_as_well(strategy, random_seed, plan):
    result, evaluate = found(strategy, noise_beyond_a_tenth, random_seed=random_seed, plan=plan)
    assert all(map(outside_as_a_part, evaluate.seen))
    noise = next(part for part in result.minimal[0].parts if part.family == "label_noise")
    assert noise.magnitude == pytest.approx(0.3, rel=0.01)


@st.composite
def built(draw):
    """One of a user's own making, which gives one part or two."""
    return draw(st.one_of(NOISE, BOTH))


DRAWN = [pt.Perturbation("label_noise", rate / 100, 0.5, 0) for rate in range(50)]
SAMPLED = st.sampled_from(DRAWN).map(lambda delta: delta.at(0.5 - delta.magnitude)).filter(outside_the_hole)
RECURSIVE = st.deferred(lambda: st.one_of(NOISE, RECURSIVE.filter(lambda d: d.size > 0.2), pt.compose(GAIN, RECURSIVE)))
SINGLE = st.sampled_from(
    [NOISE, GAIN, pt.init_seed(), pt.label_noise(max_rate=0.1), built(), NOISE.map(lambda d: d), SAMPLED, RECURSIVE]
)
MADE = st.recursive(
    SINGLE,
    lambda inner: st.one_of(
        inner.map(lambda one: one.filter(lambda delta: delta.size > 0.1)),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: pt.compose(*many)),
        st.lists(inner, min_size=1, max_size=3).map(st.one_of),
    ),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategy=MADE, data=st.data())
def test_no_filter_refuses_what_was_drawn_through_it(strategy, data):
    delta = data.draw(strategy)
    assert all(holds(delta) for holds in conditions(strategy))


def test_only_what_was_filtered_is_asked():
    """What was filtered before it was mapped says nothing of what comes out."""
    assert conditions(st.one_of(NOISE, BOTH)) == ()
    assert conditions(NOISE.filter(large).map(lambda delta: delta.at(0.1))) == ()
    assert conditions(st.sampled_from(DRAWN).filter(large).map(lambda delta: delta.at(0.1))) == ()
    assert len(conditions(NOISE, OUTSIDE, pt.compose(OUTSIDE, GAIN), SAMPLED, RECURSIVE)) == 4


def test_what_perturbations_sampled_from_a_list_are_filtered_by_is_kept_to():
    result, evaluate = found(SAMPLED, beyond_a_tenth)
    assert all(outside_the_hole(delta) for delta in evaluate.seen)
    assert result.minimal[0].magnitude == pytest.approx(0.3, rel=0.01)


def test_a_strategy_made_of_itself_is_whole_where_nothing_that_it_is_made_of_is_filtered_or_mapped():
    recursive = st.deferred(lambda: st.one_of(NOISE, pt.compose(GAIN, recursive)))
    assert draws_whole(recursive)
    assert draws_whole(pt.compose(recursive, st.one_of(GAIN, st.nothing())))
    assert not draws_whole(RECURSIVE)
    assert not draws_whole(pt.compose(GAIN, NOISE.map(lambda delta: delta.at(0.1))))


# ------------------------------------------------------------------------------------- what a condition does beside


def assumed_outside(delta):
    assume(outside_the_hole(delta))
    return True


def test_what_a_condition_assumes_to_be_otherwise_is_not_drawn():
    """Hypothesis rejects such a draw, and warns of an assumption outside a test, where no user has made any."""
    result, evaluate = found(NOISE.filter(assumed_outside), beyond_a_tenth)
    assert all(outside_the_hole(delta) for delta in evaluate.seen)
    assert result.minimal[0].magnitude == pytest.approx(0.3, rel=0.01)


def test_what_a_condition_raises_is_raised_once_and_says_of_what_it_was_asked():
    evaluate = Planted(beyond_a_tenth)

    def broken(delta):
        if evaluate.batches:
            raise KeyError("mine")
        return True

    with pytest.raises(KeyError, match="mine") as caught:
        search(NOISE.filter(broken), evaluate, evaluate, examples=40)
    (note,) = caught.value.__notes__
    assert "a condition that a strategy is filtered by, asked of Perturbation(family='label_noise'" in note
