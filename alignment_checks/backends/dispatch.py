"""Which backend trains which jobs, by how many processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import torch

from alignment_checks.backends import batches, loop, plan
from alignment_checks.backends.compilation.graphs import Graphs
from alignment_checks.backends.footprint import Footprint, footprint
from alignment_checks.backends.job import Job, Record
from alignment_checks.backends.layouts import at_own_slots, consecutive, structure
from alignment_checks.backends.remembering import leaves_tensors
from alignment_checks.backends.reproducible import noted, remarks
from alignment_checks.backends.slots import layout, slots_matter
from alignment_checks.backends.stepping.hyperparameters import factories, options_of
from alignment_checks.backends.stepping.refusal import NoLanesError, Refused
from alignment_checks.backends.workers import shared_out
from alignment_checks.objectives import known_by
from alignment_checks.randomness.drawing import Randomness
from alignment_checks.setups.as_found import as_found
from alignment_checks.setups.realization import start
from alignment_checks.setups.surveys import Surveys

ASKED = "asked for"
TOO_FEW = "too few runs of this structure to be faster in lanes"
TOO_LARGE = "runs of this size are no faster in lanes"
KEEPS = "the model or the objective keeps state of its own between calls, other than buffers"


def trained(
    jobs: Sequence[Job],
    device: torch.device,
    backend: str,
    *,
    planned: int,
    processes: int = 1,
    surveys: Surveys | None = None,
) -> Iterator[tuple[int, Record]]:
    """Yield the record of each job: through lanes, in batches of like structure, or through the loop.

    Parameters
    ----------
    jobs : sequence of Job
    device : torch.device
    backend : {"auto", "lanes", "loop"}
    planned : int
        How many runs there are going to be in all, of which these are some.
    processes : int
        How many may train at once.
    surveys : Surveys, optional
        What is known of runs of these structures.
    """
    known, planned = surveys or Surveys(), max(planned, len(jobs))
    if planned == 1 and backend != "lanes":  # no batch is found out about for one run
        yield 0, _looped(jobs[0], device, TOO_FEW if backend == "auto" else ASKED)
        return
    for members in _alike(jobs):
        group = [jobs[index] for index in members]
        share = -(-planned * len(group) // len(jobs))  # of what is planned: each structure is found out about by itself
        records = _Group(group, device, backend, share, processes, known).records()
        yield from zip(members, records, strict=True)


def _alike(jobs: Sequence[Job]) -> list[list[int]]:
    """Return the jobs that can share batches."""
    groups: dict[object, list[int]] = {}
    options: dict[object, object] = {}
    for index, job in enumerate(jobs):
        setup = job.train.setup
        made = (known_by(setup.optimizer), known_by(setup.scheduler), *factories(job.train))
        if made not in options:
            options[made] = options_of(job.train)
        groups.setdefault((structure(job.train), options[made]), []).append(index)
    return list(groups.values())


class _Group:
    """Jobs of like structure."""

    def __init__(
        self,
        jobs: Sequence[Job],
        device: torch.device,
        backend: str,
        planned: int,
        processes: int,
        surveys: Surveys,
    ) -> None:
        self.jobs, self.device, self.backend, self.processes = jobs, device, backend, processes
        first = jobs[0].train
        self.structure, self.surveys = structure(first), surveys
        self.need = surveys.once(first.setup, (self.structure, "footprint"), lambda: footprint(first))
        self.width = plan.width(self.need, device, len(jobs))
        self.chunk = plan.chunk(self.need, device, self.width)
        self.planned = planned
        self.compiled = plan.pays_to_compile(self.need, device, self.width, planned, jobs[0].steps)

    def records(self) -> list[Record]:
        """Train all of them: whole batches in lanes, and what remains of them where it costs less."""
        reason = ASKED if self.backend == "loop" else _refusal(self.jobs[0], self.need) or self.too_large()
        if reason is None:
            try:
                return self.batched()
            except Refused as error:
                reason = str(error)
        if self.backend == "lanes":
            raise NoLanesError(reason)
        return self.looped(self.jobs, reason)

    def too_large(self) -> str | None:
        """Return why not even a full batch would be faster than the loop, None where it is, or lanes were asked for."""
        never = plan.batched(self.need, self.device, self.width, self.width) == 0
        return TOO_LARGE if never and self.backend == "auto" and not self.compiled else None

    def batched(self) -> list[Record]:
        """Train as many as pay in batches, and the rest in the loop."""
        whole = len(self.jobs)
        if self.backend == "auto" and not self.compiled:
            whole = self.cheaper(whole)
        records = self.in_lanes(self.jobs[:whole]) if whole else []
        return [*records, *self.looped(self.jobs[whole:], TOO_FEW)]

    def cheaper(self, runs: int) -> int:
        """Return how many of so many runs cost less in lanes, finding out about them included."""
        beside = plan.Beside.of(self.need, self.device, self.width, self.jobs[0].steps, self.planned)
        return plan.batched(self.need, self.device, self.width, runs, beside)

    def in_lanes(self, jobs: Sequence[Job]) -> list[Record]:
        """Train jobs in batches."""
        probe = next((job for job in jobs if any(score is not None for score in job.scores)), jobs[0])
        which, across = (self.structure, self.device, self.width, layout(probe)), (self.device, self.width, self.chunk)
        matter = self.surveys.once(probe.train.setup, which, lambda: _seen(probe, *across))
        if matter is None:
            raise Refused(KEEPS)
        return batches.train(
            jobs,
            self.need,
            self.device,
            (at_own_slots if matter else consecutive)(jobs, self.width),
            self.graphs(),
            self.processes,
            self.chunk,
            slotted=matter,
        )

    def graphs(self) -> Graphs:
        """Return what the batched functions are called as, the same at every launch; none where that does not pay."""
        first, which = self.jobs[0].train, (self.structure, self.device, self.width, Graphs, self.compiled)
        if not self.compiled and not plan.pays_to_trace(self.planned, self.width, self.jobs[0].steps):
            return Graphs(traces=False)
        return self.surveys.once(first.setup, which, lambda: Graphs(compiles=self.compiled))

    def looped(self, jobs: Sequence[Job], reason: str) -> list[Record]:
        """Train jobs in the loop, one by one."""
        work = plan.milliseconds(self.need, self.device, 1, len(jobs), self.jobs[0].steps)
        tasks = [partial(_looped, job, self.device, reason, self.need) for job in jobs]
        return shared_out(tasks, self.processes if work >= plan.FORKING else 1)


def _seen(job: Job, device: torch.device, width: int, chunk: int | None) -> bool | None:
    """Return whether slots matter, None where an objective that a job is scored by keeps tensors of its calls.

    Of a batched call it would keep what no other code can use.
    """
    others = {score.objective.structure: score for score in job.scores if score is not None}
    others.pop(job.train.objective.structure, None)
    for score in others.values():
        with as_found(score.objective):
            if leaves_tensors(partial(start, score), score.objective):
                return None
    with remarks([]):  # what torch warns of here, it warns of again where runs train
        return slots_matter(job, device, width, chunk)


def _refusal(job: Job, need: Footprint) -> str | None:
    """Return why a job cannot go through lanes, as far as that shows before it is tried; else None."""
    if job.randomness is Randomness.HIDDEN:
        return f"the model {job.randomness.value}"
    if need.stateful:
        return KEEPS
    if need.branches:
        return "the model branches by torch.cond or its like"
    if need.writes:
        return "the model writes into its own parameters"
    if need.sparse:
        return f"the gradient of {need.sparse[0]} is sparse"
    return None


def _looped(job: Job, device: torch.device, reason: str, need: Footprint | None = None) -> Record:
    """Train one job in the loop. On a CPU with one thread every operation gives the same bits each time."""
    notes: list[str] = []
    with nullcontext() if device.type == "cpu" else remarks(notes):
        writes, keeps = (None, None) if need is None else (need.writes, need.keeps)
        record = loop.train(job, device, reason, writes=writes, keeps=keeps)
    return noted([record], notes)[0]
