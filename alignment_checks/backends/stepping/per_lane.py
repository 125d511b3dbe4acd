"""Per lane: the gradient of all lanes at once, then each lane's own optimizer over its own parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from alignment_checks.backends.stepping.audit import Audit
from alignment_checks.backends.stepping.single import Gradient, Single
from alignment_checks.setups.realization import Realization


class PerLane:
    """An optimizer and a scheduler for each lane: as the loop has them.

    Parameters
    ----------
    runs : sequence of Realization
        Of whatever factories.
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        Written after each step, from parameters that belong to the optimizers: some put others in their place.
    idle : collection of int
        Lanes that only fill the batch up: they stay where they are. The first is stepped all the same, beside the one
        that guards it.
    """

    def __init__(
        self,
        runs: Sequence[Realization],
        weights: Mapping[str, Tensor],
        unused: Collection[str] = (),  # noqa: ARG002
        idle: Collection[int] = (),
    ) -> None:
        self.weights, self.lanes = weights, range(len(runs))
        moved = [lane for lane in self.lanes if lane == 0 or lane not in idle]
        self.singles = {lane: Single(runs[lane], {n: value[lane] for n, value in weights.items()}) for lane in moved}
        self.moved = torch.tensor(moved, device=next(iter(weights.values())).device)
        self.audit = Audit(runs[0], weights, None)

    def step(self, gradient: Gradient, losses: Tensor) -> None:
        """Move the weights of all lanes by one step, given their gradients and losses at θ(t)."""
        self.audit.before(gradient)
        values = losses.tolist() if any(single.looks_at_loss for single in self.singles.values()) else []
        parts = {name: self.parts(g) for name, g in gradient.items()}
        for lane, single in self.singles.items():
            single.step({name: part[lane] for name, part in parts.items()}, values[lane] if values else None)
        with torch.no_grad():
            for name, weight in self.weights.items():
                rows = torch.stack([single.parameters[name] for single in self.singles.values()])
                weight.index_copy_(0, self.moved, rows)
        self.audit.after(values[0] if values else None)

    def parts(self, gradient: Tensor | None) -> Sequence[Tensor | None]:
        """Return each lane's gradient, in memory of its own: as where it stands may matter to a product's bits."""
        return [None] * len(self.lanes) if gradient is None else [part.clone() for part in gradient.unbind()]

    def settle(self) -> None:
        """Raise `StepRefused` if it was seen not to agree with a lane stepped by itself."""
        self.audit.settle()

    def learning_rates(self) -> list[tuple[float, ...]]:
        """Return the learning rate of each parameter group, for each lane."""
        return [self.singles.get(lane, self.singles[0]).learning_rates() for lane in self.lanes]
