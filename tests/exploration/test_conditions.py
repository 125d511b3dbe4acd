"""What a user's `.filter` leaves out is never judged and never reported, whatever its form."""

import pytest
from cases.search import GAIN, NOISE, found
from hypothesis import strategies as st

from alignment_checks import perturbations as pt
from alignment_checks.exploration.conditions import as_drawn, conditions
from alignment_checks.exploration.rounds import FRUGAL, WIDE

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


def test_only_conditions_on_all_that_is_drawn_count():
    """A branch's own condition says nothing of the others, nor one before `.map` of what comes out."""
    assert conditions(NOISE) == ()
    assert conditions(NOISE.filter(large).filter(outside_the_hole)) == (large, outside_the_hole)
    assert conditions(st.one_of(NOISE, GAIN).filter(large)) == (large,)
    assert conditions(st.one_of(NOISE.filter(large), GAIN)) == ()
    assert conditions(NOISE.filter(large).map(lambda delta: delta.at(0.1))) == ()
    assert conditions(pt.compose(NOISE.filter(large), GAIN)) == ()
