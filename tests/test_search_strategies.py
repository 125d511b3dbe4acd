"""Strategies of all sorts are searched as they draw: joined, filtered, mapped; what is none is refused."""

import pytest
from cases.search import GAIN, MOST_LAUNCHES, NOISE, Planted, beyond, found, magnitude
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import Perturbation
from alignment_checks.search import drawn, search


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


@pytest.mark.parametrize("random_seed", range(3))
def test_of_a_part_that_a_filter_may_ask_for_no_more_is_kept_than_that_it_is_there(random_seed):
    """Nor are runs spent on making it smaller and smaller."""
    both = pt.compose(NOISE, GAIN).filter(lambda delta: all(part.magnitude != 0 for part in delta.parts))
    result, evaluate = found(
        both,
        lambda delta: any(p.family == "label_noise" and p.magnitude > 0.1 for p in delta.parts),
        random_seed=random_seed,
    )
    noise, gain = result.minimal[0].parts
    assert noise.magnitude <= 0.1 / 0.99
    assert gain.magnitude != 0
    assert str(result.minimal[0]).endswith("init_gain(log2=0))")
    assert len(evaluate.batches) <= MOST_LAUNCHES
    assert all(part.magnitude != 0 for delta in evaluate.seen if not delta.is_identity for part in delta.parts)


def test_a_strategy_made_of_itself_is_searched():
    chain = st.deferred(lambda: st.one_of(NOISE, pt.compose(GAIN, chain)))
    result, evaluate = found(chain, lambda delta: any(p.magnitude >= 0.1 for p in delta.parts if p.limit == 0.5))
    assert max(len(delta.parts) for delta in evaluate.seen) > 2
    assert result.minimal[0].family == "label_noise"
    assert result.minimal[0].magnitude == pytest.approx(0.1, rel=0.01)


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
        (Perturbation("label_noise", 0.1, 0.5, 0), "got one perturbation, label_noise(rate=0.1). A single drawn"),
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


def test_a_filter_that_lets_nothing_through_is_named():
    with pytest.raises(Unsatisfiable, match=r"label_noise.*\.filter\(.*drew no perturbation: its filters let none"):
        found(NOISE.filter(lambda delta: False), beyond(0.1))


def test_an_error_in_the_strategy_reaches_the_user():
    class BrokenError(Exception):
        pass

    def broken(delta):
        raise BrokenError

    with pytest.raises(BrokenError):
        found(NOISE.map(broken), beyond(0.1))


def scaled(by):
    """Return a family whose function closes over a number, and goes by one name whatever that is."""
    return pt.custom("scaled", lambda run, magnitude, generator: (run, by), max_magnitude=1.0)


def mixed(by):
    return pt.objective_mix(lambda outputs, targets: by * outputs)


@pytest.mark.parametrize("family", [scaled, mixed])
@pytest.mark.parametrize("join", [st.one_of, pt.compose])
def test_two_functions_of_one_name_are_refused_before_anything_is_judged(family, join):
    """Neither a verdict nor a replay could tell them apart."""
    evaluate = Planted(lambda delta: True)
    with pytest.raises(ValueError, match=r"two different functions both go by the name .*<lambda>"):
        search(join(family(1.0), family(2.0)), evaluate, evaluate)
    assert evaluate.batches == []
    search(join(family(1.0), family(1.0)), evaluate, evaluate, examples=5)
    assert evaluate.batches != []


def test_an_objective_with_two_infima_is_two():
    both = st.one_of(*[pt.objective_mix(ac.brier, infimum=infimum) for infimum in (0.0, None)])
    with pytest.raises(ValueError, match=r"both go by the name alignment_checks\.objectives:brier"):
        drawn(both, 20, 0)


def test_what_fails_however_little_of_it_is_tried_is_told_as_it_is():
    both = st.one_of(NOISE, GAIN).filter(lambda delta: delta.magnitude != 0)
    result, _ = found(both, lambda delta: delta.size > 0)
    reported = [delta for delta, _ in (result.minimal, *result.others)]
    assert {delta.family for delta in reported} == {"label_noise", "init_gain"}
    assert all("=0)" not in str(delta) for delta in reported)
