"""Perturbations of the objective, L to L′. Each family's strategy and its effect on a run stand together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from alignment_checks.objectives import IGNORED, BaseObjective, Coefficient, Loss, Mean, Tensors, known_by
from alignment_checks.perturbations.family import Family, Named, as_asked, drawn, up_to
from alignment_checks.perturbations.value import Perturbation
from alignment_checks.setups.fingerprints import named
from alignment_checks.setups.realization import Realization
from alignment_checks.training import check_no_class


@dataclass(frozen=True)
class _Other:
    """The L′ of a mixture, and a lower bound that it approaches."""

    function: BaseObjective
    infimum: float | None


def objective_mix(
    other: Callable[[Tensor, Any], Tensor], *, infimum: float | None = 0.0
) -> SearchStrategy[Perturbation]:
    """Mix in another objective: (1 − k)·L + k·L′, so that k = 1 is L′ alone.

    Parameters
    ----------
    other : callable
        L′: `other(outputs, targets)` gives per-example losses or their mean, as `objective` does. The outputs of a
        landscape are its value f(θ), not θ: see `landscape`.
    infimum : float or None
        A lower bound that L′ approaches, for the dimensionless forms; None if none is known.

    Examples
    --------
    >>> from alignment_checks import brier
    >>> objective_mix(brier)
    objective_mix(other=brier)
    """
    if not callable(other):
        raise TypeError(f"objective_mix: `other` must be a function of (outputs, targets); got {other!r:.60}")
    check_no_class("objective_mix", "other", other)
    name = named(other)
    return drawn(
        OBJECTIVE_MIX,
        1.0,
        options=(("other", name),),
        payload=_Other(other, infimum),
        shown={"other": Named(getattr(other, "__name__", name))},
    )


@dataclass(frozen=True)
class _Mixed:
    known: Hashable
    other: BaseObjective = field(compare=False)

    def __call__(self, loss: Loss, coefficient: Coefficient) -> Loss:
        added = Mean(self.other)

        def mixed(outputs: Tensor, targets: Tensor | None, parameters: Tensors) -> Tensor:
            own, theirs = (f(outputs, targets, parameters) for f in (loss, added))
            return (1 - coefficient) * own + coefficient * theirs

        return mixed


def _mix(run: Realization, delta: Perturbation) -> Realization:
    other, k = delta.payload, float(delta.magnitude or 0.0)
    known = run.infimum is not None and other.infimum is not None
    infimum = (1 - k) * (run.infimum or 0.0) + k * (other.infimum or 0.0) if known else None
    return replace(
        run, objective=run.objective.changed(_Mixed(known_by(other.function), other.function), k), infimum=infimum
    )


OBJECTIVE_MIX = Family("objective_mix", "objective", "k", _mix, as_asked, needs="other", most=1.0, vanishes=False)


def label_smoothing(max_epsilon: float) -> SearchStrategy[Perturbation]:
    """Smooth the labels: (1 − ε)·L(·, y) + ε·mean over the K classes of L(·, class) (Szegedy et al., 2016).

    For `cross_entropy` without class weights this is its own `label_smoothing=ε`. Targets are class indices, of which
    −100 is left as it is (torch's losses ignore it), or rows of class probabilities, which become (1 − ε)·y + ε/K.

    Parameters
    ----------
    max_epsilon : float in (0, 1]
    """
    return up_to(LABEL_SMOOTHING, "max_epsilon", max_epsilon)


@dataclass(frozen=True)
class _Smoothed:
    def __call__(self, loss: Loss, coefficient: Coefficient) -> Loss:
        def smoothed(outputs: Tensor, targets: Tensor | None, parameters: Tensors) -> Tensor:
            assert targets is not None, "label smoothing is refused where there are no labels"  # noqa: S101
            if targets.is_floating_point():
                even = (1 - coefficient) * targets + coefficient / targets.shape[-1]
                return loss(outputs, even.to(targets.dtype), parameters)
            return (1 - coefficient) * loss(outputs, targets, parameters) + coefficient * _every_class(
                loss, outputs, targets, parameters
            )

        return smoothed


def _every_class(loss: Loss, outputs: Tensor, targets: Tensor, parameters: Tensors) -> Tensor:
    """Return the loss averaged over what it would be if every label were class 0, 1, … K − 1."""

    def at(label: Tensor) -> Tensor:
        return loss(outputs, torch.where(targets == IGNORED, targets, label.to(targets.dtype)), parameters)

    if not isinstance(outputs, Tensor) or outputs.ndim < 2:
        raise ValueError("label_smoothing needs outputs in one tensor, (N, K, …), whose second axis is the class")
    labels = torch.arange(outputs.shape[1], device=outputs.device)
    return torch.func.vmap(at)(labels).mean()


def _smooth(run: Realization, delta: Perturbation) -> Realization:
    targets = run.targets
    if targets is None or (targets.is_floating_point() and not _are_probabilities(targets)):
        came = "none" if targets is None else f"{targets.dtype} targets of shape {tuple(targets.shape)}"
        raise ValueError(
            f"label_smoothing needs class labels: integer targets, or rows of class probabilities; got {came}"
        )
    return replace(run, objective=run.objective.changed(_Smoothed(), float(delta.magnitude or 0.0)))


def _are_probabilities(targets: Tensor) -> bool:
    rows = targets.double()
    if rows.ndim < 2 or rows.shape[-1] < 2 or bool((rows < 0).any()):
        return False
    return bool(((rows.sum(-1) - 1).abs() <= 1e-3).all())


LABEL_SMOOTHING = Family("label_smoothing", "objective", "epsilon", _smooth, as_asked, most=1.0)


def l2_penalty(max_weight: float) -> SearchStrategy[Perturbation]:
    """Add an L2 penalty: L + (w/2)·‖θ‖². Under plain SGD this is `weight_decay=w`.

    Parameters
    ----------
    max_weight : float above 0
    """
    return up_to(L2_PENALTY, "max_weight", max_weight)


@dataclass(frozen=True)
class _Penalized:
    def __call__(self, loss: Loss, coefficient: Coefficient) -> Loss:
        def penalized(outputs: Tensor, targets: Tensor | None, parameters: Tensors) -> Tensor:
            norm = torch.stack([value.square().sum() for value in parameters.values()]).sum()
            return loss(outputs, targets, parameters) + coefficient / 2 * norm

        return penalized


def _penalize(run: Realization, delta: Perturbation) -> Realization:
    return replace(run, objective=run.objective.changed(_Penalized(), float(delta.magnitude or 0.0)))


L2_PENALTY = Family("l2_penalty", "objective", "weight", _penalize, as_asked)


FAMILIES = (OBJECTIVE_MIX, LABEL_SMOOTHING, L2_PENALTY)
