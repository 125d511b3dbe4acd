"""The oracle: the plain PyTorch loop that anyone would write, one run at a time.

Read it as the definition of what is recorded. L(t) and G(t) are taken at the same θ(t), over the whole dataset, before
the step that leaves it, t = 0 and t = T included; taking them changes no buffer and no random state. Every k-th t is
recorded, k = `record_every`, and T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from alignment_checks import seeding
from alignment_checks.backends.job import Job, Record, as_lost, learning_rates, must_be_given
from alignment_checks.objectives import Tensors
from alignment_checks.realization import Realization, loss_of, parameters_of
from alignment_checks.trajectory import End, is_beyond

Visitor = Callable[[Tensors, Tensors], None]


def train(job: Job, device: torch.device, reason: str | None = None, visit: Visitor | None = None) -> Record:
    """Train one run and record it.

    Parameters
    ----------
    job : Job
    device : torch.device
    reason : str, optional
        Why it is trained here.
    visit : callable, optional
        Called with copies of the parameters and of the buffers at every θ(t) that is recorded.
    """
    with seeding.isolated(seeding.derive("run", job.train.seed)):
        return _Loop(job, device).record(reason, visit)


_NOWHERE: Tensors = {}


class _Measured(NamedTuple):
    """L and its gradient at one θ(t); None for a parameter that L does not use."""

    loss: Tensor
    gradient: list[Tensor | None]


class _Loop:
    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device
        self.train = on_device(job.train, device)
        self.scores = [None if score is None else on_device(score, device) for score in job.scores]
        self.module = _instance(self.train, device)
        self.parameters = parameters_of(self.module)
        self.optimizer = self.train.optimizer(list(self.parameters.values()))
        self.scheduler = self.train.scheduler(self.optimizer) if self.train.scheduler else None
        self.batches = _batches(self.train)

    def record(self, reason: str | None, visit: Visitor | None) -> Record:
        steps, mesa, columns = self.job.steps, self.train.setup.mesa, self.job.columns
        base, pursued = np.full((len(self.scores), len(columns)), np.nan), np.full(len(columns), np.nan)
        gone, step = np.zeros(len(self.scores), dtype=bool), _NOWHERE
        for t in range(steps + 1):
            at = columns.get(t)
            found = self.measured() if at is not None else None
            here = {name: p.detach().clone() for name, p in self.parameters.items()}
            if at is not None and found is not None:
                base[:, at] = [float(found.loss) if score is None else self.scored(score) for score in self.scores]
                if visit is not None:
                    visit(here, {name: buffer.clone() for name, buffer in self.module.named_buffers()})
            end = End(here, step, learning_rates(self.optimizer))
            if t < steps or mesa.of == "step":
                self.advance(found)
                step = {name: p.detach() - here[name] for name, p in self.parameters.items()}
            if at is not None and found is not None:
                pursued[at] = float(mesa(step if mesa.of == "step" else _filled(found.gradient, here), here))
                gone |= is_beyond(base[:, at], base[:, 0]) | is_beyond(pursued[at], pursued[0])
            if gone.all():
                end = End(as_lost(here), as_lost(here), end.learning_rate)
                break
        return Record(base, pursued, end, "loop", reason)

    def measured(self) -> _Measured:
        """Return L and its gradient over the whole dataset at θ(t)."""
        with _unchanged(self.module, training=not self.job.random):
            loss = _loss(self.module, self.train)
            gradient = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        return _Measured(loss.detach(), list(gradient))

    def scored(self, score: Realization) -> float:
        """Return L under another realization at θ(t)."""
        with torch.no_grad(), _unchanged(self.module, training=not self.job.random):
            return float(_loss(self.module, score))

    def advance(self, found: _Measured | None) -> None:
        """Take one optimizer step. Where it is the plain step on the whole dataset, its gradient may be at hand."""
        self.module.train()
        batch = next(self.batches)
        if must_be_given(self.optimizer.step):
            loss: Tensor = self.optimizer.step(partial(self.backward, batch))  # type: ignore[arg-type, assignment]
        else:
            loss = self.backward(batch) if found is None or self.differs(batch) else self.given(found)
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step(*[float(loss)] if must_be_given(self.scheduler.step) else [])

    def differs(self, batch: Tensor | None) -> bool:
        """Return whether the step's own forward pass does anything that measuring L(t) has not done."""
        return batch is not None or self.job.random or any(True for _ in self.module.buffers())

    def given(self, found: _Measured) -> Tensor:
        """Leave a gradient that is at hand in the parameters."""
        for parameter, g in zip(self.parameters.values(), found.gradient, strict=True):
            parameter.grad = None if g is None else g.clone()
        return found.loss

    def backward(self, batch: Tensor | None) -> Tensor:
        """Leave the gradient of one batch, None for the whole dataset, in the parameters."""
        with torch.enable_grad():
            self.optimizer.zero_grad()
            loss = _loss(self.module, self.train, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def on_device(run: Realization, device: torch.device) -> Realization:
    """Return `run` with its data on `device`, itself where it is there already."""
    if run.data is None or all(part.device == device for part in run.data):
        return run
    return replace(run, data=tuple(part.to(device) for part in run.data))


def _instance(run: Realization, device: torch.device) -> nn.Module:
    module = deepcopy(run.module).to(device)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            tensor.copy_(run.parameters[name] if name in run.parameters else run.constants[name])
    return module


def _loss(module: nn.Module, run: Realization, batch: Tensor | None = None) -> Tensor:
    inputs, targets = run.inputs, run.targets
    if batch is not None:
        inputs, targets = tuple(part[batch] for part in inputs), None if targets is None else targets[batch]
    return loss_of(run)(module(*inputs), targets, parameters_of(module))


class _unchanged:  # noqa: N801
    """Evaluate in the given mode, and leave the buffers and the mode as they were."""

    def __init__(self, module: nn.Module, *, training: bool) -> None:
        self.module, self.training = module, training

    def __enter__(self) -> None:
        self.buffers = [buffer.clone() for buffer in self.module.buffers()]
        self.module.train(self.training)

    def __exit__(self, *exception: object) -> None:
        for buffer, before in zip(self.module.buffers(), self.buffers, strict=True):
            buffer.copy_(before)


def _batches(run: Realization) -> Iterator[Tensor | None]:
    """Yield the examples of each step: None for all of them, else an epoch's random order cut into minibatches."""
    random, size = seeding.generator("batches", run.seed), run.setup.batch_size
    while True:
        if size is None:
            yield None
        else:
            order = torch.randperm(run.examples, generator=random)
            yield from (order[start : start + size] for start in range(0, run.examples, size))


def _filled(gradient: list[Tensor | None], parameters: Tensors) -> Tensors:
    pairs = zip(parameters.items(), gradient, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}
