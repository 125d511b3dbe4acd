"""What is wanted and what is pursued: base objectives beyond torch's own, and mesa-objectives.

A *base objective* is any callable `objective(outputs, targets)` that gives per-example losses (first axis: the
example) or their mean. A *mesa-objective* is what the training process itself drives to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from alignment_checks.inspection.placement import placed

Tensors = Mapping[str, Tensor]
BaseObjective = Callable[[Any, Any], Tensor]
"""Of outputs and targets, whatever the model and the data make of those: of a landscape, the targets are None."""
Coefficient = float | Tensor
IGNORED = -100
"""The integer label of what is no example, as torch's losses have it by default (`ignore_index`): padding, say."""


class Loss(Protocol):
    """A scalar loss of one run at one θ: the mean over the examples, with whatever a perturbation adds."""

    def __call__(self, outputs: Tensor, targets: Tensor | None, parameters: Tensors) -> Tensor: ...


class Change(Protocol):
    """One way of changing a loss by a coefficient; hashable, so that runs changed alike can share a batch."""

    def __call__(self, loss: Loss, coefficient: Coefficient) -> Loss: ...


# ----------------------------------------------------------------------------------------------------- base objectives


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each example's Brier score Σ_k (p_k − 1[k = y])², p = softmax(outputs) (Brier, 1950).

    Parameters
    ----------
    outputs : Tensor, shape (N, K)
        Logits.
    targets : Tensor, shape (N,) of class indices, or (N, K) of class probabilities

    Returns
    -------
    Tensor, shape (N,)

    Raises
    ------
    ValueError
        If K is 1, or the shapes are others: one logit's softmax is 1, whatever it is.

    Examples
    --------
    >>> brier(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.5000])
    """
    return (outputs.softmax(-1) - _probabilities(outputs, targets)).square().sum(-1)


def one_minus_p(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each example's 1 − p_y: the probability, under softmax(outputs), of a wrong answer.

    Parameters, shapes and what is raised are those of `brier`.

    Examples
    --------
    >>> one_minus_p(torch.zeros(1, 4), torch.tensor([2]))
    tensor([0.7500])
    """
    return 1 - (outputs.softmax(-1) * _probabilities(outputs, targets)).sum(-1)


def _probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the targets as probabilities of the classes, in the outputs' shape."""
    classes = outputs.shape[-1] if outputs.ndim > 1 else 0
    wanted = outputs.shape if targets.is_floating_point() else outputs.shape[:-1]
    if classes < 2 or targets.shape != wanted:
        raise ValueError(
            "expected the logits of two classes or more, (N, K), and targets that are N class indices or (N, K) "
            f"probabilities; got outputs of shape {tuple(outputs.shape)} and {targets.dtype} targets of shape "
            f"{tuple(targets.shape)}. A single logit z stands for two: torch.cat([torch.zeros_like(z), z], 1)"
        )
    if targets.is_floating_point():
        return targets
    # torch's one_hot reads its argument back, and so cannot be batched over runs whose labels differ
    return torch.zeros_like(outputs).scatter(-1, targets.long().unsqueeze(-1), 1.0)


# ----------------------------------------------------------------------------------------------------- mesa-objectives


@dataclass(frozen=True)
class MesaObjective:
    """What the process itself drives to zero, as a function of where it is and of where it is pushed.

    Parameters
    ----------
    name : str
    function : callable
        `function(push, parameters)`: two mappings from parameter name to tensor; returns a scalar tensor, with 0
        as its infimum. `push` is the whole-dataset gradient, or the step Δθ(t) = θ(t+1) − θ(t).
    of : {"gradient", "step"}
        Which of the two `push` is.

    Examples
    --------
    >>> largest = MesaObjective("largest", lambda push, _: torch.stack([g.abs().max() for g in push.values()]).max())
    >>> largest({"w": torch.tensor([1.0, -3.0])}, {})
    tensor(3.)
    """

    name: str
    function: Callable[[Tensors, Tensors], Tensor]
    of: Literal["gradient", "step"] = "gradient"

    @property
    def structure(self) -> tuple[object, ...]:
        """What must be equal for two to be computed alike."""
        return known_by(self.function), self.of

    def __call__(self, push: Tensors, parameters: Tensors) -> Tensor:
        return self.function(push, parameters)


def _l1(push: Tensors, parameters: Tensors) -> Tensor:  # noqa: ARG001
    return torch.stack([value.abs().sum() for value in push.values()]).sum()


def _l2(push: Tensors, parameters: Tensors) -> Tensor:  # noqa: ARG001
    return torch.stack([value.square().sum() for value in push.values()]).sum().sqrt()


gradient_l1 = MesaObjective("gradient_l1", _l1)
"""G(t) = Σⱼ |∂L/∂θⱼ| at θ(t): the post's "true objective" of gradient descent (Harris 2020, "The true objective")."""

gradient_l2 = MesaObjective("gradient_l2", _l2)
"""‖∂L/∂θ‖₂ at θ(t): has the zeros of `gradient_l1`, and is smooth away from them."""

step_l1 = MesaObjective("step_l1", _l1, of="step")
"""Σⱼ |Δθⱼ(t)|: zero exactly where the process rests, for any optimizer."""


@dataclass(frozen=True)
class _Decayed:
    weight_decay: float

    def __call__(self, push: Tensors, parameters: Tensors) -> Tensor:
        return _l1({name: g + self.weight_decay * parameters[name] for name, g in push.items()}, parameters)


def decayed_gradient_l1(weight_decay: float) -> MesaObjective:
    """Return Σⱼ |∂L/∂θⱼ + λθⱼ|: what gradient descent with weight decay λ drives to zero.

    Examples
    --------
    >>> g = decayed_gradient_l1(0.5)
    >>> g({"w": torch.tensor([-1.0])}, {"w": torch.tensor([2.0])})
    tensor(0.)
    """
    return MesaObjective(f"decayed_gradient_l1({weight_decay})", _Decayed(weight_decay))


# -------------------------------------------------------------------------------------------- the objective of one run


@dataclass(frozen=True, eq=False)
class Itself:
    """An object that is told apart by its identity; it is kept alive, so that nothing else can get its address."""

    held: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)

    def __repr__(self) -> str:
        return repr(self.held)


def known_by(function: object) -> Hashable:
    """Return what a function is told apart by: itself, or its identity if it has no hash, as a plain dataclass's."""
    try:
        hash(function)
    except TypeError:
        return Itself(function)
    return function


@dataclass(frozen=True)
class Objective:
    """The base objective of one run: the user's function and the changes that perturbations made to it.

    Two objectives whose `structure` is equal differ in `coefficients` alone and can be evaluated as one batch. `here`
    is what computes it where that is on another device than what the user gave.
    """

    function: BaseObjective
    changes: tuple[Change, ...] = ()
    coefficients: tuple[float, ...] = ()
    here: Objective | None = field(default=None, compare=False, repr=False)

    @property
    def structure(self) -> tuple[object, ...]:
        """What must be equal for two runs to share a batch."""
        return (known_by(self.function), *self.changes)

    def on(self, device: torch.device) -> Objective:
        """Return this objective, computed by tensors on a device; itself where it holds no others."""
        parts = (self.function, self.changes)
        function, changes = placed(parts, device)
        same = function is self.function and changes is self.changes
        return self if same else replace(self, here=replace(self, function=function, changes=changes))

    def changed(self, change: Change, coefficient: float) -> Objective:
        """Return this objective with one more change on top of it."""
        return replace(self, changes=(*self.changes, change), coefficients=(*self.coefficients, coefficient), here=None)

    def loss(self, coefficients: tuple[Coefficient, ...] | None = None) -> Loss:
        """Return the scalar loss, at other coefficients if given (a batch passes tensors)."""
        here = self.here or self
        loss: Loss = Mean(here.function)
        chosen = self.coefficients if coefficients is None else coefficients
        for change, coefficient in zip(here.changes, chosen, strict=True):
            loss = change(loss, coefficient)
        return loss


def mixed_in(change: Change) -> BaseObjective | None:
    """Return the objective that a change adds; None where it adds none."""
    return getattr(change, "other", None)


@dataclass(frozen=True)
class Mean:
    """The mean over the examples of a function that gives per-example losses, or gives their mean itself."""

    function: BaseObjective

    def __call__(self, outputs: Tensor, targets: Tensor | None, parameters: Tensors) -> Tensor:  # noqa: ARG002
        value = self.function(outputs, targets)
        return value if value.ndim == 0 else value.mean()
