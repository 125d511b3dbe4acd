"""Gradient descent on functions whose limits are known."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import SGD

import alignment_checks as ac
from alignment_checks.limits import Estimate, alignment_factor_limit, capability_limit
from alignment_checks.trajectory import Trajectory

NO_NUMBER = (-math.inf, math.inf)


def descent(function: Callable[[Tensor], Tensor], start: list[float], steps: int, **options: Any) -> Trajectory:
    """Run gradient descent on a function."""
    optimizer = partial(SGD, lr=options.pop("lr", 0.1), momentum=options.pop("momentum", 0.0))
    return ac.run(ac.landscape(function, start, optimizer=optimizer, steps=steps, **options))


def limits(trajectory: Trajectory) -> tuple[Estimate, Estimate, Estimate]:
    """Return the limits of C_B, C_M and α of the first run."""
    both = (capability_limit(trajectory, of=of)[0] for of in ("base", "mesa"))
    return (*both, alignment_factor_limit(trajectory)[0])  # type: ignore[return-value]


def holds(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


def has_no_number(found: Estimate) -> bool:
    return math.isnan(found.value) and (found.low, found.high) == NO_NUMBER and bool(found.method)


def bowl(x: Tensor) -> Tensor:
    return 1.5 * x.square().sum()


def saddle(p: Tensor) -> Tensor:
    return 0.5 * (p[0] ** 2 - p[1] ** 2) + 0.25 * p[1] ** 4
