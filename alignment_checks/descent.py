"""Whether a training process is gradient descent, so that the gradient's norm is its own objective."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alignment_checks import seeding
from alignment_checks.objectives import gradient_l1, gradient_l2
from alignment_checks.realization import Realization

_SCALES = (1.0, 1000.0)


def pursues_gradient(run: Realization) -> bool:
    """Return whether the process rests exactly where the gradient vanishes, as far as its optimizer shows.

    The optimizer is fed gradients of our own making: it must stay put at zero gradients (weight decay does not), and
    move in proportion to others (Adam and clipping do not). Momentum passes: it rests where its state does. A
    mesa-objective other than a norm of the gradient is taken to be what its author says it is.
    """
    if run.setup.mesa not in (gradient_l1, gradient_l2):
        return True
    random = seeding.generator("descent")
    shapes = [value.shape for value in run.parameters.values()]
    pushes = [[torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes] for _ in range(3)]
    try:
        rests = all(not bool(move.any()) for move in _moves(run, [[0 * g for g in push] for push in pushes]))
        small, large = (_moves(run, [[scale * g for g in push] for push in pushes]) for scale in _SCALES)
    except Exception:  # an optimizer that needs a closure, or a real loss, is no plain gradient descent
        return False
    factor = _SCALES[1] / _SCALES[0]
    return rests and all(torch.allclose(factor * a, b, rtol=1e-6) for a, b in zip(small, large, strict=True))


def _moves(run: Realization, pushes: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return how far each parameter moves under a sequence of gradients."""
    parameters = [nn.Parameter(value.double().clone()) for value in run.parameters.values()]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = run.optimizer(parameters)
    for push in pushes:
        for parameter, gradient in zip(parameters, push, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach() - start for parameter, start in zip(parameters, before, strict=True)]
