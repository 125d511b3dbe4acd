"""Which backend trains which jobs, in which batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from alignment_checks.backends import lanes, loop
from alignment_checks.backends.job import Job, Record
from alignment_checks.backends.stepping.refusal import Refused

TOO_FEW = "too few runs of this structure to be faster in lanes"
FEWEST_LANES = 3
"""Fewer runs than this cost less in the loop than as a batch."""


def trained(jobs: Sequence[Job], device: torch.device, backend: str) -> Iterator[tuple[int, Record]]:
    """Yield the record of each job: through lanes, in batches of like structure, or through the loop."""
    for members in _alike(jobs):
        records = _group([jobs[index] for index in members], device, backend)
        yield from zip(members, records, strict=True)


def _alike(jobs: Sequence[Job]) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(lanes.structure(job.train), []).append(index)
    return list(groups.values())


def _group(group: Sequence[Job], device: torch.device, backend: str) -> list[Record]:
    reason = _reason_for_loop(group, backend)
    if reason is None:
        try:
            size = lanes.width(group[0].train, device)
            batches = [group[start : start + size] for start in range(0, len(group), size)]
            return [record for batch in batches for record in lanes.train(batch, device)]
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
    return lanes.refusal(group[0], lanes.footprint(group[0].train).unused)


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
