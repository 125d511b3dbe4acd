"""Which backend trains which jobs, in which batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from alignment_checks.backends import lanes, loop
from alignment_checks.backends.job import Job, Record
from alignment_checks.backends.stepping.refusal import Refused, StepRefused
from alignment_checks.backends.stepping.stepper import Way

TOO_FEW = "too few runs of this structure to be faster in lanes"
FEWEST_LANES = 3
"""Fewer runs than this cost less in the loop than as a batch."""


def trained(jobs: Sequence[Job], device: torch.device, backend: str) -> Iterator[tuple[int, Record]]:
    """Yield the record of each job: through lanes, in batches of like structure, or through the loop."""
    for members in _alike(jobs):
        records = _group([jobs[index] for index in members], device, backend)
        yield from zip(members, records, strict=True)


def _alike(jobs: Sequence[Job]) -> list[list[int]]:
    """Return the jobs that can share batches, those of equal factories side by side, lone ones last."""
    groups: dict[object, dict[object, list[int]]] = {}
    for index, job in enumerate(jobs):
        run = job.train
        groups.setdefault(lanes.structure(run), {}).setdefault((run.optimizer, run.scheduler), []).append(index)
    return [[i for same in sorted(group.values(), key=_is_lone) for i in same] for group in groups.values()]


def _is_lone(members: list[int]) -> bool:
    return len(members) == 1


def _group(group: Sequence[Job], device: torch.device, backend: str) -> list[Record]:
    reason = _reason_for_loop(group, backend)
    if reason is None:
        try:
            size = lanes.width(group[0].train, device)
            batches = [group[start : start + size] for start in range(0, len(group), size)]
            stepped = _Stepped(device, lanes.footprint(group[0].train).unused)
            return [record for batch in batches for record in stepped.train(batch)]
        except Refused as error:
            reason = str(error)
    if backend == "lanes":
        raise RuntimeError(f"backend='lanes' cannot train this setup: {reason}. backend='auto' takes the loop instead")
    return [loop.train(job, device, reason) for job in group]


def _reason_for_loop(group: Sequence[Job], backend: str) -> str | None:
    if backend == "loop":
        return "asked for"
    if backend == "auto" and len(group) < FEWEST_LANES:
        return TOO_FEW
    return lanes.refusal(group[0], lanes.footprint(group[0].train))


class _Stepped:
    """Batches of like structure, trained in the fastest way of stepping that no batch before has refused."""

    def __init__(self, device: torch.device, unused: Sequence[str]) -> None:
        self.device, self.unused = device, unused
        self.ways, self.refusals = list(Way), list[str]()

    def train(self, batch: Sequence[Job]) -> list[Record]:
        """Train a batch from t = 0, and again in the next way where one is refused, however late."""
        while True:
            try:
                records = lanes.train(batch, self.device, self.ways[0], self.unused)
            except StepRefused as error:
                self.refusals.append(f"{self.ways.pop(0)} was refused: {error}")
            else:
                return [replace(record, reason=lanes.because(self.reason, record.reason)) for record in records]

    @property
    def reason(self) -> str | None:
        """Why lanes are not stepped in the fastest way."""
        return f"stepped by {self.ways[0]}, since {lanes.because(*self.refusals)}" if self.refusals else None


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Run with one intra-op thread: bits differ by thread count, and a replay has to be a replay."""
    before = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
