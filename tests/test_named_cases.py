"""What gets a name and never a number, from the training run to the verdict: each case through the public API."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ExponentialLR

import alignment_checks as ac
from alignment_checks import Regime
from alignment_checks.objectives import MesaObjective, Tensors
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties.memory import Memory
from alignment_checks.verdict import Verdict

SGD = torch.optim.SGD


def quadratic(x: Tensor) -> Tensor:
    return 0.5 * x.square().sum()


def saddle(p: Tensor) -> Tensor:
    return 0.5 * (p[0] ** 2 - p[1] ** 2) + 0.25 * p[1] ** 4


def thrice(push: Tensors, parameters: Tensors) -> Tensor:
    return torch.stack([3 * value.sum() + 20 for value in parameters.values()]).sum()


@dataclass(frozen=True)
class Case:
    """A setup, the perturbation that it is looked at under, and what is said: of C and α, at the limit and at T."""

    function: Callable[[Tensor], Tensor]
    start: list[float]
    steps: int
    capability: Regime
    alignment: Regime
    says: tuple[str, str]
    lr: float = 0.1
    delta: Perturbation = IDENTITY
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def setup(self) -> ac.TrainingSetup:
        optimizer = partial(SGD, lr=self.lr)
        return ac.landscape(self.function, self.start, optimizer=optimizer, steps=self.steps, **self.more)

    @cached_property
    def limits(self) -> tuple[ac.Estimate, ac.Estimate]:
        """The limits of C and α under δ."""
        runs = ac.run(self.setup, [self.delta])
        return ac.capability_limit(runs)[0], ac.alignment_factor_limit(runs)[0]

    def verdicts(self, **how: Any) -> tuple[Verdict, Verdict]:
        """Return the verdicts on the robustness of C and of α under δ."""
        checks, memory = (ac.check_capability_robust, ac.check_alignment_robust), Memory()
        first, second = (check(self.setup, delta=self.delta, rtol=0.1, memory=memory, **how) for check in checks)
        return first, second


NOISE = Perturbation("gradient_noise", 1.0, 1.0, 0)
"""Descent on a quadratic with step η comes to a θ of variance η/(2 − η): 0.183 is the mean of its |θ|, for η = 0.1."""

CASES = {
    "denominator 0, numerator not": Case(
        lambda x: x.abs().sum(),
        [1.03],
        500,
        Regime.PERIODIC,
        Regime.UNDEFINED,
        ("(periodic), settled", "undefined: the denominator is 0, the numerator is not"),
    ),
    "0/0": Case(
        lambda x: quadratic(x) + 5,
        [0.0],
        100,
        Regime.FIXED,
        Regime.UNDEFINED,
        ("C_∞(L) = 0 (fixed), settled", "undefined: 0/0: neither L nor G changes in the mean"),
    ),
    "denominator not clear of 0": Case(
        quadratic,
        [0.183],
        400,
        Regime.STATIONARY,
        Regime.UNDEFINED,
        ("(stationary)", "undefined: the denominator's interval holds 0"),
        delta=NOISE,
    ),
    "diverged": Case(
        quadratic, [1.0], 400, Regime.DIVERGED, Regime.DIVERGED, ("diverged at step 5", "diverged at step 5"), lr=9.0
    ),
    "drifting": Case(
        lambda x: x.sum(),
        [2.0],
        300,
        Regime.DRIFTING,
        Regime.UNDEFINED,
        ("drifting: its changes do not shrink", "undefined: the denominator is 0"),
        more={"objective_infimum": None},
    ),
    "drifting, and α exists all the same": Case(
        lambda x: x.sum(),
        [2.0],
        300,
        Regime.DRIFTING,
        Regime.DRIFTING,
        ("drifting: its changes do not shrink", "α_∞(L, G) = 0.3333 (drifting), settled"),
        more={"objective_infimum": None, "mesa_objective": MesaObjective("thrice", thrice)},
    ),
    "learning rate to 0 too fast": Case(
        quadratic,
        [2.0],
        1000,
        Regime.STOPPED,
        Regime.STOPPED,
        ("(stopped), settled", "(stopped), settled"),
        lr=0.01,
        more={"scheduler": partial(ExponentialLR, gamma=0.97)},
    ),
    "plateau near a saddle": Case(
        saddle,
        [1.0, 1e-9],
        100,
        Regime.PLATEAU,
        Regime.PLATEAU,
        ("plateau: least curvature -1, and it goes down, about 10² more steps away", "plateau: least curvature -1"),
        more={"objective_infimum": -0.25},
    ),
    "on a saddle's stable manifold": Case(
        saddle,
        [1.0, 0.0],
        300,
        Regime.FIXED,
        Regime.FIXED,
        ("(fixed; at a saddle, least curvature -1), settled", "(fixed; at a saddle, least curvature -1), settled"),
        more={"objective_infimum": -0.25},
    ),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cases
def test_an_estimate_has_the_name_and_a_number_only_where_there_is_one(case: Case) -> None:
    for found, regime in zip(case.limits, (case.capability, case.alignment), strict=True):
        assert found.regime is regime, found
        if math.isnan(found.value):
            assert (found.low, found.high) == (-math.inf, math.inf)
            assert found.method
        else:
            assert found.low <= found.value <= found.high


@cases
def test_a_verdict_at_the_limit_says_the_name_and_passes_only_on_a_number(case: Case) -> None:
    for verdict, found, says in zip(case.verdicts(horizon="limit"), case.limits, case.says, strict=True):
        assert says in str(verdict)
        assert not math.isnan(found.value) or verdict.status == "inconclusive"


@cases
def test_a_verdict_at_t_judges_what_is_there_and_says_the_name_too(case: Case) -> None:
    for verdict, says in zip(case.verdicts(), case.says, strict=True):
        assert says in str(verdict)
        assert "_∞" not in verdict.statement


def test_a_perturbation_that_diverges_where_the_baseline_does_not_fails_and_the_reverse_is_open() -> None:
    """Of a rate of 0.9, 8 times as much is above 2/λ; of one of 9, an eighth is below it."""
    for lr, log2, status in ((0.9, 3.0, "fail"), (9.0, -3.0, "inconclusive")):
        setup = ac.landscape(quadratic, [1.0], optimizer=partial(SGD, lr=lr), steps=400)
        for horizon in ("finite", "limit"):
            asked = {"delta": Perturbation("learning_rate", log2, 3.0, 0), "rtol": 0.5, "horizon": horizon}
            for check in (ac.check_capability_robust, ac.check_alignment_robust):
                verdict = check(setup, **asked)
                assert verdict.status == status
                assert "diverged at step" in str(verdict)
