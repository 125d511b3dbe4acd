"""L of the lanes of a batch under other realizations than those that they train on."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alignment_checks.backends.job import Job
from alignment_checks.backends.layouts import Slots, at_slots, digest, structure
from alignment_checks.backends.stacking import Batch
from alignment_checks.backends.weights import Weights
from alignment_checks.setups.realization import Realization


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores alike in structure, evaluated together.

    Attributes
    ----------
    where : list of (int, int)
        The lane and the score of each, by index.
    slots : list of int
        Where in the batch each of them stands.
    at : Tensor
        The same, on the device: nothing is copied there as they are measured.
    batch : Batch
    """

    where: list[tuple[int, int]]
    slots: list[int]
    at: Tensor
    batch: Batch

    @classmethod
    def of(
        cls, jobs: Sequence[Job], device: torch.device, chunk: int, idle: Collection[int], slots: int | None
    ) -> Iterator[Scores]:
        """Yield the scores of a batch of jobs, evaluated by calls of `chunk`.

        Where slots matter, and there are so many in a batch, run and score alone decide on that of a score.
        """
        groups: dict[Hashable, list[tuple[int, int, Realization]]] = {}
        for lane, job in enumerate(jobs):
            for index, score in enumerate(job.scores):
                if score is not None and lane not in idle:
                    groups.setdefault(structure(score), []).append((lane, index, score))
        for group in groups.values():
            for layer in _layers(group, jobs, slots):
                yield cls._laid_out(jobs, [None if one is None else group[one] for one in layer], device, chunk)

    @classmethod
    def _laid_out(
        cls, jobs: Sequence[Job], layer: Sequence[tuple[int, int, Realization] | None], device: torch.device, chunk: int
    ) -> Scores:
        first = next(one for one in layer if one is not None)
        filled = [one or first for one in layer]
        batch = Batch.of(
            [score for _, _, score in filled],
            device,
            [lane for lane, _, _ in filled],
            random=jobs[0].random,
            lowered=jobs[0].train.dtype is not None,
            chunk=chunk,
            idle=[slot for slot, one in enumerate(layer) if one is None],
        )
        asked = {slot: (one[0], one[1]) for slot, one in enumerate(layer) if one is not None}
        return cls(list(asked.values()), list(asked), torch.tensor(list(asked), device=device), batch)

    def values(self, weights: Weights) -> Tensor:
        """Return each score's loss, shape (scores,)."""
        found = self.batch.value(weights)
        return found if len(self.slots) == len(found) else found[self.at]

    def without(self, lanes: Collection[int]) -> Scores:
        """Return what leaves out scores of lanes that nobody asks for, unless that is all of them."""
        gone = {slot for slot, (lane, _) in zip(self.slots, self.where, strict=True) if lane in lanes}
        if len(gone) == len(self.slots):
            return self
        return replace(self, batch=replace(self.batch, idle=self.batch.idle.union(gone)))


def _layers(group: Sequence[tuple[int, int, Realization]], jobs: Sequence[Job], slots: int | None) -> list[Slots]:
    """Return batches of the members of a group, by index."""
    if slots is None:
        return [[*range(len(group))]]
    runs = {lane: digest(jobs[lane].train) for lane, _, _ in group}
    return at_slots([(runs[lane] + digest(score)) % slots for lane, _, score in group], slots)
