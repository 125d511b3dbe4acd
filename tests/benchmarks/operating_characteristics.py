"""How often the statistics keep their promises, with binomial intervals; prints the README's table.

    OMP_NUM_THREADS=1 python tests/benchmarks/operating_characteristics.py --cases 2000

`--only TEXT` prints the rows alone whose first column contains the text, and computes no other.

Series and measurements are synthetic where that makes thousands of cases affordable; the judgement of them is the
package's own. Every case is seeded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from false_alarms import alone, heavy_tailed, verdicts, wrong_passes
from known_limits import (
    EPSILON,
    MIXED,
    RANDOM,
    SLOW,
    TAILS,
    Series,
    autoregressive,
    drifting,
    mixed,
    noisy_descent,
    noisy_variance,
    tail,
)
from shares import HEAD, Row
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.asymptotics.ratios import ratio
from alignment_checks.asymptotics.regimes import Outlook, Regime, outlook, together
from alignment_checks.limits import limits
from alignment_checks.perturbations import Perturbation

# ---------------------------------------------------------------------------------------- limits that are known


LENGTHS = (400,)
"""Besides `steps`, which all the other rows have."""


def coverage(cases: int, steps: int, only: str = "", lengths: tuple[int, ...] = ()) -> Iterator[Row]:
    """Yield how often the interval of a random limit holds it, of the cases that are given a number."""
    for length in (steps, *lengths):
        at = "" if length == steps else f", T = {length}"
        for name, (made, truth) in (RANDOM if length == steps else RANDOM | SLOW).items():
            if only in (what := f"coverage: {name}{at}"):
                series = made(cases, length, np.random.default_rng(1))
                yield _covered(what, truth, [outlook(one, EPSILON) for one in series])
        for rate in (0.3, 0.1, 0.05):
            if only in (what := f"coverage: α of noisy descent, η = {rate:g}{at}"):
                levels = noisy_descent(rate, cases, length, np.random.default_rng(1))
                variance = noisy_variance(rate)
                truth = (variance / 2 - 12.5) / (np.sqrt(2 * variance / np.pi) - 5)
                yield _covered(what, truth, [_factor(one, np.sqrt(2 * one)) for one in levels])


def _factor(base: Series, mesa: Series) -> Outlook:
    both = (outlook(series, EPSILON, 0.0) for series in (base, mesa))
    return ratio(base, mesa, *together(*both, base, mesa, EPSILON), EPSILON)


def _covered(what: str, truth: float, found: list[Outlook]) -> Row:
    limits = [one.limit for one in found if one.has_limit]
    low, high = sum(one.high < truth for one in limits), sum(one.low > truth for one in limits)
    more = f"{100 * (1 - len(limits) / len(found)):.0f} % named, not numbered; too low {low}, too high {high}"
    return Row(what, len(limits) - low - high, max(1, len(limits)), "93–97 %", more)


def containment(
    cases: int, steps: int, only: str = "", kinds: Iterable[str] = TAILS, made: Made = tail, aim: str = "100 %"
) -> Iterator[Row]:
    """Yield how often the interval of a deterministic limit holds it, and its width over the true error."""
    t = np.arange(steps + 1.0)
    for kind in (kind for kind in kinds if only in f"containment: {kind}"):
        random = np.random.default_rng(2)
        found = [outlook(made(kind, t, random), EPSILON) for _ in range(cases)]
        numbered = [one.limit for one in found if one.has_limit]
        widths = [(one.high - one.low) / max(abs(one.value - 1), EPSILON) for one in numbered]
        named = f"{100 * (1 - len(numbered) / cases):.0f} % named; width {np.median(widths):.1g} × true error"
        kept = sum(one.holds(1.0) for one in numbered)
        yield Row(f"containment: {kind}", kept, max(1, len(numbered)), aim, named)


Made = Callable[[str, Series, np.random.Generator], Series]


# ---------------------------------------------------------------------------------------- regimes


def saddle(p: torch.Tensor) -> torch.Tensor:
    return 0.5 * (p[0] ** 2 - p[1] ** 2) + 0.25 * p[1] ** 4


def wavering(p: torch.Tensor) -> torch.Tensor:
    """Return the saddle's way down beside |x|, which descent goes up and down in."""
    return p[0].abs() + 0.1 * (0.25 * p[1] ** 4 - 0.5 * p[1] ** 2)


def trained(regime: Regime, random: np.random.Generator) -> Outlook | ac.Estimate:
    """Return what is read of a training run that ends as named."""
    sgd = partial(torch.optim.SGD, lr=0.1)
    if regime is Regime.PLATEAU:
        start = [random.uniform(0.5, 2), 10 ** random.uniform(-10, -8)]
        beside, steps = ((saddle, 100), (wavering, 300))[random.integers(2)]
        return limits(ac.run(ac.landscape(beside, start, optimizer=sgd, steps=steps, objective_infimum=-0.25)), 0).base
    bowl, start = (lambda x: 1.5 * x.square().sum()), [random.uniform(1, 3)]
    if regime is Regime.STOPPED:
        slow = partial(torch.optim.SGD, lr=random.uniform(0.002, 0.01))
        schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=random.uniform(0.96, 0.98))
        return limits(ac.run(ac.landscape(bowl, start, optimizer=slow, steps=1000, scheduler=schedule)), 0).base
    fast = partial(torch.optim.SGD, lr=random.uniform(0.75, 2))
    return limits(ac.run(ac.landscape(bowl, start, optimizer=fast, steps=100)), 0).base


NAMED = (*dict.fromkeys(TAILS.values()), Regime.DRIFTING, Regime.STATIONARY)
TRAINED = (Regime.PLATEAU, Regime.STOPPED, Regime.DIVERGED)


def confusion(cases: int, steps: int, only: str = "") -> Iterator[Row]:
    """Yield how often each regime is called by its name, and what it is called else."""
    for regime in (regime for regime in (*NAMED, *TRAINED) if only in _row(regime)):
        random = np.random.default_rng(3)
        if regime in TRAINED:
            found = [trained(regime, random).regime for _ in range(max(5, cases // 10))]
        else:
            found = [outlook(series, EPSILON).regime for series in _examples(regime, cases, steps, random)]
        yield _called(regime, Counter(found))


def _examples(regime: Regime, cases: int, steps: int, random: np.random.Generator) -> Iterator[Series]:
    t, kinds = np.arange(steps + 1.0), [kind for kind, its in TAILS.items() if its is regime]
    if regime is Regime.STATIONARY:
        yield from autoregressive(0.5, cases, steps, random)
    for i in range(0 if regime is Regime.STATIONARY else cases):
        yield tail(kinds[i % len(kinds)], t, random) if kinds else drifting(t, random)


def _row(regime: Regime) -> str:
    return f"regime {regime.name.lower()}"


def _called(regime: Regime, names: Counter[Regime]) -> Row:
    else_ = ", ".join(f"{name.name.lower()} {count}" for name, count in names.most_common() if name is not regime)
    return Row(_row(regime), names[regime], names.total(), "", f"else {else_}" if else_ else "")


# ---------------------------------------------------------------------------------------- again, in a fresh process


def classifier(seed: int) -> ac.TrainingSetup:
    """Return a small classification."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(24) % 3
    x = torch.randn(24, 5, generator=random) + y[:, None]
    model, sgd = (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))), partial(torch.optim.SGD, lr=0.1)
    return ac.TrainingSetup(model, (x, y), cross_entropy, sgd, 20, seed=seed)


def again(path: Path) -> None:
    """Judge the perturbations of a file anew, and print how many fail."""
    found = json.loads(path.read_text(encoding="utf-8"))
    deltas = [(case, Perturbation(*parts)) for case, parts in found]
    print(sum(_again(case, delta) for case, delta in deltas))


def _again(case: int, delta: Perturbation) -> bool:
    return ac.check_capability_robust(classifier(case), delta=delta, rtol=0.02).status == "fail"


def repeated(cases: int, folder: str, only: str = "") -> Iterator[Row]:
    """Yield how often a reported δ fails again in a process of its own."""
    if only not in (what := "a reported δ fails again in a fresh process"):
        return
    found = []
    for case in range(cases):
        verdict = ac.check_capability_robust(
            classifier(case), under=pt.label_noise(max_rate=0.3), rtol=0.02, examples=20
        )
        for finding in {verdict.minimal, verdict.worst} - {None}:
            delta = finding.perturbation
            found.append((case, [delta.family, delta.magnitude, delta.limit, delta.seed]))
    path = Path(folder, "found.json")
    path.write_text(json.dumps(found), encoding="utf-8")
    out = subprocess.run([sys.executable, __file__, "--again", str(path)], capture_output=True, text=True, check=True)
    yield Row(what, int(out.stdout), len(found), "≥ 99 %")


def main() -> None:
    """Print the table."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--only", default="", help="print the rows alone whose first column contains this text")
    parser.add_argument("--again", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.again:
        again(asked.again)
        return
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for rows in (
            coverage(asked.cases, 1000, asked.only, LENGTHS),
            containment(asked.cases, 1000, asked.only),
            containment(asked.cases, 1000, asked.only, MIXED, mixed, ""),
            confusion(asked.cases, 1000, asked.only),
            repeated(max(5, asked.cases // 10), folder, asked.only),
            verdicts(asked.cases, asked.only),
            wrong_passes(10 * asked.cases, asked.only),
            heavy_tailed(max(5, asked.cases // 10), asked.only),
            alone(max(5, asked.cases // 10), 400, asked.only),
        ):
            for row in rows:
                print(row, flush=True)


if __name__ == "__main__":
    main()
