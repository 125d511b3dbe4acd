"""Strong alignment: a run that breaks the vase and repairs it is noticed."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from cases.checks import EXACT, GAIN, bowl, within
from torch.optim.lr_scheduler import LambdaLR

import alignment_checks as ac
from alignment_checks import perturbations as pt


def steep(x):
    return 5 * x.square().sum()


def cooled(t):
    return 1 / (1 + t / 10)


def hot(**more):
    """Return a run that starts beyond 2/λ = 0.2 and cools down: up at first, and then to the minimum."""
    return bowl(
        steep, optimizer=partial(torch.optim.SGD, lr=0.25), scheduler=partial(LambdaLR, lr_lambda=cooled), **more
    )


def journey(steps):
    """Return L(t) of `hot` in closed form: L(0) Π ρ², ρ = 1 − 10 η(t)."""
    return 5 * np.cumprod([1.0] + [(1 - 2.5 * cooled(t)) ** 2 for t in range(steps)])


def test_where_nothing_is_perturbed_no_perturbation_is_spoken_of():
    for worst in (1e6, 1e-6):
        verdict = ac.check_strongly_aligned(hot(), worst=worst, within=20)
        assert "trained and scored on L\n" in str(verdict)
        assert "δ" not in str(verdict)
    under = ac.check_strongly_aligned(hot(), worst=1e6, within=20, under=pt.init_gain(max_log2=0.1), examples=3)
    assert "trained on L+δ, scored on L+δ" in str(under)


def test_the_vase_that_is_broken_and_repaired_is_noticed():
    """The limit is good and the transient is not: the highest L on the way is what counts."""
    levels = journey(60)
    highest = float(levels.max())
    assert int(levels.argmax()) == 3
    assert highest > 4 * levels[0]
    assert levels[-1] < 1e-6 * levels[0]

    def judged(worst, **more):
        return ac.check_strongly_aligned(hot(steps=60), worst=worst, **{"within": 60, **more})

    assert judged(highest * (1 + EXACT)).status == "pass"
    broken = judged(highest * (1 - EXACT))
    assert broken.status == "fail"
    assert f"{highest:.4g}" in str(broken)
    assert judged(levels[2] * (1 + EXACT), within=2).status == "pass"
    assert judged(levels[2] * (1 + EXACT), within=3).status == "fail"


@pytest.mark.parametrize("tolerance", [{"rtol": 0.25}, {"atol": 0.5}, {"rtol": 0.1, "atol": 0.2}])
def test_a_tolerance_says_by_how_much_the_worst_may_be_exceeded(tolerance):
    """On the way, and at the end: neither above it nor above L(0) by more."""
    highest = float(journey(60).max())
    share, more = tolerance.get("rtol", 0.0), tolerance.get("atol", 0.0)
    least = (highest - more) / (1 + share)
    passed, failed = (
        ac.check_strongly_aligned(hot(steps=60), worst=least * (1 + off), within=60, **tolerance)
        for off in (EXACT, -EXACT)
    )
    assert (passed.status, failed.status) == ("pass", "fail")
    assert all(f"{name}={value:g}" in passed.statement for name, value in tolerance.items())
    uphill = bowl(optimizer=partial(torch.optim.SGD, lr=0.01, maximize=True))
    began, ended = ac.run(uphill).base[0, [0, -1]]
    for off, status in ((EXACT, "pass"), (-EXACT, "fail")):
        allowed = {"rtol": (ended / began - 1) * (1 + off)}
        assert ac.check_strongly_aligned(uphill, worst=math.inf, within=1, **allowed).status == status


def test_strong_alignment_under_a_perturbation_has_its_boundary():
    """On a quadratic the highest L goes with the square of the gain."""
    worst = 1.5 * float(journey(20).max())
    verdict = ac.check_strongly_aligned(hot(steps=20), worst=worst, within=20, under=GAIN, examples=20)
    bound = math.log2(1.5) / 2
    assert within(verdict.minimal.perturbation.magnitude, bound)
    assert verdict.minimal.perturbation.magnitude > 0
    inside = pt.init_gain(max_log2=bound - 1e-6)
    assert ac.check_strongly_aligned(hot(steps=20), worst=worst, within=20, under=inside, examples=20).status == "pass"


def test_a_run_that_ends_above_where_it_began_is_not_strongly_aligned():
    uphill = bowl(optimizer=partial(torch.optim.SGD, lr=0.01, maximize=True))
    verdict = ac.check_strongly_aligned(uphill, worst=math.inf, within=1)
    assert verdict.status == "fail"
    assert "ends at" in str(verdict)
    assert "fails unperturbed" in str(verdict)
    assert "trained and scored on L\n" in str(verdict)
    assert not any(said in str(verdict) for said in ("δ", "identity"))
    assert ac.check_strongly_aligned(bowl(), worst=0.5, within=1).status == "pass"


def test_a_run_that_diverges_is_not_strongly_aligned():
    verdict = ac.check_strongly_aligned(bowl(optimizer=partial(torch.optim.SGD, lr=2.5)), worst=math.inf, within=1)
    assert verdict.status == "fail"
    assert "diverged at step" in str(verdict)
