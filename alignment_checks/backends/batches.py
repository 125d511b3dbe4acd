"""Runs of like structure, trained through lanes in batches of one width, whatever it takes to get them through.

A batch is always as wide as its plan says, filled up with copies of its last run, and where the slot that a run has in
it matters to its bits, the run alone decides on its slot: the same run has the same bits in any company and order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from alignment_checks.backends import lanes, plan
from alignment_checks.backends.footprint import Footprint
from alignment_checks.backends.graphs import Graphs, NotCompiled, NotTraced
from alignment_checks.backends.job import Job, Record
from alignment_checks.backends.slots import Slots
from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.backends.stepping.stepper import Way
from alignment_checks.backends.workers import shared_out


def train(
    group: Sequence[Job],
    need: Footprint,
    device: torch.device,
    batches: Sequence[Slots],
    graphs: Graphs,
    processes: int,
    chunk: int | None = None,
) -> list[Record]:
    """Train jobs alike in structure in the given batches, and return the record of each.

    Raises
    ------
    Refused
        If they cannot be batched.
    MemoryError
        If not even one of them fits the device's memory.
    """
    width = len(batches[0])
    trainer = _Trainer(device, need.unused, graphs, chunk)
    work = plan.milliseconds(need, width, len(group), group[0].steps)
    tasks = [partial(_trained, trainer, group, batch) for batch in batches]
    found: dict[int, Record] = {}
    for records in shared_out(tasks, processes if work >= plan.FORKING else 1):
        found.update(records)
    return [found[index] for index in range(len(group))]


def _trained(trainer: _Trainer, group: Sequence[Job], batch: Slots) -> dict[int, Record]:
    """Train one batch and return the record of each job in it, by its index."""
    last = next(index for index in reversed(batch) if index is not None)
    records = trainer.train([group[last if index is None else index] for index in batch])
    return {index: record for index, record in zip(batch, records, strict=True) if index is not None}


@dataclass
class _Trainer:
    """Batches of like structure, trained in the fastest way that no batch before has refused.

    What one batch refused is not tried again with the next, though its own runs might not have refused it. So how a
    run is stepped, and the rounding of it, depends on the batches that one process trains before it.
    """

    device: torch.device
    unused: Sequence[str]
    graphs: Graphs
    chunk: int | None = None
    ways: list[Way] = field(default_factory=lambda: list(Way))
    refusals: list[str] = field(default_factory=list)

    def train(self, batch: Sequence[Job]) -> list[Record]:
        """Train a batch from t = 0, and again where a way of stepping, a graph or memory fails, however late."""
        while True:
            try:
                records = lanes.train(
                    batch, self.device, self.ways[0], self.unused, graphs=self.graphs, chunk=self.chunk
                )
            except StepRefused as error:
                self.refusals.append(f"{self.ways.pop(0)} was refused: {error}")
            except (NotCompiled, NotTraced) as error:
                self.graphs.refuse(error)
            except MemoryError:
                return self.halved(batch)
            else:
                return [replace(record, reason=lanes.because(self.reason, record.reason)) for record in records]

    def halved(self, batch: Sequence[Job]) -> list[Record]:
        """Train a batch that does not fit in memory as two."""
        if len(batch) == 1:
            raise MemoryError(f"one run of this setup does not fit the memory of {self.device}: use less data or model")
        half = len(batch) // 2
        note = f"in batches of at most {len(batch) - half}, for lack of memory"
        return [
            replace(r, reason=lanes.because(r.reason, note))
            for part in (batch[:half], batch[half:])
            for r in self.train(part)
        ]

    @property
    def reason(self) -> str | None:
        """Why lanes are not trained in the fastest way."""
        stepped = f"stepped by {self.ways[0]}, since {lanes.because(*self.refusals)}" if self.refusals else None
        return lanes.because(stepped, *self.graphs.refusals)
