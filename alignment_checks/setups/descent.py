"""Whether a training process is gradient descent, so that the gradient's norm is its own objective."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.objectives import gradient_l1, gradient_l2
from alignment_checks.randomness import seeding
from alignment_checks.setups.realization import Realization

_SCALES = (1.0, 1000.0)


def pursues_gradient(run: Realization) -> bool:
    """Return whether the process rests exactly where the gradient vanishes, as far as its optimizer shows.

    The optimizer is fed gradients of our own making: it must stay put at zero gradients (weight decay does not), and
    move in proportion to others (Adam and clipping do not). Momentum passes: it rests where its state does. Annealing
    does not: it rests wherever the learning rate has gone. A mesa-objective other than a norm of the gradient is taken
    to be what its author says it is.
    """
    if run.setup.mesa not in (gradient_l1, gradient_l2):
        return True
    random = seeding.generator("descent")
    shapes = [value.shape for value in run.parameters.values()]
    pushes = [
        [torch.randn(shape, generator=random, dtype=torch.float64, device="cpu") for shape in shapes] for _ in range(3)
    ]
    try:
        rests = all(not bool(move.any()) for move in _moves(run, [[0 * g for g in push] for push in pushes]))
        small, large = (_moves(run, [[scale * g for g in push] for push in pushes]) for scale in _SCALES)
        annealed = _anneals(run)
    except Exception:  # what needs a closure, or looks at a real loss, is no plain gradient descent
        return False
    factor = _SCALES[1] / _SCALES[0]
    linear = all(torch.allclose(factor * a, b, rtol=1e-6) for a, b in zip(small, large, strict=True))
    return rests and linear and not annealed


def _moves(run: Realization, pushes: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return how far each parameter moves under a sequence of gradients, from a place that is 0 nowhere."""
    random = seeding.generator("descent", "start")
    shapes = [value.shape for value in run.parameters.values()]
    parameters = [
        nn.Parameter(1 + torch.rand(shape, generator=random, dtype=torch.float64, device="cpu")) for shape in shapes
    ]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = run.optimizer(parameters)
    for push in pushes:
        for parameter, gradient in zip(parameters, push, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach() - start for parameter, start in zip(parameters, before, strict=True)]


def _anneals(run: Realization) -> bool:
    """Return whether the schedule ends the run at a smaller learning rate than it had been at."""
    if run.scheduler is None:
        return False
    optimizer = run.optimizer([nn.Parameter(value.clone()) for value in run.parameters.values()])
    scheduler = run.scheduler(optimizer)
    rates = [_rates(optimizer)]
    for _ in range(run.setup.steps):
        optimizer.step()
        scheduler.step()
        rates.append(_rates(optimizer))
    return any(group[-1] < max(group) for group in zip(*rates, strict=True))


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]
