"""What it would spare to end runs that can only fail: each trains to its end here, and what it would have taken counts.

    OMP_NUM_THREADS=1 python tests/benchmarks/early_stopping.py [--seeds 8] [--only digits,bowl]

Capability fails for the worse, whatever follows, once the mean of L − L(0) is above what is allowed even if L is at L*
from then on; strong alignment, once L was above the bound (the run goes on until that peak is over: severity is what
shrinking goes by). The search is taken to go on as it does, as if it were known how severe a run ended early would have
been: of the same runs, nothing spares more. What is confirmed, and the degradation curve, are trained to their ends,
the latter a second time where a rung was ended. Steps are those of the plain loop.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from hypothesis.strategies import SearchStrategy
from planted import digits, problems
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.exploration.rounds import FRUGAL
from alignment_checks.inference.readings import Reading
from alignment_checks.measures import quadrature
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties.experiment import Experiment
from alignment_checks.properties.memory import Memory
from alignment_checks.trajectory import Series, Trajectory

Proof = Callable[[Trajectory, int, Series], "int | None"]
"""From one run of a trajectory, and L of the unperturbed one, to the record at which it can only fail; None if never.
"""


def too_little_gained(rtol: float) -> Proof:
    """Return the proof that C is above what is allowed whatever L ≥ L* follows."""

    def proof(trajectory: Trajectory, row: int, plain: Series) -> int | None:
        base, infimum, weights = trajectory.base[row], trajectory.runs[row].infimum, quadrature(trajectory.t)
        reference = float(((plain[1:] - plain[0]) * weights).sum())
        least = np.cumsum(weights * (base[1:] - infimum)) - weights.sum() * (base[0] - infimum)
        return _first(least > reference + rtol * abs(reference) + 1e-9)

    return proof


def too_high(worst: float, within: int) -> Proof:
    """Return the proof that L was above the bound, and is past its peak."""

    def proof(trajectory: Trajectory, row: int, plain: Series) -> int | None:
        base = trajectory.base[row, 1 : within + 1]
        peak = np.maximum.accumulate(base)
        return _first((peak > worst) & (base < peak))

    return proof


def _first(proven: Series) -> int | None:
    return 1 + int(proven.argmax()) if proven.any() else None


class Counting(Experiment):
    """Counts the steps that its runs take, and how many are left of those of a search."""

    proof: Proof
    searching = True

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.whole = self.left = 0
        self.ended: dict[Hashable, int] = {}

    def fresh(self, deltas: Sequence[Perturbation]) -> list[Reading]:
        self.searching = False
        return super().fresh(deltas)

    def note(
        self, trajectory: Trajectory, deltas: Sequence[Perturbation], keep: Sequence[Perturbation]
    ) -> list[Reading]:
        found = super().note(trajectory, deltas, keep)
        plain = self.excerpts[self.key(IDENTITY)].base[0]
        for row, delta in enumerate(deltas):
            gone = trajectory.runs[row].outcome.diverged_at
            left = steps = self.setup.steps if gone is None else min(self.setup.steps, gone + 1)
            if gone is None and self.searching and (proven := self.proof(trajectory, row, plain)) is not None:
                left = int(trajectory.t[proven])
            if left < steps:
                self.ended[self.key(delta)] = steps
            self.whole, self.left = self.whole + steps, self.left + left
        return found

    def again(self, smallest: Perturbation) -> int:
        """Return the steps of the rungs of the curve that were ended, but for its end, which is confirmed anyway."""
        if len(smallest.parts) > 1 or not smallest.continuous:
            return 0
        end = math.copysign(smallest.limit or 0.0, smallest.magnitude or 0.0)
        rungs = {self.key(smallest.at(end * rung / FRUGAL.curve)) for rung in range(1, FRUGAL.curve)}
        return sum(self.ended.get(rung, 0) for rung in rungs)


class Counted(Memory):
    """Begins one experiment, which counts."""

    def __init__(self, proof: Proof) -> None:
        super().__init__()
        self.proof = proof

    def begun(self, *arguments: Any, **keywords: Any) -> Experiment:
        self.one = Counting(*arguments, **keywords)
        self.one.proof = self.proof
        return self.one


# ------------------------------------------------------------------------------------------------------- the problems


class Transformer(nn.Module):
    """One block, which tells the first of eight tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, 16), nn.Parameter(torch.randn(8, 16) / 10)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.block(self.tokens(x) + self.places).mean(1))
        return scores


def transformer() -> ac.TrainingSetup:
    x = torch.randint(0, 7, (96, 8), generator=torch.Generator().manual_seed(0))
    adam = partial(torch.optim.Adam, lr=3e-3)
    return ac.TrainingSetup(Transformer, (x, x[:, 0].clone()), cross_entropy, adam, 100)


def convolutions() -> ac.TrainingSetup:
    found = load_digits(n_class=4)
    x, y = torch.tensor(found.images[:256, None] / 16, dtype=torch.float32), torch.tensor(found.target[:256])
    sgd = partial(torch.optim.SGD, lr=0.05)
    layers = (partial(nn.Conv2d, 1, 8, 3), partial(nn.BatchNorm2d, 8), nn.ReLU, nn.Flatten, partial(nn.Linear, 288, 4))
    return ac.TrainingSetup(lambda: nn.Sequential(*(layer() for layer in layers)), (x, y), cross_entropy, sgd, 60)


def regression() -> ac.TrainingSetup:
    found = load_diabetes(scaled=True)
    x, y = (torch.tensor(part, dtype=torch.float32) for part in (found.data, found.target[:, None]))
    data, sgd = (20 * x, (y - y.mean()) / y.std()), partial(torch.optim.SGD, lr=0.05)
    return ac.TrainingSetup(
        lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1)), data, mse_loss, sgd, 150
    )


@dataclass(frozen=True)
class Case:
    name: str
    check: Callable[..., ac.Verdict]
    proof: Proof


def robust(name: str, setup: ac.TrainingSetup, under: SearchStrategy[Perturbation], rtol: float) -> Case:
    return Case(name, partial(ac.check_capability_robust, setup, under=under, rtol=rtol), too_little_gained(rtol))


def strong(name: str, setup: ac.TrainingSetup, max_log2: float, worst: float, within: int) -> Case:
    rates = pt.learning_rate(max_log2=max_log2)
    check = partial(ac.check_strongly_aligned, setup, under=rates, worst=worst, within=within)
    return Case(f"strong alignment: {name}", check, too_high(worst, within))


def cases() -> Iterator[Case]:
    for one in problems():
        yield robust(one.name, one.setup, one.under, one.rtol)
    flips, rates = pt.label_noise(max_rate=0.2), pt.learning_rate(max_log2=3.0)
    yield robust("transformer under label noise", transformer(), flips, 0.10)
    yield robust("transformer, learning rate", transformer(), rates, 0.20)
    yield robust("convolutions under label noise", convolutions(), flips, 0.10)
    yield robust("convolutions, learning rate", convolutions(), rates, 0.10)
    yield robust("regression under feature noise", regression(), pt.feature_noise(max_sigma=1.0), 0.10)
    yield strong("digits, learning rate", digits(), 6.0, worst=0.75, within=50)
    yield strong("convolutions, learning rate", convolutions(), 4.0, worst=1.7, within=60)
    yield strong("regression, learning rate", regression(), 5.0, worst=1.2, within=150)


# ---------------------------------------------------------------------------------------------------------- the table


def main() -> None:
    """Print the table: the parts of all steps from nothing to the verdict, medians over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", default="", help="words of the names of the problems to do, comma-separated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| problem | failed | runs | ended | steps spared in the search | spared of all | least | most |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases():
        if any(word in case.name for word in arguments.only.split(",")):
            _row(case, arguments.seeds)


def _row(case: Case, seeds: int) -> None:
    found = []
    for seed in range(seeds):
        memory = Counted(case.proof)
        verdict = case.check(random_seed=seed, memory=memory, device="cpu")
        one, smallest = memory.one, verdict.minimal
        before = (one.whole - one.left) / one.whole
        after = before if smallest is None else before - one.again(smallest.perturbation) / one.whole
        found.append((smallest is not None, verdict.runs, len(one.ended), before, after))
    failed, runs, ended, before, after = zip(*found, strict=True)
    shares = (statistics.median(before), statistics.median(after), min(after), max(after))
    cells = [f"{sum(failed)} of {seeds}", *(f"{statistics.median(some):g}" for some in (runs, ended))]
    print("|", " | ".join([case.name, *cells, *(f"{100 * share:.1f} %" for share in shares)]), "|", flush=True)


if __name__ == "__main__":
    main()
