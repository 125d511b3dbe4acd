"""Where a search looks: evenly over the domain, at its corners, and where a line is expected to cease to fail."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alignment_checks import perturbations as pt
from alignment_checks.exploration.ladders import Bound, crossings, ladder
from alignment_checks.exploration.lines import Line
from alignment_checks.exploration.rounds import FRUGAL, WIDE
from alignment_checks.exploration.sampling import Domain, corners, lattice, placed, places, shape, spread
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.perturbations.value import FAINT
from alignment_checks.search import drawn

NOISE, GAIN, JITTER = pt.label_noise(max_rate=0.5), pt.init_gain(max_log2=2.0), pt.init_jitter(max_sigma=1.0)


def of(strategy, examples=100):
    """Return draws of a strategy, and the domain that they show."""
    draws = drawn(strategy, examples, 0)
    return draws, Domain.of(draws, whole=True)


# --------------------------------------------------------------------------------------------------------------- evenly


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 150), dimensions=st.integers(1, 5), shift=st.floats(0, 0.99))
def test_in_each_dimension_a_lattice_is_equal_steps(count, dimensions, shift):
    points = lattice(count, dimensions, [shift] * dimensions)
    assert points.shape == (count, dimensions)
    for column in points.T:
        steps = np.diff(np.sort(column))
        assert np.allclose(steps, 1 / count, atol=1e-9)


@pytest.mark.parametrize("first", [5, 10, 20, 50])
def test_the_first_few_points_lie_evenly_too(first):
    points = np.sort(lattice(127, 1, [0.0])[:first, 0])
    gaps = np.diff([*points, points[0] + 1])
    assert gaps.max() < 2.7 / first


def test_a_hundred_draws_leave_no_gap_of_a_hundredth():
    draws, domain = of(NOISE)
    at = sorted([0.0, *(delta.magnitude / 0.5 for delta in spread(draws, domain, 3)), 1.0])
    assert max(np.diff(at)) < 0.01


def test_what_is_spread_keeps_families_seeds_and_options():
    draws, domain = of(st.one_of(NOISE, pt.compose(GAIN, JITTER)), 60)
    found = spread(draws, domain, 0)
    assert len(draws) <= len(found) <= 1.28 * len(draws)
    assert {shape(delta) for delta in found} == {shape(delta) for delta in draws}
    seeds = {(p.family, p.seed) for delta in draws for p in delta.parts}
    assert {(p.family, p.seed) for delta in found for p in delta.parts} <= seeds
    assert {shape(delta) for delta in found[:4]} == {shape(delta) for delta in draws}


def test_a_family_that_was_drawn_below_0_is_spread_below_0():
    draws, domain = of(GAIN)
    at = np.array([delta.magnitude for delta in spread(draws, domain, 0)])
    assert abs((at < 0).mean() - 0.5) < 0.02


@pytest.mark.parametrize("strategy", [pt.init_seed(), NOISE.filter(lambda delta: delta.magnitude < 0.3)])
def test_what_has_no_magnitude_to_choose_or_was_filtered_is_left_as_it_was_drawn(strategy):
    draws = drawn(strategy, 20, 0)
    assert sorted(spread(draws, Domain.of(draws, whole=False), 0), key=repr) == sorted(draws, key=repr)
    assert corners(draws, Domain.of(draws, whole=False)) == []


# -------------------------------------------------------------------------------------------------------------- corners


def test_the_corners_are_every_choice_of_the_ends():
    draws, domain = of(pt.compose(NOISE, GAIN, JITTER), 20)
    found = [tuple(places(delta)) for delta in corners(draws, domain)]
    assert found[:2] == [(1.0, 1.0, 1.0), (1.0, -1.0, 1.0)]
    ends = {(x, y, z) for x in (0.0, 1.0) for y in (-1.0, 1.0) for z in (0.0, 1.0)}
    alone = {(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)}
    assert len(found) == len(set(found))
    assert set(found) == ends | alone


def test_each_family_of_a_joined_strategy_has_corners():
    draws, domain = of(st.one_of(NOISE, GAIN), 40)
    assert {(d.family, d.magnitude) for d in corners(draws, domain)} == {
        ("label_noise", 0.5),
        ("init_gain", 2.0),
        ("init_gain", -2.0),
    }


# -------------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("plan", [WIDE, FRUGAL])
@given(count=st.integers(0, 300))
def test_batches_are_all_of_the_draws_in_order(plan, count):
    batches = [list(batch) for batch in plan.batches(range(count))]
    assert [draw for batch in batches for draw in batch] == list(range(count))
    assert len(batches) >= 1


# -------------------------------------------------------------------------------------------------------------- ladders


@given(
    low=st.floats(0, 0.98),
    at_low=st.floats(-1, 0.99),
    severity=st.one_of(st.floats(1.001, 100), st.just(math.inf)),
    count=st.integers(2, 16),
)
def test_rungs_stand_strictly_between_what_holds_and_what_fails(low, at_low, severity, count):
    rungs = ladder(Bound(low, at_low), severity, 0.01, count)
    assert len(rungs) >= 2
    assert all(low < rung < 1 for rung in rungs)
    assert rungs == sorted(rungs)


LESS = st.floats(0, 1, exclude_max=True)
NEARLY_ALIKE = Bound(0.9, 0.100001, before=(0.5, 0.1))
"""A power law through these has an exponent of some sixty thousand."""


@settings(max_examples=300)
@given(
    fractions=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(sorted),
    severities=st.one_of(st.tuples(LESS, LESS).map(sorted), LESS.map(lambda one: [one, math.nextafter(one, 1)])),
    severity=st.floats(1, exclude_min=True),
    count=st.integers(2, 16),
)
@example([0.5, 0.9], [0.1, 0.100001], 20.0, 4)
@example([0.0, 0.0], [0.0, math.nextafter(1, 0)], 1e308, 6)
@example([5e-324, 0.5], [5e-324, 0.9], 2.0, 6)
def test_where_a_line_is_expected_to_cease_to_fail_is_within_its_bounds(fractions, severities, severity, count):
    """Of any two magnitudes that held, and however alike or far apart they and their severities are."""
    low = Bound(fractions[1], severities[1], before=(fractions[0], severities[0]))
    places = crossings(low, severity)
    assert all(low.fraction <= place <= 1 for place in places)
    assert places == sorted(places)
    rungs = ladder(low, severity, 0.01, count)
    assert all(low.fraction < rung < 1 for rung in rungs)
    assert rungs == sorted(rungs)


def test_where_the_last_two_that_held_are_nearly_alike_what_failed_says_where_to_look():
    assert crossings(NEARLY_ALIKE, 20.0) == crossings(Bound(0.9, 0.100001), 20.0)


@given(low=st.floats(0, 0.8), at_low=st.floats(0, 0.9), severity=st.floats(1.2, 10))
def test_where_severity_is_a_straight_line_one_ladder_encloses_the_boundary_to_the_resolution(low, at_low, severity):
    boundary = low + (1 - low) * (1 - at_low) / (severity - at_low)
    rungs = [low, *ladder(Bound(low, at_low), severity, 0.01, 6), 1.0]
    below, above = max(r for r in rungs if r < boundary), min(r for r in rungs if r >= boundary)
    assert (above - below) / above <= 0.01


def test_a_line_whose_parts_moved_together_looks_again_whether_it_still_holds_below():
    line = Line.at(placed(drawn(pt.compose(NOISE, GAIN), 1, 0)[0], (0.6, 0.4)), 3.0)
    assert not line.resolved(0.01)
    stepped = Line(line.delta, 3.0, dict.fromkeys(line.low, Bound(0.4975, 0.9))).stepped({0: 0.5, 1: 0.5}, 1.1)
    assert [bound.fraction for bound in stepped.low.values()] == [0.995, 0.995]
    assert not stepped.resolved(0.01)
    assert {0: 0.995} in stepped.rungs(0.01, 6)


def test_a_part_that_cannot_be_scaled_stays_as_it_is():
    delta = Perturbation("compose", None, None, 0, components=(drawn(pt.init_seed(), 1, 0)[0], drawn(NOISE, 9, 0)[-1]))
    line = Line.at(delta, 2.0)
    assert set(line.low) == {1}
    assert line.moved({-1: 0.5}).components[0] == delta.components[0]


def test_beside_others_a_part_that_is_as_good_as_0_is_moved_no_more():
    gain, noise = Perturbation("init_gain", -0.4, 1.0, 0), Perturbation("label_noise", 0.3, 0.5, 0)
    line = Line.at(assembled([noise, gain]), 2.0)
    assert line.lowered(lambda part: 0.0) == [{0: FAINT}, {1: FAINT}]
    smaller = line.stepped({1: FAINT}, 1.5)
    assert smaller.delta.parts == (noise, gain.at(-0.4 * FAINT))
    assert smaller.low.keys() == Line.at(smaller.delta, 1.5).low.keys() == {0}
    assert smaller.expected() < smaller.delta.size
    assert str(smaller.delta) == "compose(label_noise(rate=0.3), init_gain(log2=0))"


@given(size=st.floats(1e-6, 0.5), fraction=st.floats(1e-12, 1 - 1e-12))
def test_a_move_goes_down_to_the_least_that_was_drawn_and_not_below(size, fraction):
    line, least = Line.at(Perturbation("label_noise", size, 0.5, 0), 2.0), size * fraction
    (move,) = line.lowered(lambda part: least)
    assert least <= line.moved(move).magnitude <= least * (1 + 1e-15)
    assert line.lowered(lambda part: size) == line.lowered(lambda part: 0.0) == []


def test_where_a_family_was_drawn_at_0_what_is_drawn_of_either_side_reaches_down_to_it():
    drawn = [Perturbation("init_gain", magnitude, 1.0, 0) for magnitude in (0.0, -0.4, -0.8, 0.3)]
    domain = Domain.of(drawn, whole=False)
    inside = {-0.8: True, -0.4: True, -0.1: True, 0.1: True, 0.3: True, 0.31: False, -0.81: False}
    assert {size: domain.holds(drawn[0].at(size)) for size in inside} == inside
    assert not Domain.of(drawn[1:], whole=False).holds(drawn[0].at(-0.1))
