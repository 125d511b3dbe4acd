"""Which runs can share a batch, and which slot of it each of them has."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

from alignment_checks.backends.job import Job
from alignment_checks.backends.stepping.hyperparameters import made, numbers_of
from alignment_checks.setups.fingerprints import content
from alignment_checks.setups.realization import Realization

Slots = list[int | None]
"""The index of the job in each slot of a batch; None where there is none, and the slot is filled up."""


def structure(run: Realization) -> Hashable:
    """Return what must be equal for two runs to share a batch, their optimizers aside."""
    shapes = tuple((value.shape, value.dtype) for value in (*run.parameters.values(), *(run.data or ())))
    evaluated = (run.batch_size, run.dtype, len(run.noise))
    return (run.objective.structure, run.held, shapes, run.own, run.own_frozen, evaluated)


def consecutive(group: Sequence[Job], width: int) -> list[Slots]:
    """Return batches of the jobs in their order, the last one filled up."""
    batches: list[Slots] = [list(range(start, min(start + width, len(group)))) for start in range(0, len(group), width)]
    return [[*batch, *[None] * (width - len(batch))] for batch in batches]


def at_own_slots(group: Sequence[Job], width: int) -> list[Slots]:
    """Return batches in which each job has the slot that its content decides on."""
    return at_slots([digest(job.train) % width for job in group], width)


def at_slots(wanted: Sequence[int], width: int) -> list[Slots]:
    """Return batches in which each has the slot that it wants."""
    batches: list[Slots] = []
    for index, slot in enumerate(wanted):
        which = next((at for at, batch in enumerate(batches) if batch[slot] is None), len(batches))
        batches += [[None] * width] if which == len(batches) else []
        batches[which][slot] = index
    return batches


def digest(run: Realization) -> int:
    """Return a number that tells what distinguishes a run from others of its structure."""
    numbers = tuple(numbers_of(made(run.optimizer, run)))
    noises = tuple((one.scale, one.seed) for one in run.noise)
    plain = (run.seed, run.objective.coefficients, numbers, run.batch_size, noises)
    found = hashlib.blake2b(repr(plain).encode(), digest_size=8)
    for value in (*run.parameters.values(), *run.constants.values(), *(run.data or ())):
        found.update(content(value))
    return int.from_bytes(found.digest())
