"""A run's own instance of its model, on a device, and how it is measured: what measuring must leave as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from alignment_checks.backends.job import Job
from alignment_checks.backends.snapshot import Snapshot
from alignment_checks.backends.writes import Writes
from alignment_checks.inspection.copies import copied
from alignment_checks.inspection.placement import placed
from alignment_checks.randomness import seeding
from alignment_checks.randomness.drawing import EVALUATION, Randomness, drawing
from alignment_checks.setups.realization import Realization


def on_device(run: Realization, device: torch.device) -> Realization:
    """Return `run` with its data on `device`, itself where it is there already."""
    if run.data is None or all(part.device == device for part in run.data):
        return run
    return replace(run, data=tuple(part.to(device) for part in run.data))


def instance(run: Realization, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """Return an instance of the run's model at its θ(0), of another dtype where one is given."""
    with torch.no_grad():  # a scripted module copies its parameters as any other tensors
        module = placed(copied(run.module), device)
        module = module if dtype is None else module.to(dtype)
        for mine, of in zip(module.parameters(), run.module.parameters(), strict=True):
            mine.requires_grad_(of.requires_grad)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            tensor.copy_(run.parameters[name] if name in run.parameters else run.constants[name])
    return module


def trainable(module: nn.Module, run: Realization) -> dict[str, nn.Parameter]:
    """Return the parameters of an instance that the run trains, by name; those that stand in it twice once."""
    named = dict(module.named_parameters())
    return {name: named[name] for name in run.parameters}


class Observed:
    """The model at θ(t) in the setup's dtype, as measuring calls it.

    Parameters
    ----------
    job : Job
    run : Realization
        What the job trains, with its data on the device.
    trained : nn.Module
        Its instance that steps move.
    writes, keeps : bool or None
        See `loop.train`.
    """

    def __init__(
        self,
        job: Job,
        run: Realization,
        trained: nn.Module,
        device: torch.device,
        *,
        writes: bool | None,
        keeps: bool | None,
    ) -> None:
        self.job, self.trained = job, trained
        self.module = trained if run.dtype is None else instance(run, device)
        self.apart = self.module is not trained
        self.parameters = trainable(self.module, run)
        self.buffered = any(True for _ in trained.buffers())
        self.writes = True if job.branches else writes
        self.keeps = False if self.apart else keeps  # of two instances each holds its own
        self.seed = job.seed(device)

    @property
    def is_as_in_a_step(self) -> bool:
        """Whether measuring does what a step on the whole dataset does, and leaves its gradient in the parameters."""
        return not (self.apart or self.buffered or self.writes or self.keeps or self.job.random)

    @contextmanager
    def unchanged(self) -> Iterator[nn.Module]:
        """Give the module, in eval mode where the training mode draws at random; calls change nothing of the run."""
        held, written = self.keeps is not False, self.writes is not False
        if not (self.apart or self.buffered or written or held or self.job.random):
            yield self.module
            return
        if self.apart:
            _copy_into(self.trained, self.module)
        hidden = self.job.randomness is Randomness.HIDDEN
        aside = seeding.isolated(seeding.derive("evaluation", self.job.train.seed)) if hidden else nullcontext()
        kept = [*self.module.buffers(), *(self.module.parameters() if held or written else ())]
        unchanged = _Unchanged(self.module, kept, training=not self.job.random, held=held)
        with aside, unchanged, drawing(self.seed, EVALUATION):
            yield self.module
        self.keeps = unchanged.differed if self.keeps is None else self.keeps

    @contextmanager
    def watched(self) -> Iterator[None]:
        """See, if nobody has yet, whether a call within this context writes into parameters."""
        if self.writes is not None:
            yield
            return
        with Writes(self.module.parameters()) as watch:
            yield
        self.writes = watch.seen


def _copy_into(source: nn.Module, target: nn.Module) -> None:
    """Copy weights and buffers from one instance of a model to another, of another dtype."""
    with torch.no_grad():
        pairs = zip([*source.parameters(), *source.buffers()], [*target.parameters(), *target.buffers()], strict=True)
        for value, place in pairs:
            place.copy_(value)


class _Unchanged:
    """Evaluate in the given mode, and leave these tensors and the training mode as they were.

    So are attributes, unless nothing is `held` by them that calls change. Afterwards `differed` says whether any was.
    """

    differed = False

    def __init__(self, module: nn.Module, kept: Sequence[Tensor], *, training: bool, held: bool) -> None:
        self.module, self.kept, self.training, self.held = module, kept, training, held

    def __enter__(self) -> None:
        self.before = [one.detach().clone() for one in self.kept]
        self.buffers = _buffers(self.module)
        self.attributes = Snapshot(self.module) if self.held else None
        self.module.train(self.training)

    def __exit__(self, *exception: object) -> None:
        self.module.train()
        if self.attributes is not None and self.attributes.differs:
            self.differed = True
            self.attributes.put_back()
        for owner, name, buffer in self.buffers:  # a model may have put another tensor in its place, a view of the data
            if getattr(owner, name) is not buffer:
                setattr(owner, name, buffer)
        with torch.no_grad():
            for one, before in zip(self.kept, self.before, strict=True):
                one.copy_(before)


def _buffers(module: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """Return each buffer, with the part of a module that holds it and its name there."""
    parts = [(part, dict(part.named_buffers(recurse=False, remove_duplicate=False))) for part in module.modules()]
    return [(part, name, buffer) for part, held in parts for name, buffer in held.items()]
