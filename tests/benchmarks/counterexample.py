"""How dear a counterexample is, and how small: this search against `@given` around a plain training loop.

    OMP_NUM_THREADS=1 python tests/benchmarks/counterexample.py [--seeds 5] [--device cpu] [--only digits,bowl]

Five planted problems (`planted.py`), the same tolerance for both. The naive way is what one would write by hand:
Hypothesis draws plain numbers (a rate, a seed, …) and shrinks them, and each example trains one run with an eager loop.
Everything is measured in one process and one sitting; the table, in Markdown, holds medians over the seeds.

A found δ's distance from the boundary is how much smaller any one of its magnitudes could have been, in per cent of it,
with all else as it is: found by a dense ladder, thrice refined, or known in closed form.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import islice

import torch
from hypothesis import HealthCheck, Verbosity, given, settings
from hypothesis import seed as seeded
from planted import Problem, problems
from torch import nn

import alignment_checks as ac
from alignment_checks.backends.minibatches import minibatches
from alignment_checks.exploration.progress import Progress
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.setups.realization import realize

# ------------------------------------------------------------------------------------------------------- the two ways


@dataclass(frozen=True)
class Outcome:
    """What one search came to."""

    delta: Perturbation | None
    runs: int
    launches: int
    seconds: float


def ours(problem: Problem, random_seed: int, device: str) -> Outcome:
    """Search in batches, with everything as it is by default."""
    told: list[Progress] = []
    began = time.perf_counter()
    verdict = ac.check_capability_robust(
        problem.setup,
        under=problem.under,
        rtol=problem.rtol,
        random_seed=random_seed,
        device=device,
        watch=told.append,
    )
    seconds = time.perf_counter() - began
    found = verdict.minimal.perturbation if verdict.minimal else None
    return Outcome(found, verdict.runs, sum(1 for one in told if one.in_flight), seconds)


def naive(problem: Problem, random_seed: int, device: str) -> Outcome:
    """Let Hypothesis draw and shrink around one eager loop at a time."""
    runs, last, began = 1, None, time.perf_counter()
    plain = eager(problem.setup, IDENTITY, device)

    @seeded(random_seed)
    @settings(database=None, deadline=None, verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck))
    @given(**problem.numbers)
    def holds(**numbers: float) -> None:
        nonlocal runs, last
        runs, delta = runs + 1, problem.built(**numbers)
        near = abs(eager(problem.setup, delta, device) - plain) <= problem.rtol * abs(plain)
        last = last if near else delta
        assert near

    with suppress(AssertionError):
        holds()
    return Outcome(last, runs, runs, time.perf_counter() - began)


def eager(setup: ac.TrainingSetup, delta: Perturbation, device: str) -> float:
    """Train one run with a plain PyTorch loop, and return its capability."""
    run = delta.applied(realize(setup, setup.seed))
    module = run.module.to(device)
    module.load_state_dict(run.parameters, strict=False)
    data = [part.to(device) for part in run.data or ()]
    optimizer, batches, losses = run.optimizer(module.parameters()), minibatches(run, torch.device(device)), []
    for batch in islice(batches, setup.steps + 1):
        optimizer.zero_grad()
        with nullcontext() if batch is None else torch.no_grad():
            loss = _loss(setup, module, data)
        losses.append(loss.item())
        (loss if batch is None else _loss(setup, module, [part[batch] for part in data])).backward()
        optimizer.step()
    return statistics.fmean(losses[1:]) - losses[0]


def _loss(setup: ac.TrainingSetup, module: nn.Module, data: Sequence[torch.Tensor]) -> torch.Tensor:
    return setup.objective(module(*data[:-1]), data[-1] if data else None)


# ------------------------------------------------------------------------------------------------------- the distance

GRID = 17


def distance(problem: Problem, delta: Perturbation, device: str) -> float:
    """Return by which fraction at most one of the magnitudes could have been smaller."""
    if problem.boundary is not None:
        return 1 - problem.boundary(delta) / abs(delta.magnitude or 0.0)
    return max(1 - _least(problem, delta, i, device) for i, part in enumerate(delta.parts) if part.continuous)


def _least(problem: Problem, delta: Perturbation, index: int, device: str) -> float:
    """Return the smallest fraction of one magnitude that fails, the others as they are: a ladder thrice refined."""
    low, high = 0.0, 1.0
    for _ in range(3):
        rungs = [low + (high - low) * rung / GRID for rung in range(1, GRID)]
        failing = [
            rung for rung, fails in zip(rungs, _failing(problem, delta, index, rungs, device), strict=True) if fails
        ]
        high = min([*failing, high])
        low = max([rung for rung in rungs if rung < high], default=low)
    return high


def _failing(problem: Problem, delta: Perturbation, index: int, fractions: Sequence[float], device: str) -> list[bool]:
    def moved(fraction: float) -> Perturbation:
        parts = list(delta.parts)
        parts[index] = parts[index].at((parts[index].magnitude or 0.0) * fraction)
        return assembled(parts)

    plain, *found = ac.capability(ac.run(problem.setup, [IDENTITY, *map(moved, fractions)], device=device))
    return [abs(value - plain) > problem.rtol * abs(plain) for value in found]


# ---------------------------------------------------------------------------------------------------------- the table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="words of the names of the problems to do, comma-separated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [p for p in problems() if any(word in p.name for word in arguments.only.split(","))]
    for way in (ours, naive):
        way(problems()[-1], 0, arguments.device)  # what is done once in a process is not timed
    print("| problem | way | found | runs | launches | seconds | size of δ | from the boundary |")
    print("|---|---|---|---|---|---|---|---|")
    totals = [_rows(problem, arguments.seeds, arguments.device) for problem in wanted]
    batched, alone = (sum(column) for column in zip(*totals, strict=True))
    print(f"| together | batched | | | | {batched:.2f} | | |")
    print(f"| | `@given` | | | | {alone:.2f} ({alone / batched:.1f}×) | | |")


def _rows(problem: Problem, seeds: int, device: str) -> tuple[float, float]:
    """Print one problem's two rows, and return the median seconds of both ways."""
    alike = eager(problem.setup, IDENTITY, device), ac.capability(ac.run(problem.setup, device=device)).item()
    if not math.isclose(*alike, rel_tol=1e-4):
        raise AssertionError(f"the two ways do not measure the same: {alike}")
    medians = []
    for name, way in (("batched", ours), ("`@given`", naive)):
        outcomes = [way(problem, seed, device) for seed in range(seeds)]
        found = [one.delta for one in outcomes if one.delta is not None]
        away = [100 * distance(problem, delta, device) for delta in found]
        medians.append(statistics.median(one.seconds for one in outcomes))
        print(
            f"| {problem.name if way is ours else ''} | {name} | {len(found)} of {seeds} "
            f"| {statistics.median(one.runs for one in outcomes):g} "
            f"| {statistics.median(one.launches for one in outcomes):g} | {medians[-1]:.2f} "
            f"| {_median([delta.size for delta in found], '.4f')} | {_median(away, '.2f')} % |",
            flush=True,
        )
    return medians[0], medians[1]


def _median(values: Sequence[float], form: str) -> str:
    return format(statistics.median(values), form) if values else "–"


if __name__ == "__main__":
    main()
