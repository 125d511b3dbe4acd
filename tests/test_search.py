"""`search` with judgements that cost nothing: what it finds, in how few batches, and that its plan is its own.

Each test plants a set of failing magnitudes and knows therefore the smallest of them. No training takes place.
"""

import math
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from cases.search import GAIN, NOISE, Planted, beyond, found, magnitude
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment_checks import perturbations as pt
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.search import drawn, search

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
