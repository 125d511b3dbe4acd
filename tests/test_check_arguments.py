"""What cannot be judged is refused: one clear error for each, before anything is trained."""

import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from cases.checks import GAIN, NOISE, bowl
from hypothesis import strategies as st
from torch import nn

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import Perturbation


@dataclass
class Call:
    """One check with arguments that are all right."""

    check: Callable
    arguments: dict

    def __call__(self, setup, **changes):
        arguments = {name: value for name, value in (self.arguments | changes).items() if value is not None}
        if "than" in arguments:
            arguments["than"] = setup if isinstance(setup, ac.TrainingSetup) else bowl()
        return self.check(setup, **arguments)


SOUND = {
    "capability_robust": Call(ac.check_capability_robust, {"under": NOISE, "rtol": 0.1, "examples": 3}),
    "alignment_robust": Call(ac.check_alignment_robust, {"under": NOISE, "rtol": 0.1, "examples": 3}),
    "capability_generalizes": Call(
        ac.check_capability_generalizes, {"to": pt.objective_mix(ac.brier), "rtol": 0.1, "examples": 3}
    ),
    "alignment_generalizes": Call(
        ac.check_alignment_generalizes, {"to": pt.objective_mix(ac.brier), "rtol": 0.1, "examples": 3}
    ),
    "inner_aligned": Call(ac.check_inner_aligned, {"under": NOISE, "floor": 0.1, "rtol": 0.1, "examples": 3}),
    "strongly_aligned": Call(ac.check_strongly_aligned, {"worst": 1.0, "within": 2, "under": NOISE, "examples": 3}),
    "more_capable": Call(ac.check_more_capable, {"than": True}),
    "better_aligned": Call(ac.check_better_aligned, {"than": True}),
}


def every(*names):
    """Parametrize over these checks, or all of them."""
    return pytest.mark.parametrize("call", [pytest.param(SOUND[n], id=n) for n in names or SOUND])


@contextmanager
def refused(steps, error, message):
    """Expect one clear error before anything is trained."""
    with pytest.raises(error) as raised:
        yield
    assert message in str(raised.value)
    assert steps.taken == 0


@every()
def test_the_arguments_below_are_all_right_but_for_what_each_test_changes(mlp, call, steps):
    """Else the tests below would see some other error."""
    assert call(replace(mlp, steps=3)).status in ("pass", "fail", "inconclusive")
    assert steps.taken > 0


def not_a_number(outputs, targets):
    return outputs.sum(1) * math.nan


def misshapen(outputs, targets):
    return outputs.square()[:5].sum(1)


SHARED = nn.Linear(4, 2)


BAD_SETUPS = [
    ({"objective": not_a_number}, ValueError, "`objective` is nan at t = 0 on the unperturbed setup"),
    ({"objective": misshapen}, ValueError, "`objective` must return 40 per-example losses"),
    ({"objective": lambda outputs, targets: 1.0}, TypeError, "`objective` must return a tensor"),
    ({"model": lambda: nn.Linear(4, 2).requires_grad_(False)}, ValueError, "the model has no trainable parameter"),
    ({"model": lambda: SHARED}, ValueError, "returned the same weights twice"),
    ({"model": lambda: 3}, TypeError, "`model()` must return a torch.nn.Module; got int"),
]


@every()
@pytest.mark.parametrize(("changes", "error", "message"), BAD_SETUPS, ids=lambda value: "" if callable(value) else None)
def test_a_setup_that_cannot_be_trained_is_one_clear_error_before_anything_is(
    mlp, call, steps, changes, error, message
):
    with refused(steps, error, message):
        call(replace(mlp, **changes))


BAD_KEYWORDS = [
    ({"rtol": -0.1}, ValueError, "`rtol` must be a finite number, at least 0; got -0.1"),
    ({"rtol": math.nan}, ValueError, "`rtol` must be a finite number, at least 0; got nan"),
    ({"atol": -1.0}, ValueError, "`atol` must be a finite number, at least 0; got -1.0"),
    ({"side": "better"}, ValueError, "`side` must be 'both' or 'worse'"),
    ({"of": "model"}, ValueError, "`of` must be 'base'"),
    ({"examples": -1}, ValueError, "`examples` must be an int, at least 0; got -1"),
    ({"examples": 2.5}, ValueError, "`examples` must be an int, at least 0; got 2.5"),
    ({"resolution": 0.0}, ValueError, "`resolution` must be a number between 0 and 1; got 0.0"),
    ({"resolution": 1}, ValueError, "`resolution` must be a number between 0 and 1; got 1"),
    ({"seeds": 0}, ValueError, "`seeds` must be at least 1, or a sequence of seeds; got 0"),
    ({"seeds": []}, ValueError, "`seeds` must be ints from 0, at least one; got []"),
    ({"seeds": [-1]}, ValueError, "`seeds` must be ints from 0, at least one; got [-1]"),
    (
        {"seeds": [3, 1, 3]},
        ValueError,
        "`seeds` must be distinct: repeating a run is no further evidence; got [3, 1, 3]",
    ),
    ({"seeds": 2.5}, TypeError, "`seeds` must be an int, or a sequence of seeds; got float 2.5"),
    ({"seeds": "12"}, TypeError, "`seeds` must be an int, or a sequence of seeds; got str '12'"),
    ({"backend": "lane"}, ValueError, "`backend` must be one of auto, lanes, loop; got 'lane'"),
    ({"normalized": "yes"}, ValueError, "`normalized` must be True, False, or None"),
    ({"random_seed": "x"}, ValueError, "`random_seed` must be an int; got 'x'"),
    ({"device": "gpu"}, ValueError, "`device` must be 'auto' or a torch device; got 'gpu'"),
    ({"rtoll": 0.1}, TypeError, "unexpected keyword argument 'rtoll': did you mean `rtol`?"),
    ({"tolerance": 0.1}, TypeError, "unexpected keyword argument 'tolerance': expected some of rtol, atol, side, "),
]


@every()
def test_what_is_offered_in_place_of_a_misspelled_keyword_is_what_tests_are_written_with(mlp, call):
    with pytest.raises(TypeError) as refused:
        call(mlp, tolerance=0.1)
    offered = str(refused.value).partition("expected some of ")[2].split(", ")
    assert {"rtol", "atol", "side", "normalized", "of", "examples", "seeds", "resolution"} <= set(offered)
    assert not {"memory", "shrink", "watch"} & set(offered)


ELSEWHERE = {
    "to": ("capability_robust", "it is for capability_generalizes and alignment_generalizes"),
    "under": ("alignment_generalizes", "a property that generalizes takes `to`"),
    "base_under": ("capability_generalizes", "it is for capability_robust, alignment_robust and inner_aligned"),
    "floor": ("alignment_robust", "it is for inner_aligned"),
    "within": ("capability_robust", "it is for strongly_aligned"),
    "than": ("inner_aligned", "it is for more_capable and better_aligned"),
    "delta": ("more_capable", "a comparison takes none"),
}


@pytest.mark.parametrize("keyword", ELSEWHERE)
def test_a_keyword_of_another_property_is_told_whose_it_is(mlp, keyword, steps):
    name, said = ELSEWHERE[keyword]
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{keyword}': {said}"):
        SOUND[name](mlp, **{keyword: mlp})
    assert steps.taken == 0


@every("alignment_robust", "alignment_generalizes", "inner_aligned", "better_aligned", "strongly_aligned")
def test_what_is_not_of_one_side_refuses_a_choice_of_side(mlp, call, steps):
    """It would else be ignored, and something else judged than what was asked for."""
    with pytest.raises(ValueError, match="there is no `of` to choose; got of='mesa'"):
        call(mlp, of="mesa")
    assert steps.taken == 0


@every("strongly_aligned", "more_capable", "better_aligned")
def test_what_has_one_direction_refuses_a_choice_of_it(mlp, call, steps):
    with pytest.raises(ValueError, match="there is no `side` to choose; got side='worse'"):
        call(mlp, side="worse")
    assert steps.taken == 0


@every()
@pytest.mark.parametrize(("changes", "error", "message"), BAD_KEYWORDS)
def test_a_keyword_of_the_wrong_form_is_one_clear_error_before_anything_is_trained(
    mlp, call, steps, changes, error, message
):
    with refused(steps, error, message):
        call(mlp, **changes)


@every()
@pytest.mark.parametrize("what", [nn.Linear(4, 2), None, "setup"])
def test_what_is_no_setup_is_refused(call, what):
    with pytest.raises(TypeError, match="expected a TrainingSetup; got"):
        call(what)


DRAWN = Perturbation("label_noise", 0.1, 0.3, 0)


@every("capability_robust", "alignment_robust", "inner_aligned")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"under": None}, TypeError, "expected exactly one of under=, mesa_under=, base_under="),
        ({"mesa_under": NOISE}, TypeError, "got under, mesa_under"),
        ({"delta": DRAWN}, TypeError, "got under, delta"),
        ({"under": None, "delta": NOISE}, TypeError, "delta= expects one Perturbation; got"),
        ({"under": DRAWN}, TypeError, "A single drawn perturbation is passed as delta="),
        ({"under": pt.label_noise}, TypeError, "A family is called, pt.init_seed()"),
        (
            {"under": [NOISE, GAIN]},
            TypeError,
            "Several are one by hypothesis.strategies.one_of(…), or applied at once by",
        ),
        ({"under": st.floats(0, 1)}, TypeError, "expected a strategy of perturbations; floats"),
        ({"under": None, "base_under": GAIN}, ValueError, "is of kind init; expected"),
        ({"under": None, "base_under": GAIN}, ValueError, "Init and optimizer families go to `under=`"),
        ({"under": None, "base_under": pt.compose(NOISE, GAIN)}, ValueError, "is of kind init; expected"),
        ({"rtol": None}, ValueError, "say how close counts as ≈: pass rtol="),
        ({"under": pt.redraw(1.0, pool=(torch.zeros(3, 9),) * 2)}, ValueError, "`pool` must be shaped as `data` is"),
    ],
)
def test_perturbations_that_make_no_sense_are_one_clear_error_before_anything_is_trained(
    mlp, call, steps, changes, error, message
):
    with refused(steps, error, message):
        call(mlp, **changes)


@every("capability_generalizes", "alignment_generalizes")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"to": NOISE}, ValueError, "is of kind dataset; expected custom or objective here"),
        ({"to": NOISE}, ValueError, "Dataset families go to `under=` of the robustness checks or"),
        ({"to": ac.brier}, TypeError, "another objective L′ goes into pt.objective_mix(…)"),
        ({"to": GAIN}, ValueError, "is of kind init; expected custom or objective here"),
        ({"to": st.one_of(pt.objective_mix(ac.brier), NOISE)}, ValueError, "is of kind dataset"),
        ({"to": None}, TypeError, "expected exactly one of to="),
        ({"delta": DRAWN}, TypeError, "expected exactly one of to="),
        ({"to": None, "delta": DRAWN}, ValueError, "is of kind dataset"),
        ({"to": ac.brier}, TypeError, "expected a strategy of perturbations"),
        ({"rtol": None}, ValueError, "say how close counts as ≈: pass rtol="),
    ],
)
def test_objectives_that_are_none_are_one_clear_error_before_anything_is_trained(
    mlp, call, steps, changes, error, message
):
    with refused(steps, error, message):
        call(mlp, **{"examples": 20} | changes)


@every("inner_aligned")
@pytest.mark.parametrize("strategy", [GAIN, pt.objective_mix(ac.brier)])
def test_inner_alignment_is_under_perturbations_of_the_dataset(mlp, call, steps, strategy):
    with pytest.raises(ValueError, match="expected custom or dataset here"):
        call(mlp, under=strategy)
    assert steps.taken == 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("strongly_aligned", {"within": 0}, "`within` must be an int from 1 to the setup's 40 steps; got 0"),
        ("strongly_aligned", {"within": 41}, "`within` must be an int from 1 to the setup's 40 steps; got 41"),
        ("strongly_aligned", {"within": 2.0}, "`within` must be an int from 1 to the setup's 40 steps; got 2.0"),
        ("strongly_aligned", {"worst": math.nan}, "`worst` must be a number; got nan"),
        ("strongly_aligned", {"worst": "1"}, "`worst` must be a number; got '1'"),
        ("inner_aligned", {"floor": math.nan}, "`floor` must be a number; got nan"),
        ("inner_aligned", {"floor": "0"}, "`floor` must be a number; got '0'"),
    ],
)
def test_bounds_that_are_none_are_one_clear_error_before_anything_is_trained(mlp, steps, name, changes, message):
    with refused(steps, ValueError, message):
        SOUND[name](mlp, **changes)


@every()
@pytest.mark.parametrize(("infimum", "came"), [(None, "objective_infimum=None"), (9.0, "L* = 9")])
def test_the_dimensionless_form_needs_an_infimum_below_the_start(mlp, call, steps, infimum, came):
    with pytest.raises(ValueError) as raised:
        call(replace(mlp, objective_infimum=infimum), normalized=True)
    assert "the dimensionless form needs L(0) above a stated infimum L* of the objective" in str(raised.value)
    assert came in str(raised.value)
    assert "normalized=False" in str(raised.value)
    assert steps.taken == 0


@every("capability_robust", "capability_generalizes", "more_capable")
def test_the_dimensionless_mesa_capability_needs_none(mlp, call):
    """G has a zero of its own."""
    setup = replace(mlp, objective_infimum=None, steps=3)
    assert call(setup, normalized=True, of="mesa").status in ("pass", "fail")


def test_a_perturbed_objective_that_is_nan_at_the_start_has_diverged_there(mlp):
    """On the unperturbed setup that is an error; under δ it is a failure."""

    def broken(outputs, targets):
        return outputs.sum(1) * math.nan

    verdict = ac.check_capability_robust(mlp, under=pt.objective_mix(broken), rtol=0.5, examples=5)
    assert verdict.status == "fail"
    assert "diverged at step 0" in str(verdict)
