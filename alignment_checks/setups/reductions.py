"""Whether an objective sums over the examples, which is neither a loss for each of them nor their mean."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from alignment_checks.inspection.placement import placed
from alignment_checks.objectives import BaseObjective, Objective
from alignment_checks.randomness.seeding import derive, isolated
from alignment_checks.setups.as_found import as_found
from alignment_checks.setups.realization import CPU


def check_reduction(
    function: BaseObjective, outputs: object, targets: Tensor | None, value: Tensor, name: str = "`objective`"
) -> None:
    """Raise ValueError if an objective says that it sums, and gives twice as much of all examples twice.

    One that says so may sum over something else; one that does not is not looked at.

    Parameters
    ----------
    function : callable
        The objective.
    outputs : object
        Of the model at θ(0).
    targets : Tensor or None
    value : Tensor
        What the objective gave of them.
    name : str
        What the objective is called.
    """
    if value.ndim > 0 or not isinstance(outputs, Tensor) or targets is None or not says_sum(function):
        return
    with isolated(derive("reduction")), as_found(Objective(function)), torch.no_grad():
        try:
            twice = placed(function, CPU)(torch.cat([outputs] * 2), torch.cat([targets] * 2))
        except Exception:  # so many are not what it is for: then what it sums is not known
            return
    if isinstance(twice, Tensor) and twice.ndim == 0 and bool(value) and torch.allclose(twice, 2 * value, rtol=1e-3):
        raise ValueError(
            f"{name} sums over the examples (reduction='sum'), so L and each step would grow with their number; "
            "expected a loss for each example, or their mean. Leave `reduction` out, and multiply the learning rate of "
            "plain gradient descent by the number of examples for the same steps"
        )


def says_sum(function: object) -> bool:
    """Return whether an objective says of itself that it sums, as torch's losses do by their `reduction`.

    Examples
    --------
    >>> from torch.nn import MSELoss
    >>> from torch.nn.functional import mse_loss
    >>> says_sum(partial(mse_loss, reduction="sum")), says_sum(MSELoss(reduction="sum")), says_sum(MSELoss())
    (True, True, False)
    """
    while isinstance(function, partial):
        if "reduction" in function.keywords:
            return bool(function.keywords["reduction"] == "sum")
        function = function.func
    try:
        return bool(function.reduction == "sum")  # type: ignore[attr-defined]
    except Exception:  # an object answers as it likes
        return False
