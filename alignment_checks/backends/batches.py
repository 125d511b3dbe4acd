"""Runs of like structure, trained through lanes in batches of one width, whatever it takes to get them through.

A batch is always as wide as its plan says, filled up with copies of its last run, and where the slot that a run has in
it matters to its bits, the run alone decides on its slot: the same run has the same bits in any company and order.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from alignment_checks.backends import lanes, plan
from alignment_checks.backends.compilation.graphs import Graphs, NotCompiled, NotTraced
from alignment_checks.backends.footprint import Footprint
from alignment_checks.backends.job import Job, Record, because
from alignment_checks.backends.layouts import Slots
from alignment_checks.backends.stepping.apart import ApartRefused, Ways
from alignment_checks.backends.stepping.hyperparameters import factories, origin
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
    *,
    slotted: bool = False,
) -> list[Record]:
    """Train jobs alike in structure in the given batches, and return the record of each.

    Where their slots matter, they are `slotted`: each has the one that it has to have.

    Raises
    ------
    Refused
        If they cannot be batched.
    MemoryError
        If not even one of them fits the device's memory.
    """
    width = len(batches[0])
    trainer = _Trainer(device, need.unused, width, graphs, chunk, width if slotted else None)
    work = plan.milliseconds(need, device, width, len(group), group[0].steps)
    processes = processes if work >= plan.FORKING else 1
    batches = _parted(batches, chunk or width, processes)
    row = sum(value.nbytes for value in group[0].train.parameters.values())
    alike = len({factories(job.train) for job in group}) == 1
    each = plan.load(row, device, width, len(batches), processes) if alike else 1
    tasks = [partial(_trained, trainer, group, batches[at : at + each]) for at in range(0, len(batches), each)]
    found: dict[int, Record] = {}
    for records in shared_out(tasks, processes):
        found.update(records)
    return [found[index] for index in range(len(group))]


def _parted(batches: Sequence[Slots], chunk: int, processes: int) -> Sequence[Slots]:
    """Return batches of the calls of some slots each, where there are fewer of them than processes.

    Each is as wide as before, and each job in its slot: there may be optimizers to whose bits that matters.
    """
    width, shares = len(batches[0]), -(-processes // len(batches))
    part = chunk * -(-width // (shares * chunk))
    starts = [(batch, at) for batch in batches for at in range(0, width, part)]
    parts = [[index if at <= slot < at + part else None for slot, index in enumerate(of)] for of, at in starts]
    return [slots for slots in parts if any(index is not None for index in slots)]


def _trained(trainer: _Trainer, group: Sequence[Job], batches: Sequence[Slots]) -> dict[int, Record]:
    """Train batches together and return the record of each job in them, by its index."""
    load = [index for batch in batches for index in batch]
    idle = [lane for lane, index in enumerate(load) if index is None]
    records = trainer.train([group[index] for batch in batches for index in _filled(batch)], idle)
    return {index: record for index, record in zip(load, records, strict=True) if index is not None}


def _filled(batch: Slots) -> list[int]:
    """Return a batch filled up with copies of its last run."""
    last = next(index for index in reversed(batch) if index is not None)
    return [last if index is None else index for index in batch]


@dataclass
class _Trainer:
    """Batches of like structure, trained in the fastest way that no batch before has refused.

    What one batch refused is not tried again with the next of the same setups, though its own runs might not have
    refused it. So how a run is stepped, and the rounding of it, may depend on the batches of its setup that one process
    trains before it.
    """

    device: torch.device
    unused: Sequence[str]
    width: int
    graphs: Graphs
    chunk: int | None = None
    slots: int | None = None
    wide: bool = True
    left: defaultdict[Hashable, list[Way]] = field(default_factory=lambda: defaultdict(_ways))
    refusals: defaultdict[Hashable, list[str]] = field(default_factory=lambda: defaultdict(list))
    apart: set[Way] = field(default_factory=set)

    def train(self, batch: Sequence[Job], idle: Collection[int] = ()) -> list[Record]:
        """Train a batch from t = 0, and again where a way of stepping, a graph or memory fails, however late.

        Several batches are trained as one while they are stepped as rows, whose bits do not depend on how many.
        """
        while self.wide or len(batch) <= self.width:
            origins = dict.fromkeys(origin(job.train) for job in batch)
            way = Way.WIDE if len(batch) > self.width else self.way(origins)
            try:
                records = lanes.train(
                    batch,
                    self.device,
                    way,
                    self.unused,
                    graphs=self.graphs,
                    chunk=self.chunk,
                    idle=idle,
                    slots=self.slots,
                )
            except StepRefused as error:
                self.refuse(way, origins, error)
            except (NotCompiled, NotTraced) as error:
                self.graphs.refuse(error)
            except MemoryError:
                if len(batch) <= self.width:
                    break  # and halved outside of here: all that the error holds is to be freed first
                self.wide = False
            else:
                pairs = zip(records, batch, strict=True)
                return [replace(record, reason=because(self.reason(job), record.reason)) for record, job in pairs]
        return self.halved(batch, idle) if len(batch) <= self.width else self.in_parts(batch, idle, self.width)

    def way(self, origins: Collection[Hashable]) -> Way | Ways:
        """Return the way to step runs of these setups together, or each setup's where they are to be stepped apart."""
        ways = {one: self.left[one][0] for one in origins}
        first, *others = set(ways.values())
        return ways if others or (len(ways) > 1 and first in self.apart) else first

    def refuse(self, way: Way | Ways, origins: Collection[Hashable], error: StepRefused) -> None:
        """Step in a slower way from here on, and batches each by itself; several setups' first apart in this way."""
        self.wide = False
        if isinstance(way, Way) and len(origins) > 1:
            self.apart.add(way)
        elif way is not Way.WIDE:
            reasons = error.reasons if isinstance(error, ApartRefused) else dict.fromkeys(origins, error)
            for one, reason in reasons.items():
                self.refusals[one].append(f"{self.left[one].pop(0)} was refused: {reason}")

    def halved(self, batch: Sequence[Job], idle: Collection[int]) -> list[Record]:
        """Train a batch that does not fit in memory as two."""
        if len(batch) == 1:
            raise MemoryError(f"one run of this setup does not fit the memory of {self.device}: use less data or model")
        gc.collect()  # tracebacks of what failed, and all that they hold, may be part of a cycle
        half = -(-len(batch) // 2)
        note = f"in batches of at most {half}, for lack of memory"
        records = self.in_parts(batch, idle, half)
        return [replace(record, reason=because(record.reason, note)) for record in records]

    def in_parts(self, batch: Sequence[Job], idle: Collection[int], width: int) -> list[Record]:
        """Train a batch as several, each of as many lanes, but for the last."""
        parts = [range(at, min(at + width, len(batch))) for at in range(0, len(batch), width)]
        left = [[lane - part.start for lane in part if lane in idle] for part in parts]
        left = [of if len(of) < len(part) else [] for of, part in zip(left, parts, strict=True)]
        trained = (self.train(batch[part.start : part.stop], of) for part, of in zip(parts, left, strict=True))
        return [record for records in trained for record in records]

    def reason(self, job: Job) -> str | None:
        """Return why a run's lane is not trained in the fastest way."""
        of = origin(job.train)
        refusals = self.refusals.get(of, [])
        stepped = f"stepped by {self.left[of][0]}, since {because(*refusals)}" if refusals else None
        return because(stepped, *self.graphs.refusals)


def _ways() -> list[Way]:
    """Return how a batch may be stepped, fastest first."""
    return [way for way in Way if way is not Way.WIDE]
