"""Prints what a run costs in lanes, as a ratio to the loop that a user would write, to JAX, and to a floor.

    OMP_NUM_THREADS=1 python tests/benchmarks/throughput.py [--device cuda] [--widths 1,16,64] [--seconds 10]
    OMP_NUM_THREADS=1 python tests/benchmarks/throughput.py --only small --planned 10000
    python tests/benchmarks/throughput.py --cores
    python tests/benchmarks/throughput.py --device cuda --seconds 2

One process and one sitting: every figure of a row is taken in turn with the others, and the least of several counts.
One thread, whatever the machine has. Lanes are those of a search: what a first launch finds out and traces is known,
and with `--planned` so many runs it is compiled where that pays. `backend="auto"` is `run` as a user calls it, from
nothing. A row whose cell would take much longer than `--seconds` stops there, and says so.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from floor import Floor, floor, wait
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks.runs import Part, run_parts
from alignment_checks.setups.surveys import Surveys

STEPS = 100
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": partial(torch.optim.SGD, lr=0.1),
    "Adam": partial(torch.optim.Adam, lr=1e-3),
}


def tokens(hidden: int, examples: int) -> tuple[Callable[[], nn.Module], tuple[Tensor, Tensor]]:
    """Return a token model, three tokens to the next one of 27, and random data for it."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 27, shape, generator=random) for shape in ((examples, 3), (examples,)))

    def model() -> nn.Module:
        return nn.Sequential(nn.Embedding(27, 8), nn.Flatten(), nn.Linear(24, hidden), nn.Tanh(), nn.Linear(hidden, 27))

    return model, (x, y)


def images(examples: int) -> tuple[Callable[[], nn.Module], tuple[Tensor, Tensor]]:
    """Return two convolutions over 8×8 images, and random data for them."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(examples, 1, 8, 8, generator=random)
    y = torch.randint(0, 10, (examples,), generator=random)

    def model() -> nn.Module:
        first, second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))

    return model, (x, y)


def setups() -> Iterator[tuple[str, str, ac.TrainingSetup]]:
    """Yield each problem under each optimizer."""
    problems = {"small": tokens(32, 256), "mid": tokens(128, 1024), "conv": images(512)}
    for problem, (model, data) in problems.items():
        for name, optimizer in OPTIMIZERS.items():
            setup = ac.TrainingSetup(model=model, data=data, objective=cross_entropy, optimizer=optimizer, steps=STEPS)
            yield problem, name, setup


def eager(setup: ac.TrainingSetup, device: torch.device) -> None:
    """Train one run and record L and G at every t: the loop that a user would write."""
    torch.manual_seed(setup.seed)
    model = setup.model().to(device)
    optimizer = setup.optimizer(model.parameters())
    x, y = (part.to(device) for part in setup.data or ())
    losses, gradients = [], []
    for t in range(setup.steps + 1):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None))
        if t < setup.steps:
            optimizer.step()
    torch.stack([*losses, *gradients]).cpu()


def lanes(setup: ac.TrainingSetup, width: int, device: torch.device, planned: int, known: Surveys) -> None:
    """Train as many runs, all of other seeds, through lanes, as a launch of a search that has launched before."""
    part = Part(setup, seeds=range(width))
    run_parts([part], device=str(device), backend="lanes", planned=planned, surveys=known)


def anyhow(setup: ac.TrainingSetup, width: int, device: torch.device) -> None:
    """Train as many runs in the way that is chosen for them."""
    ac.run(setup, seeds=range(width), device=str(device))


def least(works: list[Callable[[], None]], seconds: float) -> list[float]:
    """Return the least time of each work in seconds; they take turns until the time is up, twice at least."""
    times: list[list[float]] = [[] for _ in works]
    began = time.perf_counter()
    while len(times[0]) < 2 or time.perf_counter() - began < seconds:
        for work, taken in zip(works, times, strict=True):
            wait()
            start = time.perf_counter()
            work()
            wait()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def row(problem: str, optimizer: str, setup: ac.TrainingSetup, width: int, args: argparse.Namespace) -> str:
    """Return one row of the table: milliseconds for each run of 100 steps, and ratios."""
    device = torch.device(args.device)
    in_lanes = partial(lanes, setup, width, device, args.planned, Surveys())
    in_lanes()  # traced, as JAX's rival is compiled, before any time is taken
    works = [partial(eager, setup, device), in_lanes, partial(anyhow, setup, width, device)]
    rival = _jax(problem, optimizer, setup, width) if device.type == "cpu" else None
    found = least([*works, *([rival] if rival else [])], args.seconds)
    alone, batched, chosen = found[0], found[1] / width, found[2] / width
    bound: Floor = floor(setup, width, device)
    cells = [
        problem,
        optimizer,
        f"{width}",
        f"{1e3 * alone:.1f}",
        f"{1e3 * batched:.2f}",
        f"{alone / batched:.1f}×",
        f"{alone / chosen:.1f}×",
        f"{found[3] / width / batched:.2f}×" if rival else "not installed" if device.type == "cpu" else "not measured",
        f"{1e3 * bound.products:.2f} + {1e3 * bound.traffic:.2f}",
        f"{100 * (bound.products + bound.traffic) / batched:.0f} %",
    ]
    return "| " + " | ".join(cells) + " |"


def _jax(problem: str, optimizer: str, setup: ac.TrainingSetup, width: int) -> Callable[[], None] | None:
    try:
        from rival_jax import rival  # JAX need not be installed
    except ImportError:
        return None
    return rival(problem, optimizer, setup, width)


HEADER = (
    '| setup | optimizer | runs | eager loop | lanes | lanes against the loop | `backend="auto"` against the loop '
    "| JAX's time over lanes' | floor: products + traffic | of the floor reached |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def cores(count: int) -> None:
    """Print what a process for each core brings over one, in lanes and in the loop."""
    (setup,) = (setup for problem, optimizer, setup in setups() if (problem, optimizer) == ("mid", "Adam"))
    for runs, backend in product((16, 64), ("lanes", "loop")):
        works = [partial(on_threads, threads, setup, runs, backend) for threads in (1, count)]
        one, several = least(works, 0)
        times = f"{one:.1f} s on one core, {several:.1f} s on {count}: {one / several:.2f}×"
        print(f"mid, Adam, {runs} runs, {backend}: {times}", flush=True)


def on_threads(threads: int, setup: ac.TrainingSetup, width: int, backend: str) -> None:
    """Train as many runs with as many threads, each of them a process."""
    torch.set_num_threads(threads)
    ac.run(setup, seeds=range(width), device="cpu", backend=backend)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--widths", default="1,4,16,64,256,1024,4096")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default="small,mid,conv")
    parser.add_argument("--planned", type=int, default=0, help="train in lanes as a part of so many runs")
    parser.add_argument("--cores", action="store_true", help="measure what all cores bring over one, and nothing else")
    args = parser.parse_args()
    if args.cores:
        cores(os.cpu_count() or 1)
    else:
        table(args)


def _accelerator(device: str) -> str:
    """Return what an accelerator is called, and its software; nothing for a CPU."""
    kind = torch.device(device).type
    if kind == "cpu":
        return ""
    named = getattr(torch.get_device_module(kind), "get_device_name", None)
    return f"; {named(device) if named else device}, CUDA {torch.version.cuda}"


def table(args: argparse.Namespace) -> None:
    """Print the table, row by row."""
    torch.set_num_threads(1)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores{_accelerator(args.device)}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{machine}; {versions}; milliseconds for each run of {STEPS} steps\n\n{HEADER}")
    for problem, optimizer, setup in setups():
        if problem not in args.only.split(","):
            continue
        cost = least([partial(eager, setup, torch.device(args.device))], 0)[0]
        for width in map(int, args.widths.split(",")):
            if args.device == "cpu" and width * cost > 4 * args.seconds:
                print(f"| {problem} | {optimizer} | {width} | not run: more than {4 * args.seconds:g} s |" + " |" * 6)
                break
            try:
                print(row(problem, optimizer, setup, width, args), flush=True)
            except (MemoryError, torch.OutOfMemoryError):
                print(f"| {problem} | {optimizer} | {width} | does not fit in memory |" + " |" * 6, flush=True)


if __name__ == "__main__":
    main()
