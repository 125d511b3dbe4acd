"""The properties: planted violations that must be found, and null cases in which nothing may be found.

On a quadratic everything is known in closed form: L(0) ∝ θ(0)² and G(0) ∝ |θ(0)|, so that an init gain of 2ᵐ multiplies
C_B by 4ᵐ, and C_M and α by 2ᵐ.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import register_optimizer_step_pre_hook

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.realization import realize

EXACT = 1e-9
SGD = partial(torch.optim.SGD, lr=0.1)
PURSUED = ac.decayed_gradient_l1(0.0)
"""G = gradient_l1 under another name: whether it is the optimizer's own is then not looked into, which takes steps."""


def half_square(x):
    return 0.5 * x.square().sum()


def bowl(function=half_square, start=1.0, steps=40, **more):
    return ac.landscape(function, [start], **{"optimizer": SGD, "steps": steps, **more})


@pytest.fixture(scope="module")
def mlp():
    """Two classes that overlap a little: 40 examples, 4-6-2, trained for 40 steps."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.randn(40, 4, generator=random, dtype=torch.float64) + 1.5 * y[:, None]
    return ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)),
        data=(x, y),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.5),
        steps=40,
        dtype=torch.float64,
    )


@dataclass
class Steps:
    taken: int = 0


@pytest.fixture
def steps():
    """Count the steps that optimizers take, all of them."""
    count = Steps()

    def one_more(*_):
        count.taken += 1

    handle = register_optimizer_step_pre_hook(one_more)
    yield count
    handle.remove()


NOISE = pt.label_noise(max_rate=0.3)
GAIN = pt.init_gain(max_log2=1.0)
DOUBLED = pt.objective_mix(lambda outputs, targets: 2 * outputs)


def within(found, bound, resolution=0.01):
    """Return whether a magnitude is the bound, to the resolution from above."""
    return bound * (1 - EXACT) <= abs(found) <= bound / (1 - resolution) * (1 + EXACT)


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


# ---------------------------------------------------------------------------------- definition 3: each side its own δ


def capabilities(setup, trained, scored):
    return ac.capability(ac.run(setup, [IDENTITY, trained], base=[IDENTITY, scored]))


@pytest.mark.parametrize(
    ("keyword", "trained", "scored"),
    [("under", True, True), ("mesa_under", True, False), ("base_under", False, True)],
)
def test_a_verdict_says_what_was_trained_on_and_what_was_scored_on_and_measured_that(mlp, keyword, trained, scored):
    verdict = ac.check_capability_robust(mlp, **{keyword: NOISE}, rtol=0.2, side="worse", examples=15)
    delta = verdict.minimal.perturbation
    assert verdict.minimal.mesa == (delta if trained else IDENTITY)
    assert verdict.minimal.base == (delta if scored else IDENTITY)
    reference, value = capabilities(mlp, delta if trained else IDENTITY, delta if scored else IDENTITY)
    assert verdict.minimal.reference == pytest.approx(reference, rel=EXACT)
    assert verdict.minimal.value == pytest.approx(value, rel=EXACT)
    said = f"trained on L{'+δ' * trained}, scored on L{'+δ' * scored}"
    assert said in str(verdict)
    words = {"under": "", "mesa_under": " in training alone", "base_under": " in scoring alone"}[keyword]
    assert f"under label_noise(max_rate=0.3){words}, rtol=0.2, side='worse'" in verdict.statement
    passed = ac.check_capability_robust(mlp, **{keyword: NOISE}, rtol=100.0, examples=5)
    assert passed.status == "pass"
    assert said in str(passed)


def test_noise_in_the_labels_that_score_costs_more_than_noise_in_those_trained_on(mlp):
    """Scored under δ, the floor of L itself is higher; trained under δ, most of what was learnt is still right."""
    deltas = [Perturbation("label_noise", 0.1, 0.3, seed) for seed in range(6)]
    for delta in deltas:
        plain, trained = capabilities(mlp, delta, IDENTITY)
        scored = capabilities(mlp, IDENTITY, delta)[1]
        assert 0 < trained - plain < 0.5 * (scored - plain)
    plain, trained = capabilities(mlp, deltas[0], IDENTITY)
    both = capabilities(mlp, deltas[0], deltas[0])[1]
    rtol = float(((trained + both) / 2 - plain) / abs(plain))

    def status(side):
        return ac.check_capability_robust(mlp, **{side: st.just(deltas[0])}, rtol=rtol, examples=1).status

    assert [status(side) for side in ("mesa_under", "base_under", "under")] == ["pass", "fail", "fail"]


def test_scoring_alone_trains_once(steps):
    setup = replace_mesa(bowl())
    verdict = ac.check_alignment_robust(setup, base_under=DOUBLED, rtol=0.1, examples=20)
    assert (verdict.runs, steps.taken) == (1, setup.steps)
    assert within(verdict.minimal.perturbation.magnitude, 0.1)


def replace_mesa(setup):
    return replace(setup, mesa_objective=PURSUED)


def test_training_alone_leaves_the_score_in_its_unit():
    """2L is trained at twice the learning rate and scored on L: of C, no factor of 2 is seen."""
    verdict = ac.check_capability_robust(bowl(steps=200), mesa_under=DOUBLED, rtol=0.05, examples=10)
    assert verdict.status == "pass"
    assert ac.check_capability_robust(bowl(steps=200), under=DOUBLED, rtol=0.05, examples=10).status == "fail"


# ---------------------------------------------------------------------------------- what diverges, what is undefined


def test_a_baseline_that_diverged_leaves_it_open():
    """Beyond 2/λ."""
    setup = bowl(optimizer=partial(torch.optim.SGD, lr=2.5))
    for check in (ac.check_capability_robust, ac.check_alignment_robust):
        verdict = check(setup, under=GAIN, rtol=0.5, examples=10)
        assert verdict.status == "inconclusive"
        assert "the unperturbed run: diverged at step" in str(verdict)


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


# ----------------------------------------------------------------------------------------------------- strong alignment


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
    assert ac.check_strongly_aligned(bowl(), worst=0.5, within=1).status == "pass"


def test_a_run_that_diverges_is_not_strongly_aligned():
    verdict = ac.check_strongly_aligned(bowl(optimizer=partial(torch.optim.SGD, lr=2.5)), worst=math.inf, within=1)
    assert verdict.status == "fail"
    assert "diverged at step" in str(verdict)


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
        assert ac.check_more_capable(c, than=a, of=of).status == "fail"


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


# ------------------------------------------------------------------------------------------------------------ bad input


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
    with pytest.raises(error) as raised:
        call(replace(mlp, **changes))
    assert message in str(raised.value)
    assert steps.taken == 0


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
        "`seeds` must differ: a run that is repeated is no further evidence; got [3, 1, 3]",
    ),
    ({"seeds": 2.5}, TypeError, "`seeds` must be an int, or a sequence of seeds; got float 2.5"),
    ({"seeds": "12"}, TypeError, "`seeds` must be an int, or a sequence of seeds; got str '12'"),
    ({"backend": "lane"}, ValueError, "`backend` must be one of auto, lanes, loop; got 'lane'"),
    ({"device": "gpu"}, ValueError, "`device` must be 'auto' or a torch device; got 'gpu'"),
    ({"rtoll": 0.1}, TypeError, "unexpected keyword argument 'rtoll'"),
]


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
    with pytest.raises(error) as raised:
        call(mlp, **changes)
    assert message in str(raised.value)
    assert steps.taken == 0


@every()
@pytest.mark.parametrize("what", [nn.Linear(4, 2), None, "setup"])
def test_what_is_no_setup_is_refused(call, what):
    with pytest.raises(TypeError, match="expected a TrainingSetup; got"):
        call(what)


PERTURBED = ("capability_robust", "alignment_robust", "inner_aligned")
GENERALIZED = ("capability_generalizes", "alignment_generalizes")
DRAWN = Perturbation("label_noise", 0.1, 0.3, 0)


@every(*PERTURBED)
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"under": None}, TypeError, "expected exactly one of under=, mesa_under=, base_under="),
        ({"mesa_under": NOISE}, TypeError, "got under, mesa_under"),
        ({"delta": DRAWN}, TypeError, "got under, delta"),
        ({"under": None, "delta": NOISE}, TypeError, "delta= expects one Perturbation; got"),
        ({"under": DRAWN}, TypeError, "A single drawn perturbation is passed as delta="),
        ({"under": pt.label_noise}, TypeError, "expected a strategy of perturbations"),
        ({"under": st.floats(0, 1)}, TypeError, "expected a strategy of perturbations; floats"),
        ({"under": None, "base_under": GAIN}, ValueError, "is of kind init; expected"),
        ({"under": None, "base_under": pt.compose(NOISE, GAIN)}, ValueError, "is of kind init; expected"),
        ({"rtol": None}, ValueError, "say how close counts as ≈: pass rtol="),
        ({"under": pt.redraw(1.0, pool=(torch.zeros(3, 9),) * 2)}, ValueError, "`pool` must be shaped as `data` is"),
    ],
)
def test_perturbations_that_make_no_sense_are_one_clear_error_before_anything_is_trained(
    mlp, call, steps, changes, error, message
):
    with pytest.raises(error) as raised:
        call(mlp, **changes)
    assert message in str(raised.value)
    assert steps.taken == 0


@every(*GENERALIZED)
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"to": NOISE}, ValueError, "is of kind dataset; expected custom or objective here"),
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
    with pytest.raises(error) as raised:
        call(mlp, **{"examples": 20} | changes)
    assert message in str(raised.value)
    assert steps.taken == 0


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
    with pytest.raises(ValueError) as raised:
        SOUND[name](mlp, **changes)
    assert message in str(raised.value)
    assert steps.taken == 0


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
