"""The oracle: the plain PyTorch loop that anyone would write, one run at a time.

Read it as the definition of what is recorded. L(t) and G(t) are taken at the same θ(t), over the whole dataset, before
the step that leaves it, t = 0 and t = T included; taking them changes no buffer and no random state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial

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
        Called with copies of the parameters and of the buffers at every θ(t).
    """
    with seeding.isolated(seeding.derive("run", job.train.seed)):
        return _Loop(job, device).record(reason, visit)


_NOWHERE: Tensors = {}


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
        steps, mesa = self.job.steps, self.train.setup.mesa
        base, pursued = np.full((len(self.scores), steps + 1), np.nan), np.full(steps + 1, np.nan)
        gone, step = np.zeros(len(self.scores), dtype=bool), _NOWHERE
        for t in range(steps + 1):
            loss, gradient = self.measured()
            base[:, t] = [float(loss) if score is None else self.scored(score) for score in self.scores]
            here = {name: p.detach().clone() for name, p in self.parameters.items()}
            end = End(here, step, learning_rates(self.optimizer))
            if visit is not None:
                visit(here, {name: buffer.clone() for name, buffer in self.module.named_buffers()})
            if t < steps or mesa.of == "step":
                self.advance(loss, gradient)
                step = {name: p.detach() - here[name] for name, p in self.parameters.items()}
            pursued[t] = float(mesa(step if mesa.of == "step" else _filled(gradient, here), here))
            gone |= is_beyond(base[:, t], base[:, 0]) | is_beyond(pursued[t], pursued[0])
            if gone.all():
                end = End(as_lost(here), as_lost(here), end.learning_rate)
                break
        return Record(base, pursued, end, "loop", reason)

    def measured(self) -> tuple[Tensor, list[Tensor | None]]:
        """Return L and its gradient over the whole dataset at θ(t); None for a parameter that L does not use."""
        with _unchanged(self.module, training=not self.job.random):
            loss = _loss(self.module, self.train)
            gradient = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        return loss.detach(), list(gradient)

    def scored(self, score: Realization) -> float:
        """Return L under another realization at θ(t)."""
        with torch.no_grad(), _unchanged(self.module, training=not self.job.random):
            return float(_loss(self.module, score))

    def advance(self, loss: Tensor, gradient: list[Tensor | None]) -> None:
        """Take one optimizer step. Where it is the plain step on the whole dataset, its gradient is at hand."""
        self.module.train()
        batch = next(self.batches)
        if must_be_given(self.optimizer.step):
            loss = self.optimizer.step(partial(self.backward, batch))  # type: ignore[arg-type, assignment]
        else:
            loss = self.backward(batch) if self.differs(batch) else self.given(loss, gradient)
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step(*[float(loss)] if must_be_given(self.scheduler.step) else [])

    def differs(self, batch: Tensor | None) -> bool:
        """Return whether the step's own forward pass does anything that measuring L(t) has not done."""
        return batch is not None or self.job.random or any(True for _ in self.module.buffers())

    def given(self, loss: Tensor, gradient: list[Tensor | None]) -> Tensor:
        """Leave a gradient that is at hand in the parameters."""
        for parameter, g in zip(self.parameters.values(), gradient, strict=True):
            parameter.grad = None if g is None else g.clone()
        return loss

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
