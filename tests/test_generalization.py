"""Definition 4 and inner alignment: what carries over to another objective, and to variations of the dataset."""

from functools import partial

import pytest
import torch
from cases.checks import DOUBLED, EXACT, NOISE, bowl, half_square, replace_mesa, within

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY

# --------------------------------------------------------------------------------------------------------- definition 4


def test_alignment_generalizes_without_any_retraining(steps):
    """L′ is evaluated along the trajectory of L: one training run, whatever is asked of it."""
    setup = replace_mesa(bowl())
    verdict = ac.check_alignment_generalizes(setup, to=DOUBLED, rtol=0.1, normalized=False, examples=30)
    assert verdict.status == "fail"
    assert (verdict.runs, steps.taken) == (1, setup.steps)
    assert "trained on L, scored on L+δ" in str(verdict)


def test_twice_the_objective_is_off_by_a_hundred_per_cent_literally_and_by_nothing_in_dimensionless_form():
    literal = ac.check_alignment_generalizes(bowl(), to=DOUBLED, rtol=0.1, normalized=False, examples=20)
    assert within(literal.minimal.perturbation.magnitude, 0.1)
    assert literal.worst.perturbation.magnitude == 1.0
    assert literal.worst.value == pytest.approx(2 * literal.worst.reference, rel=EXACT)
    assert literal.worst.off_by == "off by 100 %"
    dimensionless = ac.check_alignment_generalizes(bowl(), to=DOUBLED, rtol=1e-9, examples=20)
    assert dimensionless.status == "pass"
    assert dimensionless.statement.startswith("dimensionless alignment generalizes to objective_mix")
    for verdict in (literal, dimensionless):
        assert "α_40(L, G)" in str(verdict)
        assert "α̃_40(L, G)" in str(verdict)


def test_alignment_under_another_objective_is_that_objective_along_the_same_weights(mlp):
    to = pt.objective_mix(ac.brier)
    verdict = ac.check_alignment_generalizes(mlp, to=to, rtol=0.02, examples=15, normalized=False)
    delta = verdict.minimal.perturbation
    trajectory = ac.run(mlp, [IDENTITY, IDENTITY], base=[IDENTITY, delta], backend="loop")
    alpha = ac.alignment_factor(trajectory)
    assert verdict.minimal.reference == pytest.approx(alpha[0], rel=EXACT)
    assert verdict.minimal.value == pytest.approx(alpha[1], rel=EXACT)
    assert (verdict.minimal.mesa, verdict.minimal.base) == (IDENTITY, delta)


def test_capability_generalizes_is_judged_on_retrained_runs(steps):
    """Retrained on (1 + k)L, a quadratic is descended at ρ = 1 − ηλ(1 + k): C̃ of the closed form."""
    setup = replace_mesa(bowl(steps=10))

    def closed(k):
        ratio = (1 - 0.1 * (1 + k)) ** 2
        return ratio * (1 - ratio**10) / (1 - ratio) / 10 - 1

    verdict = ac.check_capability_generalizes(setup, to=DOUBLED, rtol=0.1, examples=20)
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        k = (low + high) / 2
        low, high = (low, k) if abs(closed(k) / closed(0) - 1) > 0.1 else (k, high)
    assert within(verdict.minimal.perturbation.magnitude, high)
    assert verdict.minimal.reference == pytest.approx(closed(0), rel=EXACT)
    assert verdict.minimal.value == pytest.approx(closed(verdict.minimal.perturbation.magnitude), rel=EXACT)
    assert verdict.statement.startswith("dimensionless capability generalizes to")
    assert verdict.runs > 20
    assert steps.taken > setup.steps
    assert "trained on L+δ, scored on L+δ" in str(verdict)


def test_capability_generalizes_to_what_is_descended_as_fast():
    """The same objective under another name."""
    to = pt.objective_mix(lambda outputs, targets: outputs)
    assert ac.check_capability_generalizes(bowl(), to=to, rtol=1e-9, examples=10).status == "pass"


def test_the_mesa_objectives_capability_generalizes_too():
    """Literally, G of 2L is 2G: off by a hundred per cent and more."""
    verdict = ac.check_capability_generalizes(
        bowl(steps=150), to=DOUBLED, of="mesa", normalized=False, rtol=0.5, examples=10
    )
    assert verdict.status == "fail"
    assert "mesa-capability" in verdict.statement
    assert (
        ac.check_capability_generalizes(bowl(steps=150), to=DOUBLED, of="mesa", rtol=0.1, examples=10).status == "pass"
    )


# ------------------------------------------------------------------------------------------------------ inner alignment


def test_inner_alignment_is_a_floor_and_stability(mlp):
    alpha = ac.alignment_factor(ac.run(mlp))[0]

    def judged(floor, rtol):
        return ac.check_inner_aligned(mlp, under=NOISE, floor=floor, rtol=rtol, examples=15)

    assert judged(0.0, 2.0).status == "pass"
    unstable = judged(0.0, 0.1)
    assert unstable.status == "fail"
    assert abs(unstable.minimal.value - alpha) > 0.1 * alpha
    low = judged(0.9 * alpha, 2.0)
    assert low.status == "fail"
    assert low.minimal.value < 0.9 * alpha
    assert f"α is below the floor, {0.9 * alpha:g}" in str(low)
    nowhere = judged(1.1 * alpha, 2.0)
    assert nowhere.minimal.perturbation == IDENTITY
    assert nowhere.minimal.deviation == pytest.approx(-0.1 * alpha), "of the floor, which the unperturbed run misses"
    assert "allowed 0" not in str(nowhere)
    assert f"with α ≥ {1.1 * alpha:g} under label_noise(max_rate=0.3), rtol=2" in nowhere.denial


def test_an_alignment_that_is_high_because_both_got_worse_does_not_count():
    """Ascent: α is positive all the same."""

    def offset(run, magnitude, generator):
        return run

    setup = bowl(optimizer=partial(torch.optim.SGD, lr=0.01, maximize=True), start=1.0)
    strategy = pt.custom("nothing", offset, 1.0)
    assert ac.alignment_factor(ac.run(setup))[0] > 0.1
    verdict = ac.check_inner_aligned(setup, under=strategy, floor=0.1, rtol=1.0, examples=5)
    assert verdict.status == "fail"
    assert "C_B and C_M are not both negative" in str(verdict)
    descent = bowl()
    assert ac.check_inner_aligned(descent, under=strategy, floor=0.1, rtol=1.0, examples=5).status == "pass"


def flat(x):
    return 0.0 * x.sum()


@pytest.mark.parametrize(
    ("function", "lr", "said"), [(half_square, 10.0, "diverged"), (flat, 0.1, "α is undefined: C_M is not clear of 0")]
)
def test_an_unperturbed_run_without_an_alignment_leaves_open_whether_it_is_high(function, lr, said):
    setup = bowl(function, optimizer=partial(torch.optim.SGD, lr=lr), steps=400)
    nothing = pt.custom("nothing", lambda run, magnitude, generator: run, 1.0)
    verdict = ac.check_inner_aligned(setup, under=nothing, floor=0.0, rtol=5.0, examples=2)
    assert verdict.status == "inconclusive"
    assert said in str(verdict)
