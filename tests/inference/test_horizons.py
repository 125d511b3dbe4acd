"""Finite or limit, said aloud: what is judged at either horizon, and what is left open."""

import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.inference.horizons import LimitReading
from alignment_checks.inference.judgement import at_least
from alignment_checks.inference.quantities import Quantity
from alignment_checks.inference.readings import Ratio, Reading, readings
from alignment_checks.limits import Estimate, Limits, Regime
from alignment_checks.perturbations import Perturbation
from alignment_checks.properties.judging import improving
from alignment_checks.properties.memory import Memory

SGD = torch.optim.SGD
GAIN = pt.init_gain(max_log2=1)


def bowl(lr=0.1, steps=300, **more):
    return ac.landscape(lambda x: 0.5 * x.square().sum(), [1.0], optimizer=partial(SGD, lr=lr), steps=steps, **more)


def noisy(steps=1200, **more):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(32, 2, generator=random)
    y = x.sum(1, keepdim=True) + 0.5 * torch.randn(32, 1, generator=random)
    return ac.TrainingSetup(
        lambda: nn.Linear(2, 1), (x, y), mse_loss, partial(SGD, lr=0.1), steps, batch_size=4, **more
    )


def test_at_the_limit_it_is_the_limit_that_is_judged():
    """C_20 of a run that creeps says little; its limit is −½, and that of a larger start 2·2^{2m}/4 times as much."""
    creeping = bowl(lr=0.02, steps=400)
    delta = Perturbation("init_gain", 0.5, 1.0, 0)
    verdict = ac.check_capability_robust(creeping, delta=delta, rtol=0.5, horizon="limit")
    assert verdict.status == "fail"
    assert verdict.minimal.reference == pytest.approx(-0.5, abs=1e-3)
    assert verdict.minimal.value == pytest.approx(-1.0, abs=1e-3)
    assert "C_∞(L) = -0.5 [" in str(verdict)
    finite = ac.check_capability_robust(creeping, delta=delta, rtol=0.5)
    assert "C_400(L) = " in str(finite)
    assert finite.minimal.reference > -0.5


def test_finite_and_limit_may_disagree_and_each_says_what_it_judged():
    """A slower rate changes C_T, and not where the run goes."""
    slower = pt.custom("slower", _slower, max_magnitude=1.0)
    setup = bowl(lr=0.2, steps=300)
    finite, limit = (
        ac.check_capability_robust(setup, under=slower, rtol=0.01, examples=5, horizon=horizon)
        for horizon in ("finite", "limit")
    )
    assert (finite.status, limit.status) == ("fail", "pass")


def _slower(realization, magnitude, generator):
    return replace(realization, optimizer=partial(SGD, lr=0.2 / (1 + 2 * magnitude)))


@pytest.mark.parametrize("check", [ac.check_capability_robust, ac.check_alignment_robust])
def test_where_no_limit_is_in_sight_the_verdict_is_inconclusive_and_names_the_regime(check):
    verdict = check(bowl(lr=0.001, steps=50), under=GAIN, rtol=0.1, examples=5, horizon="limit")
    assert verdict.status == "inconclusive"
    assert "drifting" in str(verdict)


def test_a_divergence_under_a_perturbation_fails_at_the_limit_too():
    wild = pt.custom("wild", lambda r, m, g: replace(r, optimizer=partial(SGD, lr=3.0)), max_magnitude=1.0)
    assert ac.check_capability_robust(bowl(), under=wild, rtol=0.1, examples=3, horizon="limit").status == "fail"


def test_seeds_are_combined_at_the_limit():
    """Minibatch noise about a mean: stationary under every seed, and shifted by the penalty."""
    delta = Perturbation("l2_penalty", 2.0, 5.0, 0)
    setup = replace(noisy(steps=700), model=_zeros)
    verdict = ac.check_capability_robust(setup, delta=delta, rtol=0.05, seeds=3, horizon="limit")
    assert verdict.status == "fail"
    assert verdict.minimal.seeds == (3, 4, 5)
    assert verdict.p_value <= 0.05
    assert "C_∞(L)" in str(verdict)


def _zeros():
    model = nn.Linear(2, 1)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def test_the_end_of_strong_alignment_is_judged_at_the_limit_too():
    setup = bowl(lr=0.05, steps=60)
    assert ac.check_strongly_aligned(setup, worst=0.6, within=60, horizon="limit").status == "pass"
    rising = ac.check_strongly_aligned(bowl(lr=0.0005, steps=60), worst=0.6, within=60, horizon="limit")
    assert rising.status == "inconclusive"
    assert "L ends anywhere (drifting: its changes do not shrink" in str(rising)
    assert "inf" not in str(rising)


def test_setups_are_compared_at_the_limit():
    """Twice as slow: less capable at T, and no less in the limit."""
    fast, slow = bowl(lr=0.2), bowl(lr=0.1)
    assert ac.check_more_capable(fast, than=slow).status == "pass"
    assert ac.check_more_capable(fast, than=slow, atol=1e-6, horizon="limit").status != "pass"


def edgy(lr):
    """Return descent on a cubic at a rate that decides between chaos and a cycle; it depends on no seed."""
    return ac.landscape(
        lambda x: (4 * x**3 / 3 - 1.5 * x**2 + 1).sum(), [0.123], optimizer=partial(SGD, lr=lr), steps=400
    )


def test_what_chance_leaves_open_of_chaotic_limits_more_steps_would_tell_and_no_seeds():
    """On a cycle at 0.95 and chaotic at 0.97: one run says it all of each, and other seeds would be the same runs."""
    cycle, chaos = edgy(0.95), edgy(0.97)
    found = ac.check_more_capable(cycle, than=chaos, horizon="limit")
    assert found.status == "fail"
    strict = ac.check_more_capable(cycle, than=chaos, horizon="limit", level=found.p_value / 2)
    assert strict.status == "inconclusive"
    assert "more steps would tell" in str(strict)
    assert "seeds" not in str(strict)


@pytest.mark.parametrize(("name", "value"), [("horizon", "infinite"), ("level", 0), ("level", 0.9), ("level", True)])
def test_what_is_no_horizon_or_level_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        ac.check_capability_robust(bowl(), under=GAIN, rtol=0.1, **{name: value})


# ------------------------------------------------------------------------------------------------------------- seeds


def test_training_that_does_not_depend_on_the_seed_takes_one_and_carries_no_p_value():
    verdict = ac.check_capability_robust(bowl(steps=20), under=GAIN, rtol=0.1, examples=5, seeds=5)
    assert verdict.status == "fail"
    assert verdict.minimal.seeds == (0,)
    assert verdict.minimal.p_value is None
    assert "one run is enough: 5 seeds were asked for" in str(verdict)


def test_minibatches_depend_on_the_seed_though_the_init_does_not():
    fixed = noisy(steps=20)
    init = nn.Linear(2, 1).state_dict()

    def same():
        model = nn.Linear(2, 1)
        model.load_state_dict(init)
        return model

    fixed = replace(fixed, model=same)
    verdict = ac.check_capability_robust(fixed, under=GAIN, rtol=100, examples=2, seeds=4)
    assert "one run is enough" not in str(verdict)
    whole = replace(fixed, batch_size=None)
    verdict = ac.check_capability_robust(whole, under=GAIN, rtol=100, examples=2, seeds=4)
    assert "one run is enough" in str(verdict)


def test_alignment_is_undefined_where_the_mesa_capability_is_lost_in_its_scatter():
    """C_M of −4 and of 3: their sum is no 0, and no more than chance."""
    base, mesa = np.array([[4.0, 0.0], [4.0, 0.0]]), np.array([[8.0, 4.0], [8.0, 11.0]])
    two = ac.run(noisy(steps=1), seeds=[0, 1])
    (reading,) = readings(replace(two, base=base, mesa=mesa), 2)
    assert "C_M is not clear of 0 at its scatter over 2 seeds" in Quantity("alignment", "base", False, 1).missing(
        reading
    )
    (steady,) = readings(replace(two, base=base, mesa=np.array([[8.0, 4.0], [8.0, 4.1]])), 2)
    assert Quantity("alignment", "base", False, 1).missing(steady) == ""


def test_it_is_said_how_many_seeds_may_bring_the_mesa_capability_clear_of_its_scatter():
    """As many as are named, scattered alike, do; with half as many it is still lost."""
    mesa = -1 + 3 * np.array([-1.5, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 1.5])

    def missing(seeds):
        values = np.resize(mesa, seeds)
        return Quantity("alignment", "base", False, 1).missing(
            Reading(2 * values + 1, values, *[np.ones(seeds)] * 7, True, True, "finished", None)
        )

    named = int(re.search(r"About (\d+) seeds may tell", missing(8))[1])
    whole = 8 * (named // 8)
    assert missing(whole + 8) == ""
    assert "seeds may tell" in missing(max(8, whole // 16 * 8))


def test_a_limit_of_one_random_run_fails_where_it_is_clear_of_all_that_were_searched():
    """C_∞ of minibatch training is a mean with a standard error, and the worst of many is picked."""
    hot = pt.learning_rate(max_log2=2)
    first = [Perturbation("learning_rate", size, 2.0, 0) for size in (2.0, 1.9)]
    asked = {"under": hot, "first": first, "examples": 0, "rtol": 0.03, "backend": "loop", "memory": Memory()}
    at_limit, finite, strict = (
        ac.check_capability_robust(noisy(steps=700), **asked, **how)
        for how in ({"horizon": "limit"}, {}, {"horizon": "limit", "level": 1e-3})
    )
    assert at_limit.status == "fail"
    assert 1e-3 < at_limit.p_value <= 0.05
    assert "of limits estimated from one run each, corrected for the number searched" in str(at_limit)
    assert finite.p_value is None
    assert strict.status == "inconclusive"
    assert "it may be chance" in str(strict)
    assert "picked among 2, more steps would tell" in str(strict)


def test_chance_has_two_capabilities_to_choose_from_where_both_have_to_be_negative():
    base, mesa = np.array([[4.0, 0.0], [4.0, 0.1]]), np.array([[4.0, 8.0], [4.0, 8.1]])
    two = ac.run(noisy(steps=1), seeds=[0, 1])
    (reading,) = readings(replace(two, base=base, mesa=mesa), 2)
    worse = improving(reading)
    assert worse.status == "fail"
    assert worse.p_value == pytest.approx(2 * at_least(Ratio(np.array([-4.0, -4.1]), np.ones(2)), 0.0).p_value)


def limited(base, mesa, alpha):
    """Return the reading of one run whose C_B, C_M and α have these intervals as their limits."""
    one, none = np.ones(1), (math.nan, -math.inf, math.inf)
    found = (none if ends is None else ends for ends in (base, mesa, alpha))
    limits = Limits(*(Estimate(*ends, Regime.FIXED, "made up") for ends in found))
    improves = base is not None and mesa is not None and base[2] < 0 and mesa[2] < 0
    return LimitReading(-one, -one, *[one] * 7, alpha is not None, improves, "finished", None, limits=(limits,))


@pytest.mark.parametrize(
    ("base", "mesa", "status"),
    [
        ((-0.1, -0.2, -0.05), (-1.0, -1.1, -0.9), "pass"),
        ((-0.1, -0.3, 0.05), (-1.0, -1.1, -0.9), "inconclusive"),
        ((-0.1, -0.2, -0.05), None, "inconclusive"),
        (None, None, "inconclusive"),
        ((0.1, 0.05, 0.3), (-1.0, -1.1, -0.9), "fail"),
        ((0.1, 0.05, 0.3), None, "fail"),
        ((0.0, 0.0, 0.0), (-1.0, -1.1, -0.9), "fail"),
    ],
)
def test_a_limit_that_may_be_negative_or_is_none_leaves_open_whether_both_objectives_improve(base, mesa, status):
    assert improving(limited(base, mesa, (0.1, 0.09, 0.11))).status == status


def test_inner_alignment_without_a_limit_in_sight_is_open():
    drifting = bowl(lr=0.001, steps=60)
    delta = pt.custom("nothing", lambda run, magnitude, generator: run, 1.0)
    asked = {"under": delta, "rtol": 5.0, "examples": 2, "horizon": "limit"}
    assert ac.check_alignment_robust(drifting, **asked).status == "inconclusive"
    assert ac.check_inner_aligned(drifting, **asked, floor=0.0).status == "inconclusive"


# ------------------------------------------------------------------------------------ two lines that used to mislead


def test_setups_of_different_length_are_compared_where_the_shorter_ends_and_it_is_said():
    short, long = bowl(steps=30), bowl(steps=300)
    verdict = ac.check_more_capable(long, than=short)
    assert verdict.status == "fail", "they are one process: the longer run is no better for being longer"
    assert "C_30(L)" in str(verdict)
    assert "judged at T = 30, where the shorter run ends: the other goes on to 300" in str(verdict)


def test_a_floor_missed_by_the_unperturbed_run_is_not_off_by_nothing():
    delta = pt.IDENTITY
    verdict = ac.check_inner_aligned(bowl(steps=20), delta=delta, floor=99, rtol=0.1)
    assert verdict.status == "fail"
    assert "α is below the floor, 99" in str(verdict)
    assert "off by 0 %" not in str(verdict)
    assert verdict.minimal.reference == 99
    assert verdict.minimal.deviation == verdict.minimal.value - 99
    assert not math.isnan(verdict.minimal.value)
