"""Apart: runs of several setups in one batch, each setup's stepped by themselves, in the way that they are alone.

The gradient of all lanes is found at once, which costs the most. What a setup's runs stand beside as they are stepped
are copies of them alone: so neither how they are stepped nor a bit of it depends on the other setups.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from alignment_checks.backends.stepping.hyperparameters import origin
from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.backends.stepping.stepper import Stepper, Way
from alignment_checks.setups.realization import Realization

Ways = Mapping[Hashable, Way]
"""How the runs of each setup are stepped, by their `origin`."""


class ApartRefused(StepRefused):
    """What the ways of stepping some setups' runs cannot do: a reason for each of those setups, by their `origin`."""

    def __init__(self, reasons: Mapping[Hashable, StepRefused]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = reasons


def stepper_of(
    runs: Sequence[Realization],
    weights: Mapping[str, Tensor],
    way: Way | Ways,
    unused: Sequence[str],
    idle: Collection[int],
) -> Stepper | Apart:
    """Return what steps runs together in one way, or each setup's in its own."""
    if isinstance(way, Way):
        return Stepper(runs, weights, way, unused, idle)
    return Apart(runs, weights, way, unused, idle)


class Apart:
    """Moves the stacked weights of a batch, the runs of each setup by a stepper of their own.

    Parameters
    ----------
    runs, weights, unused, idle
        As of `Stepper`. The lanes of a setup whose lanes are all idle are not moved.
    ways : mapping of origin to Way

    Raises
    ------
    ApartRefused
        If some setups' runs cannot be stepped in their way; by any method.
    Refused
        If any can be in none.
    """

    def __init__(
        self,
        runs: Sequence[Realization],
        weights: Mapping[str, Tensor],
        ways: Ways,
        unused: Sequence[str] = (),
        idle: Collection[int] = (),
    ) -> None:
        self.weights, self.lanes, self.parts = weights, len(runs), dict[Hashable, _Part]()
        origins = [origin(run) for run in runs]

        def make(one: Hashable) -> None:
            mine = [lane for lane, of in enumerate(origins) if of == one and lane not in idle]
            if mine:
                self.parts[one] = _Part(runs, weights, mine, ways[one], unused)

        _each(dict.fromkeys(origins), make)

    def step(self, gradient: Mapping[str, Tensor], losses: Tensor) -> None:
        """Move the weights of all lanes by one step, given their gradients and losses at θ(t)."""
        _each(self.parts, lambda one: self.parts[one].step(gradient, losses))
        for part in self.parts.values():
            part.write(self.weights)

    def settle(self) -> None:
        """Raise if any step was seen to be wrong. To be called after the last one."""
        _each(self.parts, lambda one: self.parts[one].stepper.settle())

    def learning_rates(self) -> list[tuple[float, ...]]:
        """Return the learning rate of each parameter group, for each lane."""
        found: dict[int, tuple[float, ...]] = {}
        for part in self.parts.values():
            rates = part.stepper.learning_rates()
            found.update({lane: rates[lane] for lane in part.mine})
        return [found.get(lane, ()) for lane in range(self.lanes)]


class _Part:
    """The runs of one setup in their lanes, and copies of the first of them in all others."""

    def __init__(
        self,
        runs: Sequence[Realization],
        weights: Mapping[str, Tensor],
        mine: Sequence[int],
        way: Way,
        unused: Sequence[str],
    ) -> None:
        device = next(iter(weights.values())).device
        self.others = sorted(set(range(len(runs))).difference(mine))
        self.mine, self.moved = mine, torch.tensor(mine, device=device)
        self.filling = torch.tensor(self.others, dtype=torch.int64, device=device)
        self.weights = {name: self.filled(value) for name, value in weights.items()}
        own = [runs[mine[0] if lane in self.others else lane] for lane in range(len(runs))]
        self.stepper = Stepper(own, self.weights, way, unused, self.others)

    def filled(self, value: Tensor) -> Tensor:
        """Return a copy of what each lane has, laid out as it is, in which other lanes have what the first of these."""
        copy = value.detach().clone()
        return copy.index_copy_(0, self.filling, copy[self.mine[0]].expand(len(self.others), *copy.shape[1:]).clone())

    def step(self, gradient: Mapping[str, Tensor], losses: Tensor) -> None:
        self.stepper.step({name: self.filled(g) for name, g in gradient.items()}, self.filled(losses))

    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Write these lanes' weights to where all lanes have theirs."""
        with torch.no_grad():
            for name, value in weights.items():
                value.index_copy_(0, self.moved, self.weights[name][self.moved])


def _each(origins: Iterable[Hashable], act: Callable[[Hashable], None]) -> None:
    """Act on each of some setups, and raise what all of those that refuse have refused."""
    reasons: dict[Hashable, StepRefused] = {}
    for one in origins:
        try:
            act(one)
        except StepRefused as error:
            reasons[one] = error
    if reasons:
        raise ApartRefused(reasons)
