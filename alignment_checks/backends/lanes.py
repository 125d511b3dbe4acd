"""Many runs at once, one lane each: what `loop` does, batched by `torch.func`.

The lanes of a batch are alike in structure: one `vmap(grad_and_value(functional_call))` serves the step of them
all, and `stepping` moves the stacked parameters. What no lane changes is not copied.
A few numbers are read back from the device every 16 steps, and all that is recorded after the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from alignment_checks.backends.allocation import keep_freed
from alignment_checks.backends.compilation.graphs import Graphs, NotCompiled, NotTraced
from alignment_checks.backends.job import Job, Record, as_lost, is_lost, on_host
from alignment_checks.backends.lost import Lost
from alignment_checks.backends.minibatches import disturbed, noise, stacked_minibatches
from alignment_checks.backends.reproducible import noted, remarks
from alignment_checks.backends.scores import Scores
from alignment_checks.backends.stacking import Batch, Found
from alignment_checks.backends.stepping.apart import Ways, stepper_of
from alignment_checks.backends.stepping.refusal import Refused, first_line, is_broken, is_out_of_memory
from alignment_checks.backends.stepping.stepper import Way
from alignment_checks.backends.weights import Weights
from alignment_checks.heartbeat import beat
from alignment_checks.inspection.placement import beside, placed, told_of
from alignment_checks.objectives import Tensors
from alignment_checks.randomness import seeding
from alignment_checks.trajectory import End, Series


def train(
    jobs: Sequence[Job],
    device: torch.device,
    way: Way | Ways = Way.FLATTENED,
    unused: Sequence[str] = (),
    *,
    graphs: Graphs | None = None,
    chunk: int | None = None,
    idle: Collection[int] = (),
    slots: int | None = None,
) -> list[Record]:
    """Train jobs whose training runs are alike in `structure` as one batch.

    Parameters
    ----------
    jobs : sequence of Job
    device : torch.device
    way : Way
        How the optimizers are to be stepped.
    unused : sequence of str
        Parameters that the loss does not use.
    graphs : Graphs, optional
        What calls the batched functions, the same for all batches of a structure; None is `vmap` itself.
    chunk : int, optional
        How many lanes are evaluated by one call; None is all of them.
    idle : collection of int
        Lanes that only fill the batch up: their records mean nothing.
    slots : int, optional
        How many slots a batch has, where it matters to the bits of a lane in which one it stands.

    Raises
    ------
    NotTraced, NotCompiled
        If there can be no graph.
    MemoryError
        If the batch does not fit the device's memory.
    StepRefused
        If the optimizers cannot be stepped in this way; a slower way may do.
    Refused
        If the model or the optimizer cannot be batched.
    """
    notes: list[str] = []
    keep_freed(device)
    try:
        with told_of(device), remarks(notes), seeding.isolated(seeding.derive("lanes")):
            records = _Lanes(jobs, device, way, unused, graphs or Graphs(traces=False), chunk, idle, slots).recorded()
    except (Refused, NotTraced, NotCompiled):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(first_line(error)) from error
        if is_broken(error):
            raise
        raise Refused(f"torch.func cannot batch it: {first_line(error)}") from error
    return noted(records, notes)


class _Lanes:
    """A batch of runs at some θ(t), and what is recorded of them."""

    def __init__(
        self,
        jobs: Sequence[Job],
        device: torch.device,
        way: Way | Ways,
        unused: Sequence[str],
        graphs: Graphs,
        chunk: int | None = None,
        idle: Collection[int] = (),
        slots: int | None = None,
    ) -> None:
        runs = [job.train for job in jobs]
        self.jobs, self.run, self.mesa = jobs, runs[0], placed(runs[0].setup.mesa, device)
        self.lost, self.asked = Lost(jobs, idle), [lane for lane in range(len(jobs)) if lane not in idle]
        self.weights = Weights.of(runs, device)
        lowered = self.run.dtype is not None
        whole = Batch.of(runs, device, random=jobs[0].random, lowered=lowered, chunk=chunk, idle=idle)
        self.stepped = whole.stepping(self.run.dtype)
        self.one = self.stepped is whole
        self.whole = replace(whole, mesa=self.mesa if self.mesa.of == "gradient" else None)
        self.scores = list(Scores.of(jobs, device, chunk or len(jobs), idle, slots))
        self.graphs = graphs
        if graphs.traces:
            self.trace(graphs)
        self.minibatches = stacked_minibatches(runs, device)
        self.noises = [noise(runs, which, device) for which in range(len(self.run.noise))]
        self.dtype = None if self.run.dtype is None else next(iter(self.run.parameters.values())).dtype
        self.stepper = stepper_of(runs, self.weights.now(), way, unused, idle)

    def trace(self, graphs: Graphs) -> None:
        """Have all batched functions called as graphs."""
        self.whole = _as_graph(graphs, "measured", self.whole)
        self.stepped = _as_graph(graphs, "stepped", self.stepped)
        self.scores = [replace(one, batch=_as_graph(graphs, "scored", one.batch)) for one in self.scores]

    def recorded(self) -> list[Record]:
        """Train to T and return what each job left."""
        steps, columns = self.jobs[0].steps, self.jobs[0].columns
        losses, pursued = (self.unwritten(len(self.jobs)) for _ in range(2))
        scored = [self.unwritten(len(one.where)) for one in self.scores]
        end, rates = End({}, {}, ()), list[tuple[float, ...]]()  # stacked, and of each lane
        step: Tensors = {}
        for t in range(steps + 1):
            self.begin(t, steps)
            at = columns.get(t)
            found = self.whole.gradient(self.weights) if at is not None else None
            if at is not None and found is not None:
                losses[at] = found.loss
                self.score(at, scored)
                if found.mesa is not None:
                    pursued[at] = found.mesa
            here = self.weights.snapshot(self.dtype) if t >= steps - 1 or self.mesa.of == "step" else {}
            if t == steps:
                end, rates = End(here, step, ()), self.stepper.learning_rates()
            if t < steps or self.mesa.of == "step":
                found = self.descended(t, found)
                self.weights.buffers.update(found.buffers)
                self.stepper.step(found.gradient, found.loss)
                step = {n: value - here[n] for n, value in self.weights.now(self.dtype).items()} if here else {}
            if at is not None and self.mesa.of == "step":
                with beside(here):
                    pursued[at] = vmap(self.mesa)(step, here)
            if self.over(t, at, losses, pursued, scored):
                end, rates = End(self.weights.now(self.dtype), {}, ()), self.stepper.learning_rates()
                break
        self.stepper.settle()
        end = on_host(end)
        return self.records(losses, scored, pursued, {lane: _end(end, lane, rates[lane]) for lane in self.asked})

    def score(self, at: int, scored: list[Tensor]) -> None:
        """Record L under each score."""
        for row, one in zip(scored, self.scores, strict=True):
            row[at] = one.values(self.weights)

    def begin(self, t: int, steps: int) -> None:
        """Give a sign of life, and have graphs compared with what they were traced from where they end."""
        beat(t, steps)
        if t == steps:
            self.graphs.audit()
        elif t == steps - 1 and self.stepped.graph is not None:
            self.stepped.graph.audit()

    def descended(self, t: int, found: Found | None) -> Found:
        """Return the gradient that a step takes, its loss, and the buffers after it; what was measured may be it."""
        examples = next(self.minibatches)
        if found is None or examples is not None or not self.one:
            found = self.stepped.on(examples).gradient(self.weights, t)
        gradient = found.gradient
        for seeds, scales in self.noises:
            gradient = disturbed(gradient, seeds, scales, t)
        return found._replace(gradient=gradient)

    def over(self, t: int, at: int | None, losses: Tensor, pursued: Tensor, scored: list[Tensor]) -> bool:
        """Return whether all lanes have diverged; calls of such alone are left out from here on."""
        of_scores = [(one.where, row) for row, one in zip(scored, self.scores, strict=True)]
        if at is None or t == self.jobs[0].steps or not self.lost.look(t, at, losses, pursued, of_scores):
            return False
        if not self.lost.all:
            lanes = self.lost.lanes
            self.whole, self.stepped = (replace(batch, idle=lanes) for batch in (self.whole, self.stepped))
            self.scores = [one.without(lanes) for one in self.scores]
            self.graphs.audit()  # of as many calls as there are now
        return self.lost.all

    def unwritten(self, width: int) -> Tensor:
        """Return a record (records, width) of NaN on the device, in float32 or wider."""
        some = next(iter(self.weights.trainable.values()))
        dtype = torch.promote_types(self.dtype or some.dtype, torch.float32)
        return torch.full((len(self.jobs[0].columns), width), torch.nan, device=some.device, dtype=dtype)

    def records(self, losses: Tensor, scored: list[Tensor], pursued: Tensor, ends: dict[int, End]) -> list[Record]:
        """Deal out what was recorded: one record for each job, one row for each of its scores.

        Lanes that nobody asked for have that of another, since dealing out takes Python for each.
        """
        mesa = _series(pursued)
        base = [np.repeat(row[None], len(job.scores), 0) for row, job in zip(_series(losses), self.jobs, strict=True)]
        for rows, one in zip(scored, self.scores, strict=True):
            for values, (lane, index) in zip(_series(rows), one.where, strict=True):
                base[lane][index] = values
        found = {
            lane: Record(base[lane], mesa[lane], _lost(end) if is_lost(base[lane], mesa[lane]) else end, "lanes", None)
            for lane, end in ends.items()
        }
        return [found.get(lane, found[self.asked[-1]]) for lane in range(len(self.jobs))]


def _as_graph(graphs: Graphs, role: str, batch: Batch) -> Batch:
    mesa = None if batch.mesa is None else batch.mesa.structure
    kind = (role, batch.objective.structure, mesa, batch.module.training)
    return replace(batch, graph=graphs.of(kind))


def _series(record: Tensor) -> Series:
    """Return a record as rows of float64 in host memory, shape (width, records)."""
    return np.ascontiguousarray(record.cpu().double().numpy().T)


def _end(stacked: End, lane: int, learning_rate: tuple[float, ...]) -> End:
    """Return where one lane ended."""
    of = (stacked.parameters, stacked.step)
    parameters, step = ({name: value[lane].clone() for name, value in values.items()} for values in of)
    return End(parameters, step, learning_rate)


def _lost(end: End) -> End:
    return End(as_lost(end.parameters), as_lost(end.parameters), end.learning_rate)
