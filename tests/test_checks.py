"""The properties: planted violations that must be found, and null cases in which nothing may be found.

On a quadratic everything is known in closed form: L(0) ∝ θ(0)² and G(0) ∝ |θ(0)|, so that an init gain of 2ᵐ multiplies
C_B by 4ᵐ, and C_M and α by 2ᵐ.
"""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from cases.checks import EXACT, GAIN, NOISE, bowl, within
from hypothesis import given, settings
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.setups.realization import realize

# ------------------------------------------------------------------------------ definition 3: boundaries in closed form


CHECKS = [
    pytest.param(ac.check_capability_robust, {}, 2, -1, id="C_B"),
    pytest.param(ac.check_capability_robust, {"of": "mesa"}, 1, -1, id="C_M"),
    pytest.param(ac.check_alignment_robust, {}, 1, 1, id="alpha"),
]


@pytest.mark.parametrize(("check", "more", "power", "sign"), CHECKS)
@pytest.mark.parametrize("rtol", [0.05, 0.3])
def test_the_smallest_init_gain_that_matters_is_the_one_of_the_closed_form(check, more, power, sign, rtol):
    """(2ᵐ)ᵖ = 1 ± r at m = log₂(1 ± r)/p: upwards first, and downwards as another kind of failure."""
    verdict = check(bowl(), under=GAIN, rtol=rtol, examples=30, **more)
    up, down = math.log2(1 + rtol) / power, -math.log2(1 - rtol) / power
    assert verdict.status == "fail"
    least = verdict.minimal
    assert least.perturbation.magnitude > 0
    assert within(least.perturbation.magnitude, up)
    (other,) = verdict.others
    assert other.perturbation.magnitude < 0
    assert within(other.perturbation.magnitude, down)
    assert up * 0.98 <= verdict.holds_up_to < up
    gain = 2 ** (power * least.perturbation.magnitude)
    assert least.value == pytest.approx(gain * least.reference, rel=EXACT)
    assert math.copysign(1, least.reference) == sign
    assert least.deviation == pytest.approx(least.value - least.reference, rel=EXACT)
    assert least.allowed == pytest.approx(rtol * abs(least.reference), rel=EXACT)
    assert verdict.worst.perturbation.magnitude == pytest.approx(1.0)


@pytest.mark.parametrize(("check", "more", "power", "sign"), CHECKS)
def test_one_sided_only_the_side_that_is_worse_counts(check, more, power, sign):
    """A smaller start leaves less to gain: C is less negative, α smaller."""
    verdict = check(bowl(), under=GAIN, rtol=0.3, side="worse", examples=30, **more)
    assert verdict.minimal.perturbation.magnitude < 0
    assert within(verdict.minimal.perturbation.magnitude, -math.log2(0.7) / power)
    assert verdict.others == ()
    assert "side='worse'" in str(verdict)
    upwards = GAIN.filter(lambda delta: delta.magnitude >= 0)
    assert check(bowl(), under=upwards, rtol=0.3, side="worse", examples=30, **more).status == "pass"


@pytest.mark.parametrize("resolution", [0.1, 0.001])
def test_the_boundary_is_as_sharp_as_asked_for(resolution):
    verdict = ac.check_capability_robust(bowl(steps=5), under=GAIN, rtol=0.2, resolution=resolution, examples=20)
    assert within(verdict.minimal.perturbation.magnitude, math.log2(1.2) / 2, resolution)


def test_an_absolute_tolerance_has_its_own_boundary():
    """|C|·(4ᵐ − 1) = atol."""
    size = -ac.capability(ac.run(bowl()))[0]
    verdict = ac.check_capability_robust(bowl(), under=GAIN, atol=0.1, examples=20)
    assert within(verdict.minimal.perturbation.magnitude, math.log2(1 + 0.1 / size) / 2)
    assert "atol=0.1" in verdict.statement


@pytest.mark.parametrize(("check", "more", "power", "sign"), CHECKS)
def test_the_dimensionless_forms_do_not_see_the_scale_of_a_quadratic(check, more, power, sign):
    verdict = check(bowl(), under=GAIN, rtol=1e-6, normalized=True, examples=20, **more)
    assert verdict.status == "pass"
    assert verdict.holds_up_to == 1.0
    assert "dimensionless" in verdict.statement


@pytest.mark.parametrize("check", [ac.check_capability_robust, ac.check_alignment_robust])
@pytest.mark.parametrize(
    ("strategy", "rtol"),
    [
        (pt.init_seed(), 0.0),
        (pt.init_gain(max_log2=math.log2(1.05) / 2.01), 0.05),
        (st.just(Perturbation("init_gain", 0.0, 1.0, 0)), 0.0),
        (pt.compose(pt.init_seed(), pt.init_gain(max_log2=0.01)), 0.05),
    ],
    ids=["a start that no seed moves", "within the tolerance", "nothing", "composed"],
)
def test_where_nothing_is_wrong_nothing_is_found(check, strategy, rtol):
    verdict = check(bowl(), under=strategy, rtol=rtol, examples=20)
    assert verdict.status == "pass"
    assert (verdict.minimal, verdict.worst, verdict.others, verdict.curve) == (None, None, (), ())


def test_invariances_of_a_real_network_are_no_violations(mlp):
    """Leaving out some of many equal examples, and swapping equal labels, changes nothing but rounding."""
    x, y = mlp.data
    same = replace(mlp, data=(x[:1].repeat(20, 1), y[:1].repeat(20)))
    for strategy in (pt.subsample(max_fraction=0.9), pt.label_permutation(max_fraction=1.0)):
        assert ac.check_capability_robust(same, under=strategy, rtol=1e-9, examples=10).status == "pass"
        assert ac.check_alignment_robust(same, under=strategy, rtol=1e-9, examples=10).status == "pass"


def test_a_single_drawn_perturbation_is_judged_as_it_is_and_nothing_else():
    delta = Perturbation("init_gain", 0.5, 1.0, 0)
    verdict = ac.check_capability_robust(bowl(), delta=delta, rtol=0.5)
    assert verdict.status == "fail"
    assert verdict.minimal.perturbation == verdict.worst.perturbation == delta
    assert "under init_gain(log2=0.5)" in verdict.statement
    assert (verdict.searched, verdict.others) == (1, ())
    assert ac.check_capability_robust(bowl(), delta=delta, rtol=1.01).status == "pass"


def test_no_perturbation_is_judged_that_the_strategy_does_not_draw():
    """2ᵐ is off by a half from m = 0.29 on, and the strategy stays below that; or it stays above, and starts there."""
    below, above = (GAIN.filter(keep) for keep in (lambda d: abs(d.magnitude) < 0.25, lambda d: d.magnitude > 0.5))
    assert ac.check_capability_robust(bowl(), under=below, rtol=0.5, examples=30).status == "pass"
    verdict = ac.check_capability_robust(bowl(), under=above, rtol=0.5, examples=30)
    assert 0.5 < verdict.minimal.perturbation.magnitude < 0.55
    assert [point.magnitude for point in verdict.curve if 0 < point.magnitude <= 0.5] == []
    only = Perturbation("init_gain", 0.75, 1.0, 0)
    verdict = ac.check_capability_robust(bowl(), under=st.just(only), rtol=0.5, examples=30)
    assert verdict.minimal.perturbation == verdict.worst.perturbation == only


@settings(max_examples=5, deadline=None)
@given(delta=GAIN, rtol=st.floats(0.05, 0.5))
def test_under_given_one_drawn_perturbation_is_judged_by_its_closed_form(delta, rtol):
    verdict = ac.check_capability_robust(bowl(steps=5), delta=delta, rtol=rtol)
    assert verdict.status == ("pass" if abs(4**delta.magnitude - 1) <= rtol else "fail")
    assert verdict.searched == 1


def test_the_same_arguments_find_the_same(mlp):
    def found():
        return ac.check_capability_robust(mlp, under=NOISE, rtol=0.2, examples=15)

    a, b = found(), found()
    assert (a.minimal, a.worst, a.others, a.curve) == (b.minimal, b.worst, b.others, b.curve)
    assert (a.runs, a.searched, a.holds_up_to) == (b.runs, b.searched, b.holds_up_to)


def test_what_is_reported_is_what_a_run_of_it_measures(mlp):
    verdict = ac.check_capability_robust(mlp, under=NOISE, rtol=0.2, examples=15)
    least = verdict.minimal
    reference, value = ac.capability(ac.run(mlp, [IDENTITY, least.perturbation]))
    assert least.reference == pytest.approx(reference, rel=EXACT)
    assert least.value == pytest.approx(value, rel=EXACT)
    assert abs(value - reference) > 0.2 * abs(reference)
    noisy = least.perturbation.applied(realize(mlp, 0)).data[1]
    assert least.achieved == pytest.approx(float((noisy != mlp.data[1]).double().mean()))
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["status"] == "fail"


def test_several_seeds_are_judged_together(mlp):
    verdict = ac.check_capability_robust(mlp, under=NOISE, rtol=0.2, examples=10, seeds=3)
    least = verdict.minimal
    assert least.seeds == (3, 4, 5), "confirmed by seeds that took no part in finding it"
    assert least.p_value is not None
    assert least.p_value <= 0.05
    trajectory = ac.run(mlp, [IDENTITY, least.perturbation], seeds=least.seeds)
    plain, noisy = ac.capability(trajectory).reshape(2, 3).mean(1)
    assert least.reference == pytest.approx(plain, rel=EXACT)
    assert least.value == pytest.approx(noisy, rel=EXACT)


def test_seeds_that_disagree_leave_it_open(mlp):
    """Two seeds of which one gets better and one worse under the same δ: an interval as wide as that tells nothing."""
    deltas = [Perturbation("init_seed", 1.0, 1.0, seed) for seed in range(40)]
    base = ac.capability(ac.run(mlp, [IDENTITY, *deltas], seeds=[0, 1])).reshape(-1, 2)
    change = (base[1:] - base[0]) / base[0]
    mixed = deltas[int(np.argmin(change[:, 0] * change[:, 1]))]
    rtol = 0.9 * np.abs(change[deltas.index(mixed)]).min()
    verdict = ac.check_capability_robust(mlp, delta=mixed, rtol=float(rtol), seeds=[0, 1], examples=1)
    assert verdict.status == "inconclusive"
    assert "its interval straddles the tolerance" in str(verdict)


# ---------------------------------------------------------------------------------- what diverges, what is undefined


def test_a_baseline_that_diverged_leaves_it_open():
    """Beyond 2/λ."""
    setup = bowl(optimizer=partial(torch.optim.SGD, lr=2.5))
    for check in (ac.check_capability_robust, ac.check_alignment_robust):
        verdict = check(setup, under=GAIN, rtol=0.5, examples=10)
        assert verdict.status == "inconclusive"
        assert "nothing to compare with; the unperturbed run: diverged at step" in str(verdict)
        assert "identity" not in str(verdict)


def test_where_the_baseline_has_no_number_no_more_is_trained_than_it_takes_to_see_that():
    """Nothing can be judged beside it, under any δ: on a CPU, it is seen beside a limit or two and the first draws."""
    setup = bowl(optimizer=partial(torch.optim.SGD, lr=2.5))
    verdict = ac.check_capability_robust(setup, under=GAIN, rtol=0.5, examples=100, device="cpu")
    assert verdict.status == "inconclusive"
    assert verdict.runs <= 1 + 2 + 2  # 0, both limits, two draws


def test_a_perturbation_that_diverges_where_the_baseline_does_not_is_a_failure():
    """On ¼θ⁴ descent diverges iff ηθ(0)² > 2: the boundary is m = log₂(√(2/η)/θ(0)), whatever the tolerance."""

    def quartic(x):
        return 0.25 * x.pow(4).sum()

    verdict = ac.check_capability_robust(
        bowl(quartic, steps=150), under=pt.init_gain(max_log2=3), rtol=1e6, examples=20
    )
    bound = math.log2(math.sqrt(2 / 0.1))
    assert verdict.status == "fail"
    assert within(verdict.minimal.perturbation.magnitude, bound)
    assert verdict.minimal.off_by == "diverged"
    assert verdict.minimal.deviation == math.inf
    assert "diverged at step" in str(verdict)
    assert verdict.to_dict()["minimal"]["deviation"] == "inf"


def test_an_alignment_that_is_undefined_has_a_name_and_no_verdict():
    """Descent on |x|: G ≡ 1, so that C_M = 0."""
    setup = bowl(lambda x: x.abs().sum(), start=0.95, steps=30)
    verdict = ac.check_alignment_robust(setup, under=pt.init_gain(max_log2=0.1), rtol=1.0, examples=10)
    assert verdict.status == "inconclusive"
    assert "the unperturbed run: α is undefined: C_M is not clear of 0" in str(verdict)
    assert ac.check_capability_robust(setup, under=pt.init_gain(max_log2=0.1), rtol=1.0, examples=10).status == "pass"


def test_an_alignment_that_becomes_undefined_is_not_judged_by_a_number():
    """On a Huber loss G is constant on the slopes: pushed there, a short run has C_M = 0."""

    def huber(x):
        return torch.nn.functional.huber_loss(x, torch.zeros_like(x), reduction="sum")

    setup = bowl(huber, start=0.9, steps=5)
    pushed = Perturbation("init_gain", 2.0, 2.0, 0)
    verdict = ac.check_alignment_robust(setup, delta=pushed, rtol=1e9)
    assert verdict.status == "inconclusive"
    assert "not judged under init_gain(log2=2): α is undefined" in str(verdict)


# ------------------------------------------------------------------------------------------------------ what G is worth


def test_a_verdict_says_where_g_is_not_the_optimizers_own_objective():
    said = "gradient_l1 is not this optimizer's own objective (G); ac.step_l1 is, for any optimizer"
    adam = partial(torch.optim.Adam, lr=0.1)
    for verdict in (
        ac.check_capability_robust(bowl(optimizer=adam), under=GAIN, rtol=9.0, examples=5),
        ac.check_capability_robust(bowl(optimizer=adam), under=GAIN, rtol=0.01, examples=5),
        ac.check_more_capable(bowl(), than=bowl(optimizer=adam)),
    ):
        assert str(verdict).count(said) == 1
    for setup in (bowl(), bowl(optimizer=adam, mesa_objective=ac.step_l1)):
        assert "own objective" not in str(ac.check_capability_robust(setup, under=GAIN, rtol=9.0, examples=5))


# ----------------------------------------------------------------------------------------- what came nearest to failing


def test_a_pass_names_what_came_nearest_to_failing_and_a_failure_does_not(blobs):
    passed = ac.check_capability_robust(blobs, under=pt.init_gain(max_log2=0.5), rtol=5.0, examples=10)
    assert passed.status == "pass"
    assert abs(passed.nearest.perturbation.magnitude) <= 0.5
    assert abs(passed.nearest.deviation) <= passed.nearest.allowed
    assert "nearest to failing" in str(passed)
    assert passed.to_dict()["nearest"]["repr"] == repr(passed.nearest.perturbation)
    failed = ac.check_capability_robust(blobs, under=pt.init_gain(max_log2=0.5), rtol=1e-3, examples=10)
    assert (failed.status, failed.nearest) == ("fail", None)
    assert "nearest to failing" not in str(failed)


def test_one_given_perturbation_is_judged_whatever_else_is_tried():
    far, near = (Perturbation("init_gain", magnitude, 1.0, 0) for magnitude in (1.0, 0.001))
    verdict = ac.check_capability_robust(bowl(), delta=far, first=[near], rtol=0.1)
    assert (verdict.status, verdict.minimal.perturbation) == ("fail", far)
    assert verdict.searched == 2
    assert ac.check_capability_robust(bowl(), delta=near, first=[near], rtol=0.1).status == "pass"


def test_one_that_holds_is_not_said_to_fail_where_another_that_was_tried_beside_it_does():
    far, near = (Perturbation("init_gain", magnitude, 1.0, 0) for magnitude in (1.0, 0.001))
    verdict = ac.check_capability_robust(bowl(), delta=near, first=[far], rtol=0.1)
    assert (verdict.status, verdict.minimal.perturbation) == ("fail", far)
    assert f"not robust under each of {near.described()}, {far.described()}, rtol=0.1" in verdict.denial
    alone = ac.check_capability_robust(bowl(), delta=near, first=[near], rtol=0.1)
    assert f"robust under {near.described()}, rtol=0.1" in alone.statement
    many = [far.at(magnitude / 10) for magnitude in range(1, 10)]
    assert ", 7 more, " in ac.check_capability_robust(bowl(), delta=near, first=many, rtol=0.1).denial
