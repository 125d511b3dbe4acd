"""How often a search raises a false alarm and finds what was planted: over seeds, and by the limit of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from known_limits import EPSILON, Series
from shares import Row

from alignment_checks import perturbations as pt
from alignment_checks.asymptotics.regimes import outlook
from alignment_checks.exploration.confirmation import Searched
from alignment_checks.inference.judgement import Judgement, Tolerance, approximately
from alignment_checks.inference.readings import Ratio
from alignment_checks.perturbations import Perturbation
from alignment_checks.search import search

# ---------------------------------------------------------------------------------------- verdicts over seeds

SEEDS, SCATTER, RTOL, EXAMPLES = 8, 0.02, 0.1, 100

Scatter = Callable[[np.random.Generator], Series]


def normal(random: np.random.Generator) -> Series:
    return random.normal(size=SEEDS)


HEAVY: dict[str, Scatter] = {
    "Student's t of 3": lambda random: random.standard_t(3, size=SEEDS) / np.sqrt(3),
    "lognormal": lambda random: (random.lognormal(size=SEEDS) - np.sqrt(np.e)) / np.sqrt(np.e * (np.e - 1)),
}
"""Of mean 0 and variance 1."""


def searched(case: int, effect: float, scatter: Scatter = normal, *, lone: bool = False) -> Searched:
    """Search where C is off by `effect` × the tolerance at the limit, in proportion to the magnitude, under noise.

    C of a seed is −1 ± 10 %, and scatters under each δ by 2 % of it: what is found is confirmed on other seeds.
    Where it is `lone`, δ at the limit is all that is judged.
    """

    def measured(stage: str) -> Callable[[list[Perturbation]], list[Judgement]]:
        def evaluate(deltas: list[Perturbation]) -> list[Judgement]:
            plain = -1 + 0.1 * np.random.default_rng([case, len(stage)]).normal(size=SEEDS)
            return [_judged(plain, delta, [case, len(stage), *_key(delta)], effect, scatter) for delta in deltas]

        return evaluate

    strategy, both = pt.label_noise(max_rate=0.5), (measured("search"), measured("confirmation"))
    if lone:
        return search(strategy, *both, examples=0, first=[Perturbation("label_noise", 0.5, 0.5, 0)])
    return search(strategy, *both, examples=EXAMPLES, random_seed=case)


def _key(delta: Perturbation) -> tuple[int, int]:
    return int((delta.magnitude or 0.0) * 2**40), delta.seed


def _judged(plain: Series, delta: Perturbation, seed: list[int], effect: float, scatter: Scatter) -> Judgement:
    size = (delta.magnitude or 0.0) / (delta.limit or 1.0)
    noise = SCATTER * scatter(np.random.default_rng(seed)) if size else np.zeros(SEEDS)
    values = plain * (1 - effect * RTOL * size + noise)
    one = np.ones(SEEDS)
    return approximately(Ratio(plain, one), Ratio(values, one), Tolerance(RTOL), worse=1)


NULL = {0.0: "false alarms, holds exactly", 0.5: "false alarms, holds by half the tolerance"}


def verdicts(cases: int, only: str = "") -> Iterator[Row]:
    """Yield false alarms, inconclusive counted as one, and how often planted violations are found."""
    for effect, what in NULL.items():
        if only in what:
            yield _alarmed(what, [searched(case, effect) for case in range(cases)], "≤ 1 %")
    for effect in (1.2, 1.5, 2.0):
        if only in (what := f"violations of {effect:g} × the tolerance found"):
            found = [searched(case, effect) for case in range(max(5, cases // 5))]
            detected = sum(one.minimal is not None for one in found)
            yield Row(what, detected, len(found), "≥ 99 %" if effect == 1.5 else "")


def wrong_passes(cases: int, only: str = "") -> Iterator[Row]:
    """Yield how often one δ passes that is off by the tolerance, whatever its first seeds say."""
    for name, scatter in {"": normal, **HEAVY}.items():
        if only in (what := f"passes of what is off by the tolerance, one δ{name and ', scatter ' + name}"):
            found = [searched(case, 1.0, scatter, lone=True) for case in range(cases)]
            passed = sum(not (one.minimal or one.undecided or one.unconfirmed) for one in found)
            yield Row(what, passed, cases, "" if name else "≤ 5 %")


def heavy_tailed(cases: int, only: str = "") -> Iterator[Row]:
    """Yield false alarms where what holds exactly scatters with heavy tails, of the same variance."""
    for name, scatter in HEAVY.items():
        if only in (what := f"false alarms, holds exactly, scatter {name}"):
            yield _alarmed(what, [searched(case, 0.0, scatter) for case in range(cases)], "")


def _alarmed(what: str, found: list[Searched], aim: str) -> Row:
    alarms = sum(bool(one.minimal or one.undecided or one.unconfirmed) for one in found)
    failed = sum(one.minimal is not None for one in found)
    return Row(what, alarms, len(found), aim, f"{failed} of them failures")


# ---------------------------------------------------------------------------------------- limits of one random run

ALONE = "false alarms at the limit of one random run, holds exactly"


def alone(cases: int, steps: int, only: str = "") -> Iterator[Row]:
    """Yield how often one run's limits fail by chance, of as many perturbations as are searched; and at 95 % each."""
    if only in ALONE:
        found = [_alone(case, steps) for case in range(cases)]
        failed, uncorrected = (sum(one[i] for one in found) for i in range(2))
        more = f"at 95 % each and not corrected: {100 * uncorrected / cases:.0f} %"
        yield Row(ALONE, failed, cases, "≤ 5 %", more)


def _alone(case: int, steps: int) -> tuple[bool, bool]:
    """Search where no δ changes the mean of L, and doubles its noise; return whether any failed, and would have."""
    known: dict[Perturbation, Judgement] = {}
    random = np.random.default_rng([case, 1])
    plain = _limit(random, 0.5, steps)

    def evaluate(deltas: list[Perturbation]) -> list[Judgement]:
        for delta in deltas:
            if delta not in known:
                value = _limit(random, 1.0, steps) if delta.size else plain
                known[delta] = approximately(plain, value, Tolerance(0.001), worse=1)
        return [known[delta] for delta in deltas]

    strategy = pt.gradient_noise(max_scale=1.0)
    found = search(strategy, evaluate, evaluate, examples=EXAMPLES, random_seed=case, same_seeds=True)
    return found.minimal is not None, any(one.status == "fail" for one in known.values())


def _limit(random: np.random.Generator, noise: float, steps: int) -> Ratio:
    """Return lim C of one run: L goes from 10 to noise about 0, and C to −10."""
    series = 10 * 0.9 ** np.arange(steps + 1) + noise * random.normal(size=steps + 1)
    limit = outlook(series, EPSILON).limit.plus(-10.0)
    slacks = [(np.array([limit.value - low]), np.array([high - limit.value])) for low, high in limit.stricter]
    return Ratio(np.array([limit.value]), np.ones(1), slacks[0] if slacks else None, tuple(slacks))
