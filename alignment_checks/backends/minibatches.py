"""The order in which a run visits its examples, and the noise on its gradients: from the run's own seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from alignment_checks.objectives import Tensors
from alignment_checks.randomness import philox, seeding
from alignment_checks.randomness.drawing import NOISE
from alignment_checks.randomness.philox import Place
from alignment_checks.setups.realization import GradientNoise, Realization


def minibatches(run: Realization, device: torch.device) -> Iterator[Tensor | None]:
    """Yield the examples of each step: None for all of them, else an epoch's random order cut into minibatches.

    The last minibatch of an epoch is short where the examples do not divide.
    """
    for examples in stacked_minibatches([run], device):
        yield None if examples is None else examples[0]


def stacked_minibatches(runs: Sequence[Realization], device: torch.device) -> Iterator[Tensor | None]:
    """Yield the minibatches of runs with as many examples each side by side, shape (runs, size)."""
    randoms, size, examples = [seeding.generator("batches", r.seed) for r in runs], runs[0].batch_size, runs[0].examples
    while True:
        if size is None:
            yield None
        else:
            orders = torch.stack([torch.randperm(examples, generator=random, device="cpu") for random in randoms]).to(
                device
            )
            yield from (orders[:, start : start + size] for start in range(0, examples, size))


def noise(runs: Sequence[Realization], which: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return seed and scale of each run's noise number `which`, shape (runs,)."""
    noises = [run.noise[which] for run in runs]
    seeds = [_seed(run, one) for run, one in zip(runs, noises, strict=True)]
    scales = [one.scale for one in noises]
    return torch.tensor(seeds, device=device), torch.tensor(scales, dtype=torch.float64, device=device)


def _seed(run: Realization, one: GradientNoise) -> int:
    return seeding.derive("gradient noise", run.seed, one.seed)


def disturbed(gradient: Tensors, seeds: Tensor, scales: Tensor, step: int) -> dict[str, Tensor]:
    """Return the gradient, each tensor of shape (runs, …), with Gaussian noise on it.

    The noise of a run and step is the same at any scale.
    """
    sizes = [value[0].numel() for value in gradient.values()]
    normal = philox.normals(seeds, Place(NOISE, step, 0), sum(sizes)) * scales[:, None]
    parts = zip(gradient.items(), torch.split(normal, sizes, 1), strict=True)
    return {name: value + part.reshape(value.shape).to(value.dtype) for (name, value), part in parts}
