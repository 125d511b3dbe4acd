"""The oracle: the plain PyTorch loop that anyone would write, one run at a time.

Read it as the definition of what is recorded. L(t) and G(t) are taken at the same θ(t), over the whole dataset, before
the step that leaves it, t = 0 and t = T included. Every k-th t is recorded, k = `record_every`, and T.

Taking them changes nothing of the run: no buffer, no random state, no attribute of model or objective. So a run
trains as it would if nothing were measured. A model that sets something in its first call, by the examples that it is
called with, sets it twice: as it is measured at t = 0, by all examples; and in its first step, by those of that step,
as if it had never been called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from alignment_checks.backends.instances import Observed, instance, on_device, trainable
from alignment_checks.backends.job import Job, Record, as_lost, on_host
from alignment_checks.backends.minibatches import disturbed, minibatches, noise
from alignment_checks.backends.stepping.single import learning_rates, must_be_given, needs_closure
from alignment_checks.heartbeat import beat
from alignment_checks.inspection.placement import made_on, placed, told_of
from alignment_checks.objectives import Tensors
from alignment_checks.randomness import seeding
from alignment_checks.randomness.drawing import STEP, drawing
from alignment_checks.setups.as_found import as_found
from alignment_checks.setups.realization import Realization, loss_of, lowered
from alignment_checks.trajectory import End, bound

Visitor = Callable[[Tensors, Tensors], None]


def train(
    job: Job,
    device: torch.device,
    reason: str | None = None,
    visit: Visitor | None = None,
    *,
    writes: bool | None = None,
    keeps: bool | None = None,
) -> Record:
    """Train one run and record it.

    Parameters
    ----------
    job : Job
    device : torch.device
    reason : str, optional
        Why it is trained here.
    visit : callable, optional
        Called with copies of the parameters and of the buffers at every θ(t) that is recorded.
    writes : bool, optional
        Whether the model writes into its own parameters, which measuring is not to do; None is seen as it is first
        measured.
    keeps : bool, optional
        Whether what it holds in attributes, which calls change, matters to later calls; None is taken so if its first
        call changes any.
    """
    objectives = [run.objective for run in (job.train, *job.scores) if run is not None]
    with told_of(device), seeding.isolated(seeding.derive("run", job.train.seed)), as_found(*objectives):
        return _Loop(job, device, writes, keeps).record(reason, visit)


_NOWHERE: dict[str, Tensor] = {}


class _Measured(NamedTuple):
    """L and its gradient at one θ(t); None for a parameter that L does not use."""

    loss: Tensor
    gradient: list[Tensor | None]


class _Diverged:
    """Under which scores a run has diverged."""

    def __init__(self, scores: int) -> None:
        self.scores = [False] * scores
        self.bounds: tuple[list[float], float] | None = None

    def look(self, base: Sequence[float], mesa: float) -> bool:
        """Look at L under each score, and at G, of the next t; return whether the run has diverged under every one."""
        if self.bounds is None:
            self.bounds = [float(bound(value)) for value in base], float(bound(mesa))
        bounds, aimless = self.bounds[0], not abs(mesa) <= self.bounds[1]
        columns = zip(self.scores, base, bounds, strict=True)
        self.scores = [aimless or gone or not abs(value) <= most for gone, value, most in columns]
        return all(self.scores)


class _Loop:
    def __init__(self, job: Job, device: torch.device, writes: bool | None, keeps: bool | None) -> None:
        self.job, self.whole = job, on_device(job.train, device)
        self.train = lowered(self.whole)
        self.losses = [None if score is None else _Loss(on_device(score, device), device) for score in job.scores]
        self.wanted, self.descended = _Loss(self.whole, device), _Loss(self.train, device)
        self.module = instance(self.train, device, self.train.dtype)
        self.parameters = trainable(self.module, self.train)
        self.observed = Observed(job, self.whole, self.module, device, writes=writes, keeps=keeps)
        self.pursued = placed(self.train.setup.mesa, device)
        self.optimizer = self.train.optimizer(list(self.parameters.values()))
        self.scheduler = self.train.scheduler(self.optimizer) if self.train.scheduler else None
        self.where, self.closure = made_on(device), needs_closure(self.optimizer)
        self.looks_at_loss = self.scheduler is not None and must_be_given(self.scheduler.step)
        self.minibatches = minibatches(self.train, device)
        self.seed = job.seed(device)
        self.noises = [noise([self.train], which, device) for which in range(len(self.train.noise))]

    def record(self, reason: str | None, visit: Visitor | None) -> Record:
        steps, mesa, columns = self.job.steps, self.pursued, self.job.columns
        base, pursued = np.full((len(self.losses), len(columns)), np.nan), np.full(len(columns), np.nan)
        step, here, diverged, end = _NOWHERE, _NOWHERE, _Diverged(len(self.losses)), End(_NOWHERE, _NOWHERE, ())
        for t in range(steps + 1):
            beat(t, steps)
            at, rates = columns.get(t), learning_rates(self.optimizer)
            found = self.measured() if at is not None else None
            if found is not None:
                losses = [float(found.loss if loss is None else self.scored(loss)) for loss in self.losses]
                gradient = _filled(found.gradient, self.observed.parameters)
                push = self.pushed(gradient, self.now()) if mesa.of == "gradient" else np.nan
                if visit is not None:
                    visit(self.copied(), {name: buffer.clone() for name, buffer in self.module.named_buffers()})
            here = self.copied() if mesa.of == "step" or t >= steps - 1 else _NOWHERE
            if t == steps:
                end = End(here, step, rates)
            if t < steps or mesa.of == "step":
                self.advance(t, found)
                step = {name: value - here[name] for name, value in self.now().items()} if here else _NOWHERE
            if at is not None:
                push = self.pushed(step, here) if mesa.of == "step" else push
                base[:, at], pursued[at] = losses, push
                if diverged.look(losses, push):
                    end = End(as_lost(self.now()), as_lost(self.now()), rates)
                    break
        return Record(base, pursued, on_host(end), "loop", reason)

    def now(self) -> dict[str, Tensor]:
        """Return θ(t), in the setup's dtype."""
        here, of = {name: p.detach() for name, p in self.parameters.items()}, self.whole.parameters
        return here if self.train is self.whole else {name: value.to(of[name].dtype) for name, value in here.items()}

    def copied(self) -> dict[str, Tensor]:
        """Return a copy of θ(t), in the setup's dtype."""
        of = self.whole.parameters
        return {name: p.detach().to(of[name].dtype, copy=True) for name, p in self.parameters.items()}

    def measured(self) -> _Measured:
        """Return L and its gradient over the whole dataset at θ(t)."""
        parameters = self.observed.parameters
        with self.observed.unchanged() as module, self.aside():
            for parameter in parameters.values():
                parameter.grad = None
            with self.observed.watched():
                loss = self.wanted(module, parameters)
            loss.backward()  # type: ignore[no-untyped-call]
        return _Measured(loss.detach(), [parameter.grad for parameter in parameters.values()])

    def aside(self) -> AbstractContextManager[None]:
        """Leave the objective as it was, unless what is measured is what the next step takes."""
        taken = self.train.batch_size is None and self.observed.is_as_in_a_step and not self.closure
        return nullcontext() if taken else as_found(self.whole.objective)

    def scored(self, loss: _Loss) -> Tensor:
        """Return L under another realization at θ(t)."""
        with torch.no_grad(), self.observed.unchanged() as module, as_found(loss.objective):
            return loss(module, self.observed.parameters)

    def pushed(self, push: Tensors, parameters: Tensors) -> float:
        """Return G of a gradient at θ(t), or of a step."""
        with self.where:
            return float(self.pursued(push, parameters))

    def advance(self, t: int, found: _Measured | None) -> None:
        """Take one optimizer step. Where it is the plain step on the whole dataset, its gradient may be at hand."""
        examples = next(self.minibatches)
        if self.closure:
            loss: Tensor = self.optimizer.step(partial(self.backward, t, examples))  # type: ignore[arg-type, assignment]
        else:
            at_hand = found if examples is None and self.observed.is_as_in_a_step else None
            loss = self.backward(t, examples) if at_hand is None else self.given(t, at_hand)
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step(*[float(loss)] if self.looks_at_loss else [])

    def given(self, t: int, found: _Measured) -> Tensor:
        """Step by the gradient that measuring has left in the parameters."""
        self.disturb(t)
        return found.loss

    def backward(self, t: int, examples: Tensor | None) -> Tensor:
        """Leave the gradient of L on some examples, None for the whole dataset, in the parameters."""
        with torch.enable_grad():
            self.optimizer.zero_grad()
            with drawing(self.seed, STEP, t):
                loss = self.descended(self.module, self.parameters, examples)
            loss.backward()  # type: ignore[no-untyped-call]
        self.disturb(t)
        return loss.detach()

    def disturb(self, t: int) -> None:
        """Add the run's noise to the gradient that is in the parameters."""
        for seeds, scales in self.noises:
            clean = _filled([p.grad for p in self.parameters.values()], self.parameters)
            noisy = disturbed({name: g[None] for name, g in clean.items()}, seeds, scales, t)
            for name, parameter in self.parameters.items():
                if parameter.grad is not None:
                    parameter.grad = noisy[name][0]


class _Loss:
    """L of a realization, of a module at any θ, on all of its examples or on some."""

    def __init__(self, run: Realization, device: torch.device) -> None:
        self.inputs, self.targets, self.loss = run.inputs, run.targets, loss_of(run, device)
        self.objective, self.where = run.objective, made_on(device)

    def __call__(self, module: nn.Module, parameters: Tensors, examples: Tensor | None = None) -> Tensor:
        inputs, targets = self.inputs, self.targets
        if examples is not None:
            inputs, targets = tuple(part[examples] for part in inputs), None if targets is None else targets[examples]
        with self.where:
            return self.loss(module(*inputs), targets, parameters)


def _filled(gradient: list[Tensor | None], parameters: Tensors) -> Tensors:
    pairs = zip(parameters.items(), gradient, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}
