"""Whether the limit has settled, and if not, how many more steps would tell."""

import pickle
import re
from functools import partial

import pytest
import torch

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import Perturbation

SGD = torch.optim.SGD
GAIN = pt.init_gain(max_log2=1)


def bowl(lr=0.1, steps=300, **more):
    return ac.landscape(lambda x: 0.5 * x.square().sum(), [1.0], optimizer=partial(SGD, lr=lr), steps=steps, **more)


def outlook(setup, **how):
    return ac.check_capability_robust(setup, under=GAIN, rtol=100, examples=1, **how).outlook.lines


def test_a_limit_that_has_settled_is_said_to_with_how_far_the_finite_value_is_off():
    (line,) = outlook(bowl(steps=400))
    assert re.fullmatch(r"limit +C_∞\(L\) = -0.5 \(fixed\), settled; C_400\(L\) is off by \S+ %", line), line


def test_an_exponential_tail_is_promised_its_own_time():
    """L falls as e^(−0.02 t): at 150 steps 5 % is left, another factor of 10 or so takes about 10² steps."""
    (line,) = outlook(bowl(lr=0.01, steps=150))
    assert "not settled: between" in line
    assert "about 10² more steps" in line


def test_a_power_law_takes_orders_of_magnitude_more():
    """With a rate of 0.2/t, L falls as t^-0.4."""
    schedule = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=_harmonic)
    (line,) = outlook(bowl(lr=0.2, steps=300, scheduler=schedule))
    assert re.search(r"not settled: .* about 10[⁴⁵⁶] more steps", line), line


def _harmonic(t):
    return 1 / (1 + t)


def test_more_steps_do_settle_it():
    steps = 150
    (line,) = outlook(bowl(lr=0.01, steps=steps + 10**3))
    assert "settled" in line
    assert "not settled" not in line


def test_what_drifts_is_said_not_to_be_in_sight():
    (line,) = outlook(bowl(lr=0.001, steps=50))
    assert "no limit in sight: drifting" in line


def test_what_is_open_at_the_limit_says_of_both_sides_how_many_more_steps_would_tell():
    """The start that is half as far is as far from its limit, and the tolerance is within both intervals."""
    creeping = bowl(lr=0.01, steps=150)
    half = Perturbation("init_gain", -1.0, 1.0, 0)
    verdict = ac.check_capability_robust(creeping, delta=half, rtol=0.75, horizon="limit")
    assert verdict.status == "inconclusive"
    assert "its interval straddles the tolerance; more steps" in str(verdict)
    assert str(verdict).count("straddles the tolerance") == 1
    for line in verdict.outlook.lines:
        assert re.search(r"not settled: .* about 10[²³] more steps", line), line
    assert [line[:13].strip() for line in verdict.outlook.lines] == ["limit", "limit under δ"]


def test_a_limit_that_is_0_is_known_if_it_is_known_up_to_rounding():
    (line,) = outlook(ac.landscape(lambda x: x.square().sum() + 5, [0.0], optimizer=partial(SGD, lr=0.1), steps=50))
    assert "C_∞(L) = 0 (fixed), settled" in line


@pytest.mark.parametrize(
    ("steps", "why"),
    [(8, "8 steps are too few to tell"), (100, "too few for a mean"), (300, "independent ones, too few")],
)
def test_what_drifts_for_want_of_values_says_how_many_more_may_tell(steps, why):
    slow = ac.landscape(lambda x: 0.5 * x.square().sum(), [0.3], optimizer=partial(SGD, lr=0.01), steps=steps)
    noise = Perturbation("gradient_noise", 3.0, 3.0, 0)
    found = ac.check_capability_robust(slow, delta=noise, rtol=0.1, horizon="limit")
    assert re.search(f"drifting: .*{why}.*about 10[¹²³] more steps may tell", str(found)), str(found)


def test_it_is_worked_out_only_when_it_is_read(monkeypatch):
    from alignment_checks.properties import wording

    seen = []
    real = wording.outlook_line
    monkeypatch.setattr(wording, "outlook_line", lambda *args: seen.append(1) or real(*args))
    verdict = ac.check_capability_robust(bowl(), under=GAIN, rtol=100, examples=1)
    assert not seen
    assert str(verdict) == str(verdict)
    assert verdict.to_dict()["outlook"] == list(verdict.outlook.lines)
    assert len(seen) == 1


def test_a_verdict_can_be_pickled():
    verdict = ac.check_capability_robust(bowl(steps=20), under=GAIN, rtol=100, examples=1)
    assert str(pickle.loads(pickle.dumps(verdict))) == str(verdict)
