"""Perturbations of how a run is optimized: learning rate, momentum, minibatches, noise, precision.

Each family's strategy and its effect on a run stand together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.perturbations.value import Family, Perturbation, as_asked, drawn, positive
from alignment_checks.realization import GradientNoise, Realization
from alignment_checks.training import OptimizerFactory, SchedulerFactory

# ------------------------------------------------------------------------------------------------------- learning rate


def learning_rate(max_log2: float) -> SearchStrategy[Perturbation]:
    """Multiply the learning rate of each parameter group by 2^m, m in [−max_log2, max_log2], before any schedule.

    Parameters
    ----------
    max_log2 : float above 0

    Examples
    --------
    >>> learning_rate(max_log2=1)
    learning_rate(max_log2=1)
    """
    limit = positive("learning_rate", "max_log2", max_log2)
    return drawn(LEARNING_RATE, limit, magnitudes=st.floats(-limit, limit), shown={"max_log2": max_log2})


@dataclass(frozen=True)
class ScaledRate:
    """A factory's optimizer, its learning rates times 2^log2."""

    factory: OptimizerFactory
    log2: float

    def __call__(self, parameters: list[nn.Parameter]) -> Optimizer:
        optimizer = self.factory(parameters)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 2.0**self.log2
        return optimizer


def _scale_rate(run: Realization, delta: Perturbation) -> Realization:
    _groups_with(run, delta, "lr")
    return replace(run, optimizer=ScaledRate(run.optimizer, float(delta.magnitude or 0.0)))


LEARNING_RATE = Family("learning_rate", "optimizer", "log2", _scale_rate, as_asked)


def lr_decay(max_rate: float) -> SearchStrategy[Perturbation]:
    """Let the learning rate decay: what the setup's own schedule gives for step t, over 1 + rate·t.

    The inverse-time decay that `torch.optim.Adagrad` calls `lr_decay` (Robbins and Monro, 1951).

    Parameters
    ----------
    max_rate : float above 0
        Largest rate, per step.
    """
    limit = positive("lr_decay", "max_rate", max_rate)
    return drawn(LR_DECAY, limit, shown={"max_rate": max_rate})


@dataclass(frozen=True)
class DecayingSchedule:
    """A factory's schedule, None for none, with inverse-time decay on top of it."""

    factory: SchedulerFactory | None
    rate: float

    def __call__(self, optimizer: Optimizer) -> _Decay:
        return _Decay(optimizer, self.factory(optimizer) if self.factory else None, self.rate)


class _Decay:
    """A schedule that never sees the decay: its learning rates are put back before each of its steps."""

    def __init__(self, optimizer: Optimizer, inner: Any, rate: float) -> None:
        self.optimizer, self.inner, self.rate, self.steps = optimizer, inner, rate, 0
        self.own = self._rates()
        self.step: Callable[..., None] = self._step if inner is None else self._beneath(inner.step)

    def _beneath(self, inner: Callable[..., None]) -> Callable[..., None]:
        """Return the step, which tells whoever asks for its arguments those of the schedule beneath."""

        @wraps(inner)
        def step(*arguments: Any, **named: Any) -> None:
            self._step(*arguments, **named)

        return step

    def _step(self, *arguments: Any, **named: Any) -> None:
        self._set(self.own)
        if self.inner is not None:
            self.inner.step(*arguments, **named)
        self.steps += 1
        self.own = self._rates()
        self._set([rate / (1 + self.rate * self.steps) for rate in self.own])

    def _rates(self) -> list[float | Tensor]:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]

    def _set(self, rates: list[float | Tensor]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def _decay(run: Realization, delta: Perturbation) -> Realization:
    _groups_with(run, delta, "lr")
    return replace(run, scheduler=DecayingSchedule(run.scheduler, float(delta.magnitude or 0.0)))


LR_DECAY = Family("lr_decay", "optimizer", "rate", _decay, as_asked)


# ------------------------------------------------------------------------------------------------------------ momentum

_HIGHEST = 0.999


def momentum(max_change: float) -> SearchStrategy[Perturbation]:
    """Add m in [−max_change, max_change] to the momentum (`momentum`, or the first of `betas`), within [0, 0.999].

    Parameters
    ----------
    max_change : float in (0, 1]
    """
    limit = positive("momentum", "max_change", max_change, most=1)
    return drawn(MOMENTUM, limit, magnitudes=st.floats(-limit, limit), shown={"max_change": max_change})


@dataclass(frozen=True)
class ChangedMomentum:
    """A factory's optimizer, the momentum of each group changed by so much."""

    factory: OptimizerFactory
    change: float

    def __call__(self, parameters: list[nn.Parameter]) -> Optimizer:
        optimizer = self.factory(parameters)
        for group in optimizer.param_groups:
            changed = _moved(_momentum(group), self.change)
            if "momentum" in group:
                group["momentum"] = changed
            else:
                group["betas"] = (changed, *group["betas"][1:])
        return optimizer


def _momentum(group: dict[str, Any]) -> float:
    return float(group["momentum"] if "momentum" in group else group["betas"][0])


def _moved(before: float, change: float) -> float:
    return min(max(before + change, 0.0), max(before, _HIGHEST))


def _change_momentum(run: Realization, delta: Perturbation) -> Realization:
    changed = replace(run, optimizer=ChangedMomentum(run.optimizer, float(delta.magnitude or 0.0)))
    return changed if _momentum_changed(run, changed, delta) else run


def _momentum_changed(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    groups = _groups_with(before, delta, "momentum", "betas")
    changes = [_moved(_momentum(group), float(delta.magnitude or 0.0)) - _momentum(group) for group in groups]
    return sum(changes) / len(changes)


MOMENTUM = Family("momentum", "optimizer", "change", _change_momentum, _momentum_changed)


def _groups_with(run: Realization, delta: Perturbation, *names: str) -> list[dict[str, Any]]:
    """Return the parameter groups of a run's optimizer, having seen that each has one of the names."""
    optimizer = run.optimizer([nn.Parameter(value.clone()) for value in run.parameters.values()])
    if not all(any(name in group for name in names) for group in optimizer.param_groups):
        wanted = " or ".join(f"'{name}'" for name in names)
        have = ", ".join(name for name in optimizer.param_groups[0] if name != "params")
        raise ValueError(
            f"{delta.family} needs an optimizer whose parameter groups have {wanted}; those of "
            f"{type(optimizer).__name__} have {have or 'no options'}"
        )
    return optimizer.param_groups


# ------------------------------------------------------------------------------------------------------ gradient noise


def gradient_noise(max_scale: float) -> SearchStrategy[Perturbation]:
    """Add Gaussian noise of standard deviation `scale` to each element of each step's gradient (annealing).

    The noise of each step is drawn once and scaled. G stays the clean gradient's (Neelakantan et al., *Adding gradient
    noise improves learning for very deep networks*, 2015).

    Parameters
    ----------
    max_scale : float above 0
        In units of the gradient.
    """
    limit = positive("gradient_noise", "max_scale", max_scale)
    return drawn(GRADIENT_NOISE, limit, shown={"max_scale": max_scale})


def _disturb(run: Realization, delta: Perturbation) -> Realization:
    return replace(run, noise=(*run.noise, GradientNoise(float(delta.magnitude or 0.0), delta.seed)))


GRADIENT_NOISE = Family("gradient_noise", "optimizer", "scale", _disturb, as_asked, seeded=True)


# ---------------------------------------------------------------------------------------------------------- batch size


def batch_size(max_log2: float) -> SearchStrategy[Perturbation]:
    """Multiply the batch size by 2^m, m in [−max_log2, max_log2], rounded, and at least 1 and at most all N examples.

    Full batch is a batch of all N: it can only become smaller.

    Parameters
    ----------
    max_log2 : float above 0
    """
    limit = positive("batch_size", "max_log2", max_log2)
    return drawn(BATCH_SIZE, limit, magnitudes=st.floats(-limit, limit), shown={"max_log2": max_log2})


def _resize(run: Realization, delta: Perturbation) -> Realization:
    if run.data is None:
        raise ValueError("batch_size needs a dataset; this setup has none (data=None)")
    before = _size(run)
    after = min(max(round(before * 2.0 ** float(delta.magnitude or 0.0)), 1), run.examples)
    return run if after == before else replace(run, batch_size=after)


def _resized(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    return math.log2(_size(after) / _size(before))


def _size(run: Realization) -> int:
    """Return how many examples a step sees; fewer than its batch size where data were left out."""
    return run.examples if run.batch_size is None else min(run.batch_size, run.examples)


BATCH_SIZE = Family("batch_size", "optimizer", "log2", _resize, _resized)


# ----------------------------------------------------------------------------------------------------------- precision

CHAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Dtypes to train in, of 53, 24, 11 and 8 significand bits."""


def precision(max_bits: float) -> SearchStrategy[Perturbation]:
    """Train in a lower dtype: the widest of float64, float32, float16, bfloat16 that gives up at least so many bits.

    A bit is one of the significand, relative to what the setup trains in: from float32, up to 13 bits are float16 and
    up to 16 bfloat16; from float64, up to 29 are float32. What lies beyond bfloat16 is bfloat16. L and G are still
    taken in the setup's own dtype, at the θ(t) that the lower one leads to.

    Parameters
    ----------
    max_bits : float above 0
    """
    limit = positive("precision", "max_bits", max_bits)
    return drawn(PRECISION, limit, shown={"max_bits": max_bits})


def _bits(dtype: torch.dtype) -> int:
    return 1 - round(math.log2(torch.finfo(dtype).eps))


def _trained_in(run: Realization) -> torch.dtype:
    return run.dtype or next(iter(run.parameters.values())).dtype


def _lower(run: Realization, delta: Perturbation) -> Realization:
    own = _bits(_trained_in(run))
    lower = [dtype for dtype in CHAIN if own - _bits(dtype) >= (delta.magnitude or 0.0)]
    chosen = lower[0] if lower else CHAIN[-1]
    return run if _bits(chosen) >= own else replace(run, dtype=chosen)


def _given_up(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    return float(_bits(_trained_in(before)) - _bits(_trained_in(after)))


PRECISION = Family("precision", "optimizer", "bits", _lower, _given_up)


FAMILIES = (LEARNING_RATE, LR_DECAY, MOMENTUM, GRADIENT_NOISE, BATCH_SIZE, PRECISION)
