"""Each distinct failure of one family has a degradation curve of its own: in the search, the text and the JSON."""

import json
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from cases.search import GAIN, MOST_LAUNCHES, NOISE, Graded

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.exploration.knowledge import line_of
from alignment_checks.exploration.rounds import FRUGAL, WIDE
from alignment_checks.findings import Point
from alignment_checks.perturbations import Perturbation
from alignment_checks.search import search

BOWL = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=20)
PLANS = pytest.mark.parametrize("plan", [WIDE, FRUGAL], ids=["wide", "frugal"])


class Kinds(Graded):
    """Each family, and each side of a signed one, is off by itself: from a third of its limit on it fails."""

    def __init__(self):
        super().__init__(lambda delta: max(abs(p.magnitude or 0.0) / (p.limit or 1.0) for p in delta.parts) * 3)

    def judged(self, delta):
        judgement = super().judged(delta)
        below = any((part.magnitude or 0.0) < 0 for part in delta.parts)
        return replace(judgement, deviation=math.copysign(judgement.deviation, -below))


def searched(strategy, plan, **options):
    evaluate, confirm = Kinds(), Kinds()
    return search(strategy, evaluate, confirm, plan=plan, **options), evaluate, confirm


@PLANS
@pytest.mark.parametrize("strategy", [GAIN, pt.compose(NOISE, GAIN, pt.init_jitter(max_sigma=1.0))])
def test_each_distinct_failure_has_a_curve_of_its_own_up_to_its_limit_without_a_gap(strategy, plan):
    result, _, _ = searched(strategy, plan)
    failures, curves = (result.minimal, *result.others), (result.curve, *result.curve_others)
    assert len(failures) == len(curves) >= 2
    for (delta, _), curve in zip(failures, curves, strict=True):
        fractions = [0.0, *(magnitude / math.copysign(delta.limit, delta.magnitude) for magnitude, _ in curve)]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        assert max(b - a for a, b in pairwise(fractions)) <= 2 / plan.curve + 1e-12
        assert [judgement.severity / 3 for _, judgement in curve] == pytest.approx(fractions[1:])


def test_what_is_known_of_a_line_is_not_tried_again_for_its_curve():
    result, evaluate, _ = searched(GAIN, FRUGAL)
    *_, curves = evaluate.batches
    for delta, _ in result.others:
        rungs = [rung for rung in curves if line_of(rung) == line_of(delta)]
        before = [d for batch in evaluate.batches[:-1] for d in batch if line_of(d) == line_of(delta)]
        assert 0 < len(rungs) < FRUGAL.curve
        apart = delta.limit / FRUGAL.curve / 2
        assert all(abs(rung.magnitude - known.magnitude) > apart for rung in rungs for known in before)


@pytest.mark.parametrize("same_seeds", [True, False])
def test_all_curves_are_judged_in_one_batch(same_seeds):
    result, evaluate, confirm = searched(GAIN, FRUGAL, same_seeds=same_seeds)
    asked = (confirm if same_seeds else evaluate).batches[-1]
    lines = {line_of(delta) for delta in asked}
    assert {line_of(delta) for delta, _ in (result.minimal, *result.others)} <= lines
    assert len(confirm.batches) == 1
    assert result.launches <= MOST_LAUNCHES


def test_a_failure_of_several_parts_has_no_curve_and_leaves_the_others_theirs():
    def margin(delta):
        sizes = {part.family: abs(part.magnitude or 0.0) / (part.limit or 1.0) for part in delta.parts}
        together = min(sizes.get("label_noise", 0.0), sizes.get("init_jitter", 0.0))
        return 2 * max(sizes.get("init_gain", 0.0), together)

    three = pt.compose(NOISE, GAIN, pt.init_jitter(max_sigma=1.0))
    result = search(three, Graded(margin), Graded(margin), plan=FRUGAL)
    assert (result.minimal[0].family, [delta.family for delta, _ in result.others]) == ("init_gain", ["compose"])
    assert len(result.curve) > 1
    assert result.curve_others == ((),)


def test_in_the_text_each_curve_stands_below_its_failure_and_the_json_holds_its_points():
    verdict = ac.check_capability_robust(BOWL, under=pt.init_gain(max_log2=1), rtol=0.1, device="cpu")
    (other,), (curve,) = verdict.others, verdict.curve_others
    assert {math.copysign(1, point.magnitude) for point in curve if point.magnitude} == {
        math.copysign(1, other.perturbation.magnitude)
    }
    lines = verdict.brief()
    own, others = (next(i for i, line in enumerate(lines) if word in line) for word in ("│ more than", "fails too at"))
    assert own < others
    assert lines[others + 1].startswith(f"  off by, up to {curve[-1].magnitude:<6g} ")
    data = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert data["curve_others"] == [[point.to_dict() for point in curve]]


def test_two_failures_on_one_line_share_a_curve_which_is_drawn_once():
    verdict = ac.check_capability_robust(BOWL, under=pt.init_gain(max_log2=1), rtol=0.1, device="cpu")
    same = replace(verdict, curve_others=(verdict.curve,))
    assert sum("off by, up to" in line for line in same.brief()) == 1


def test_a_curve_names_the_side_that_it_goes_to():
    delta = Perturbation("init_gain", -0.5, 1.0, 0)
    verdict = ac.check_capability_robust(BOWL, delta=delta, rtol=0.1, device="cpu")
    drawn = replace(verdict, curve=(Point(-0.5, 0.1, 0.2, "pass"), Point(-1.0, 0.3, 0.2, "fail")))
    assert any(line.startswith("  off by, up to -1 ") for line in drawn.brief())


def test_parts_at_0_are_named_nowhere():
    """Nor where something could not be judged: pushed onto the slope of a Huber loss, a short run's α is undefined."""

    def huber(x):
        return torch.nn.functional.huber_loss(x, torch.zeros_like(x), reduction="sum")

    slope = ac.landscape(huber, [0.9], optimizer=partial(torch.optim.SGD, lr=0.1), steps=5)
    idle = Perturbation("init_jitter", 0.0, 1.0, 3)
    moved = Perturbation("init_gain", 2.0, 2.0, 0)
    both = Perturbation("compose", None, None, 0, components=(idle, moved))
    verdict = ac.check_alignment_robust(slope, under=pt.init_gain(max_log2=1), first=[both], examples=0, rtol=1e9)
    assert verdict.status == "inconclusive"
    (note,) = [note for note in verdict.notes if note.startswith("not judged under ")]
    assert note.startswith("not judged under init_gain(log2=2): ")
