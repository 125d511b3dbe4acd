"""Whether calls of a model or an objective leave tensors behind in it, and whether later calls make use of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from alignment_checks.inspection.inner_state import held_tensors, inner_state
from alignment_checks.objectives import Tensors


class Left:
    """Which tensors objects hold, beside parameters and buffers of modules: to be asked whether that are others now."""

    def __init__(self, *owners: object) -> None:
        self.owners = owners
        self.before = held_tensors(owners)

    def differs(self) -> bool:
        """Return whether they hold others than before."""
        now = held_tensors(self.owners)
        return len(now) != len(self.before) or any(a is not b for a, b in zip(now, self.before, strict=True))


def leaves_tensors(call: Callable[[], object], *owners: object) -> bool:
    """Return whether a call, that nothing batches, changes what objects hold: also where only the first one does.

    What a run keeps from its first call on is its own: it may be of its data, or of its outputs.
    """
    before, left = inner_state(*owners), Left(*owners)
    call()
    return left.differs() or inner_state(*owners) != before


def remembers(loss: Callable[[Tensors], Tensor], at: Tensors, gradient: Sequence[Tensor | None]) -> bool:
    """Return whether a loss, called at other weights in between, is another one at the same weights.

    A call that only leaves something behind (an attention map, say) does not.
    """
    before = loss(at)
    for by in (-0.1, 0.1):
        loss(_moved(at, gradient, by))
        if not equal(loss(at), before):
            return True
    return False


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have the same numbers, be they NaN.

    Examples
    --------
    >>> equal(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]))
    True
    >>> equal(torch.tensor([1.0, torch.nan]), torch.tensor([torch.nan, torch.nan]))
    False
    """
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _moved(at: Mapping[str, Tensor], gradient: Sequence[Tensor | None], by: float) -> dict[str, Tensor]:
    pairs = zip(at.items(), gradient, strict=True)
    return {name: value if g is None else (value + by * g).detach() for (name, value), g in pairs}
