"""Perturbations of the optimizer's hyperparameters: learning rate and its decay, momentum.

Each family's strategy and its effect on a run stand together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

from hypothesis.strategies import SearchStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.perturbations.family import LARGEST_LOG2, Family, as_asked, up_to
from alignment_checks.perturbations.value import Perturbation
from alignment_checks.setups.realization import Realization
from alignment_checks.training import OptimizerFactory, SchedulerFactory

# ------------------------------------------------------------------------------------------------------- learning rate


def learning_rate(max_log2: float) -> SearchStrategy[Perturbation]:
    """Multiply the learning rate of each parameter group by 2^m, m in [−max_log2, max_log2], before any schedule.

    Parameters
    ----------
    max_log2 : float in (0, 1023]

    Examples
    --------
    >>> learning_rate(max_log2=1)
    learning_rate(max_log2=1)
    """
    return up_to(LEARNING_RATE, "max_log2", max_log2)


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


LEARNING_RATE = Family("learning_rate", "optimizer", "log2", _scale_rate, as_asked, most=LARGEST_LOG2, signed=True)


def lr_decay(max_rate: float) -> SearchStrategy[Perturbation]:
    """Let the learning rate decay: what the setup's own schedule gives for step t, over 1 + rate·t.

    The inverse-time decay that `torch.optim.Adagrad` calls `lr_decay` (Robbins and Monro, 1951).

    Parameters
    ----------
    max_rate : float above 0
        Largest rate, per step.
    """
    return up_to(LR_DECAY, "max_rate", max_rate)


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
    return up_to(MOMENTUM, "max_change", max_change)


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


MOMENTUM = Family("momentum", "optimizer", "change", _change_momentum, _momentum_changed, most=1.0, signed=True)


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


FAMILIES = (LEARNING_RATE, LR_DECAY, MOMENTUM)
