"""One setup against another: more capable, better aligned, and what the difference comes from."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from cases.checks import bowl
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import alignment_checks as ac

# ------------------------------------------------------------------------------------------------------ inner alignment


def flat(x):
    return 0.0 * x.sum()


# ------------------------------------------------------------------------------------------------- one against another


def wells(x):
    """Return a global minimum, 0, at −1 and a local one, 0.1, at 1; level and slope are the same at −1.8 and 1.8."""
    return ((x * x - 1).square() + 0.1 * torch.exp(-(((x - 1) / 0.2) ** 2))).sum()


def well(start=-1.8, lr=0.02, **more):
    return bowl(wells, start=start, steps=200, optimizer=partial(torch.optim.SGD, lr=lr), **more)


DECAY = partial(LambdaLR, lr_lambda=lambda t: 1 / (1 + t / 20))


def test_a_and_b_differ_in_where_they_end_and_b_is_less_aligned():
    """The post's A and B: both drive G to 0, B to a local minimum."""
    a, b = well(), well(start=1.8)
    verdict = ac.check_better_aligned(a, than=b)
    assert verdict.status == "pass"
    assert verdict.statement == "the setup is better aligned than the other"
    assert "the one behind is less aligned" in str(verdict)
    assert ac.check_better_aligned(b, than=a).status == "fail"
    assert ac.check_more_capable(a, than=b).status == "pass"
    mesa = [ac.capability(ac.run(setup), of="mesa")[0] for setup in (a, b)]
    assert mesa[0] == pytest.approx(mesa[1], rel=1e-6)
    assert ac.check_more_capable(a, than=b, of="mesa", rtol=1e-4).status == "fail"


def test_a_decays_its_learning_rate_and_c_orbits_and_c_is_capability_limited():
    """The post's A and C: beyond 2/λ at the minimum, C never rests: worse in G, and in L through G."""
    a, c = well(start=-1.2, lr=0.28, scheduler=DECAY), well(start=-1.2, lr=0.28)
    of_c = ac.run(c)
    assert of_c.mesa[0, -20:].min() > 0.1
    for of in ("mesa", "base"):
        verdict = ac.check_more_capable(a, than=c, of=of, rtol=0.5)
        assert verdict.status == "pass"
        assert "the one behind is capability-limited" in str(verdict)
        worse = ac.check_more_capable(c, than=a, of=of)
        assert worse.status == "fail"
        assert worse.denial == "the setup is not more capable than the other" + ", of='mesa'" * (of == "mesa")


def test_the_decomposition_in_the_text_is_that_of_the_numbers():
    a, b = well(), well(start=1.8)
    base, mesa = ([ac.capability(ac.run(s), of=of)[0] for s in (a, b)] for of in ("base", "mesa"))
    total, by_mesa = math.log(base[0] / base[1]), math.log(mesa[0] / mesa[1])
    text = str(ac.check_more_capable(a, than=b))
    assert f"Δlog|C_B| {total:+.4g} = Δlog|α| {total - by_mesa:+.4g} + Δlog|C_M| " in text
    for form in ("C_200(L)", "C̃_200(L)", "C_200(G)", "α_200(L, G)", "α̃_200(L, G)", "L(T)", "G(T)"):
        assert form in text


def test_a_setup_is_not_ahead_of_itself():
    for check in (ac.check_more_capable, ac.check_better_aligned):
        verdict = check(well(), than=well())
        assert verdict.status == "fail"
        assert "neither is behind" in str(verdict)


def test_the_margin_is_by_how_much_to_be_ahead():
    better, other = bowl(start=1.1), bowl(start=1.0)
    assert ac.check_more_capable(better, than=other, rtol=0.2, normalized=False).status == "pass"
    assert ac.check_more_capable(better, than=other, rtol=0.22, normalized=False).status == "fail"
    assert ac.check_better_aligned(better, than=other, rtol=0.09, normalized=False).status == "pass"
    assert ac.check_better_aligned(better, than=other, rtol=0.11, normalized=False).status == "fail"


def test_an_improvement_that_is_none_has_no_decomposition_and_no_alignment_to_compare():
    uphill = bowl(optimizer=partial(torch.optim.SGD, lr=0.01, maximize=True))
    verdict = ac.check_more_capable(bowl(), than=uphill)
    assert verdict.status == "pass"
    assert "no decomposition: not all capabilities are clear of 0 and negative" in str(verdict)
    assert "C_B(b) positive, C_M(b) positive" in str(verdict)
    verdict = ac.check_better_aligned(bowl(), than=uphill)
    assert verdict.status == "inconclusive"
    assert "the other: α counts only where C_B < 0 and C_M < 0" in str(verdict)


def test_what_diverged_or_is_undefined_is_not_compared():
    gone, flat = bowl(optimizer=partial(torch.optim.SGD, lr=2.5)), bowl(lambda x: x.abs().sum(), start=0.95, steps=40)
    assert "the other: diverged at step" in str(ac.check_more_capable(bowl(), than=gone))
    assert "the setup: diverged at step" in str(ac.check_better_aligned(gone, than=bowl(), normalized=False))
    verdict = ac.check_better_aligned(flat, than=bowl(), normalized=False)
    assert verdict.status == "inconclusive"
    assert "the setup: α is undefined" in str(verdict)


def test_alignment_is_compared_in_dimensionless_form_where_the_starts_differ(mlp):
    """α of a quadratic is half the distance: literally the farther start wins, and dimensionless neither does."""
    far, near = bowl(start=2.0), bowl(start=1.0)
    assert ac.check_better_aligned(far, than=near, normalized=False).status == "pass"
    verdict = ac.check_better_aligned(far, than=near, rtol=1e-6)
    assert verdict.status == "fail"
    assert "in dimensionless form" in verdict.denial
    assert "in dimensionless form" not in ac.check_better_aligned(well(), than=well(start=1.8)).statement


@pytest.mark.parametrize("check", [ac.check_more_capable, ac.check_better_aligned])
def test_setups_of_different_size_or_objective_are_compared_in_dimensionless_form(mlp, check):
    wider = replace(mlp, model=lambda: nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 2)))
    for other in (wider, replace(mlp, objective=ac.brier), replace(mlp, mesa_objective=ac.gradient_l2)):
        assert "in dimensionless form" in check(mlp, than=other).statement
        assert "in dimensionless form" not in check(mlp, than=other, normalized=False).statement
    same = replace(mlp, optimizer=partial(torch.optim.SGD, lr=0.1))
    assert "in dimensionless form" not in check(mlp, than=same).statement


def test_setups_that_differ_in_their_seed_alone_are_two(mlp):
    """A and B of the post differ in their init: each is run under its own seed."""
    other = replace(mlp, seed=3)
    ahead, behind = sorted((mlp, other), key=lambda setup: ac.capability(ac.run(setup))[0])
    assert ac.check_more_capable(ahead, than=behind).status == "pass"
    assert ac.check_more_capable(behind, than=ahead).status == "fail"
    assert ac.check_more_capable(ahead, than=behind, seeds=[0]).status == "fail"


@pytest.mark.parametrize(("more", "apart"), [(1e-5, True), (1e-10, False)])
def test_two_that_differ_by_little_are_told_apart_by_their_digits_and_not_by_rounding(more, apart):
    a, b = bowl(start=1.0, steps=100), bowl(start=1.0 + more, steps=100)
    (line,) = [one for one in ac.check_more_capable(b, than=a).numbers if one.startswith("C_100(L)")]
    left, right = map(str.strip, line.removeprefix("C_100(L)").split("the other"))
    assert (float(left) < float(right)) == apart
    assert len(left) == len("-0.47869" if apart else "-0.4787")


def test_who_is_behind_in_both_is_said_to_be_both():
    """Twice the start of a bowl is four times C_B, twice C_M and twice α."""
    text = str(ac.check_more_capable(bowl(start=2.0), than=bowl(start=1.0)))
    assert "= Δlog|α| +0.6931 + Δlog|C_M| +0.6931: the one behind is both capability-limited and less aligned" in text
