"""Whether it matters to the bits of a run in which slot of a batch it stands.

A kernel may compute one slot otherwise than another (by the alignment of its memory, by how a loop over the batch is
unrolled). Then the order and the company of runs would change their bits, and a replay would not be a replay.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from alignment_checks.backends.job import Job
from alignment_checks.backends.layouts import structure
from alignment_checks.backends.leftover import Leftover
from alignment_checks.backends.minibatches import disturbed, noise, stacked_minibatches
from alignment_checks.backends.stacking import Batch, Found
from alignment_checks.backends.weights import Weights
from alignment_checks.randomness import seeding
from alignment_checks.setups.realization import Realization


def slots_matter(job: Job, device: torch.device, width: int, chunk: int | None = None) -> bool:
    """Return whether copies of one job, laid out as its batches are, differ in any bit of what is found of them.

    That is what is measured, scored, and stepped along, on as many examples as any step has. What cannot be
    found out counts as a difference: training says why.
    """
    left = Leftover()
    with seeding.isolated(seeding.derive("slots")), left if device.type == "cpu" else nullcontext():
        try:
            found = _found(job, device, width, chunk)
            return any(left.matters or not torch.equal(one, one[:1].expand_as(one)) for one in found)
        except Exception:
            return True


def layout(job: Job) -> Hashable:
    """Return what of a job decides how it is laid out in a batch, beside the structure of its training run."""
    return job.random, job.train.setup.mesa.structure, frozenset(_scores(job))


def _found(job: Job, device: torch.device, width: int, chunk: int | None) -> Iterator[Tensor]:
    """Yield what is found at θ(0) of copies of a job, each tensor of shape (copies, ...)."""
    run, runs = job.train, [job.train] * width
    weights, lowered = Weights.of(runs, device), run.dtype is not None
    whole = Batch.of(runs, device, random=job.random, lowered=lowered, chunk=chunk)
    mesa = run.setup.mesa if run.setup.mesa.of == "gradient" else None
    yield from _values(replace(whole, mesa=mesa).gradient(weights))
    stepped = whole.stepping(run.dtype)
    for examples in _first_and_last(runs, device):
        found = stepped.on(examples).gradient(weights)
        yield from _values(found)
        for which in range(len(run.noise)):
            yield from disturbed(found.gradient, *noise(runs, which, device), 0).values()
    for score in _scores(job).values():
        owners = list(range(width))
        batch = Batch.of([score] * width, device, owners, random=job.random, lowered=lowered, chunk=chunk)
        yield batch.value(weights)


def _values(found: Found) -> Iterator[Tensor]:
    yield from (found.loss, *found.gradient.values(), *found.buffers.values())
    if found.mesa is not None:
        yield found.mesa


def _first_and_last(runs: Sequence[Realization], device: torch.device) -> list[Tensor | None]:
    """Return the first minibatch of an epoch and, where that is shorter, the last; None is all examples."""
    size, examples = runs[0].batch_size, runs[0].examples
    epoch = list(islice(stacked_minibatches(runs, device), 1 if size is None else -(-examples // size)))
    return epoch[:1] if size is None or examples % size == 0 else [epoch[0], epoch[-1]]


def _scores(job: Job) -> dict[Hashable, Realization]:
    """Return a realization of each structure that a job is scored under."""
    return {structure(score): score for score in job.scores if score is not None}
