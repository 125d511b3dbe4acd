"""Vmapped: `vmap` over `optimizer.step()`, each lane seeing its own parameters alone, of their own shapes.

Right by construction for norms and other reductions. `vmap` refuses what it cannot keep apart: reads of a number,
branches on it, random draws. The factories are called under `vmap` too, since they may look at the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.func import debug_unwrap, vmap
from torch.optim import Optimizer

from alignment_checks.backends.stepping.aligned import Aligned
from alignment_checks.backends.stepping.audit import Audit, State
from alignment_checks.backends.stepping.foreach import OneByOne
from alignment_checks.backends.stepping.hyperparameters import hyperparameters_of
from alignment_checks.backends.stepping.numbers import AsColumns, of_lanes
from alignment_checks.backends.stepping.single import Gradient
from alignment_checks.backends.stepping.state import exchange
from alignment_checks.setups.realization import Realization


class Vmapped:
    """One optimizer, and its scheduler, over parameters that stand for those of any lane.

    Parameters
    ----------
    runs : sequence of Realization
        Of the same factories.
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        Moved in place.
    """

    optimizer: Optimizer
    scheduler: Any

    def __init__(
        self,
        runs: Sequence[Realization],
        weights: Mapping[str, Tensor],
        unused: Collection[str] = (),  # noqa: ARG002
    ) -> None:
        self.run, self.weights, self.lanes = runs[0], weights, len(runs)
        self.own = hyperparameters_of(runs, weights)
        self.parameters: dict[str, Tensor] = {}
        self.carried: list[Tensor] = []
        self.audit = Audit(self.run, weights, self.state, self.own)
        on_cpu = next(iter(weights.values())).device.type == "cpu"
        self.alike: Callable[[], AbstractContextManager[object]] = Aligned if on_cpu else nullcontext
        self._mapped(self._made)
        self.audit.begin(self.optimizer)

    def state(self) -> AbstractContextManager[State]:
        """Give what is kept, and the stacked parameters as they occur in it."""
        return nullcontext(((self.optimizer, self.scheduler), self.parameters))

    def step(self, gradient: Gradient, losses: Tensor) -> None:
        """Move the weights of all lanes by one step, given their gradients and losses at θ(t)."""
        self.audit.before(gradient)
        self._mapped(self._stepped, {name: g for name, g in gradient.items() if g is not None})
        self.audit.after()
        self.audit.advance(self.optimizer, losses)

    def _mapped(self, function: Callable[..., None], *inputs: Mapping[str, Tensor]) -> None:
        """Call `function` under `vmap`, and carry whatever tensors of each lane's own it leaves behind."""

        def lane(state: list[Tensor], *rest: Any) -> tuple[Tensor, ...]:
            self._exchanged(dict(zip(map(id, self.carried), state, strict=True)))
            function(*rest)
            left = self._of_lanes()
            self.left = left
            return tuple(left)

        with torch.no_grad(), AsColumns(), OneByOne(), self.alike():
            outputs = vmap(lane, randomness="error")(self.carried, dict(self.weights), *inputs)
        self._exchanged(dict(zip(map(id, self.left), outputs, strict=True)))
        self.carried, self.left = list(outputs), []

    def _made(self, weights: dict[str, Tensor]) -> None:
        self.parameters = weights
        self.optimizer = self.run.optimizer(list(weights.values()))  # type: ignore[arg-type]
        self.scheduler = self.run.scheduler(self.optimizer) if self.run.scheduler and self.own is None else None

    def _stepped(self, weights: dict[str, Tensor], gradient: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            # the same objects at each step, whoever holds them: state is keyed by them, hooks enclose them
            torch.utils.swap_tensors(parameter, weights[name])  # type: ignore[no-untyped-call]
            parameter.grad = gradient.get(name)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def _exchanged(self, others: dict[int, Tensor]) -> None:
        if others:
            exchange((self.optimizer, self.scheduler), lambda tensor: others.get(id(tensor), tensor))

    def _of_lanes(self) -> list[Tensor]:
        """Return the tensors of the state that have a value for each lane, parameters aside."""
        places, found = {id(parameter) for parameter in self.parameters.values()}, dict[int, Tensor]()

        def look(tensor: Tensor) -> Tensor:
            if id(tensor) not in places and debug_unwrap(tensor, recurse=False) is not tensor:
                found[id(tensor)] = tensor
            return tensor

        exchange((self.optimizer, self.scheduler), look)
        return list(found.values())

    def settle(self) -> None:
        """Raise `StepRefused` if it was seen not to agree with a lane stepped by itself."""
        self.audit.settle()

    def learning_rates(self) -> list[tuple[float, ...]]:
        """Return the learning rate of each parameter group, for each lane."""
        rates = [group.get("lr", float("nan")) for group in self.optimizer.param_groups]
        columns = [_per_lane(rate, self.lanes) for rate in rates]
        return list(zip(*columns, strict=True))


def _per_lane(rate: Tensor | float, lanes: int) -> list[float]:
    if not isinstance(rate, Tensor):
        return of_lanes(rate, lanes)
    return [float(value) for value in (rate if rate.shape == (lanes,) else rate.expand(lanes)).tolist()]
