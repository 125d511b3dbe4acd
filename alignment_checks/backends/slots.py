"""Which run stands in which slot of a batch, and whether that matters to its bits.

A kernel may compute one slot otherwise than another (by the alignment of its memory, by how a loop over the batch is
unrolled). Then the order and the company of runs would change their bits, and a replay would not be a replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from alignment_checks import seeding
from alignment_checks.backends.job import Job
from alignment_checks.backends.stacking import Batch, Weights
from alignment_checks.fingerprints import content
from alignment_checks.realization import Realization

Slots = list[int | None]
"""The index of the job in each slot of a batch; None where there is none, and the slot is filled up."""


def slots_matter(run: Realization, device: torch.device, width: int) -> bool:
    """Return whether copies of one run, laid out as its batches are, differ in any bit of their gradients."""
    runs = [run] * width
    weights = Weights.of(runs, device)
    with seeding.isolated(seeding.derive("slots")):
        try:
            found = Batch.of(runs, device).gradient(weights)
        except Exception:  # what cannot be batched says so when it is trained
            return False
    return any(not torch.equal(value, value[:1].expand_as(value)) for value in (found.loss, *found.gradient.values()))


def consecutive(group: Sequence[Job], width: int) -> list[Slots]:
    """Return batches of the jobs in their order, the last one filled up."""
    batches: list[Slots] = [list(range(start, min(start + width, len(group)))) for start in range(0, len(group), width)]
    return [[*batch, *[None] * (width - len(batch))] for batch in batches]


def placed(group: Sequence[Job], width: int) -> list[Slots]:
    """Return batches in which each job has the slot that its content decides on."""
    batches: list[Slots] = []
    for index, job in enumerate(group):
        slot, which = int.from_bytes(_digest(job.train)) % width, 0
        while which < len(batches) and batches[which][slot] is not None:
            which += 1
        batches += [[None] * width] if which == len(batches) else []
        batches[which][slot] = index
    return batches


def _digest(run: Realization) -> bytes:
    """Return a digest of what distinguishes a run from others of its structure."""
    digest = hashlib.blake2b(repr((run.seed, run.objective.coefficients)).encode(), digest_size=8)
    for value in (*run.parameters.values(), *run.constants.values(), *(run.data or ())):
        digest.update(content(value))
    return digest.digest()
