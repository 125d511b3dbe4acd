"""What one step of one run takes, seen by taking one gradient at θ(0)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from alignment_checks.backends.remembering import Left, equal, remembers
from alignment_checks.backends.writes import Writes, memory_of
from alignment_checks.inspection.copies import copied
from alignment_checks.inspection.inner_state import inner_state
from alignment_checks.inspection.operations import has_branches, operations
from alignment_checks.objectives import Tensors
from alignment_checks.randomness import seeding
from alignment_checks.setups.as_found import as_found
from alignment_checks.setups.realization import Realization, loss_of


@dataclass(frozen=True)
class Footprint:
    """What one step of one run takes.

    Attributes
    ----------
    bytes : int
        What the weights, what stands beside them, and what autograd saves take.
    unused, sparse : tuple of str
        The parameters that the loss does not use, and those whose gradient is sparse.
    keeps : bool
        Whether a call changes what the model holds beside buffers, and so what later calls give; or the first sets
        something, by its examples, that later ones make use of, or writes into parameters.
    stateful : bool
        Whether it does, or a call changes what the objective holds; or that, which all runs share, keeps anything of a
        call.
    convolves : bool
        Whether it convolves, which takes a core longer than its bytes tell.
    minibatch : float
        Which part of the examples a step takes beside measuring all of them; 0 where it takes the measured gradient.
    writes : bool
        Whether a call writes into parameters, which lanes would not keep; where it branches, it is taken to.
    branches : bool
        Whether it is one of several that `torch.cond` or its like chooses from.
    """

    bytes: int
    unused: tuple[str, ...]
    sparse: tuple[str, ...]
    keeps: bool = False
    stateful: bool = False
    convolves: bool = False
    minibatch: float = 0.0
    writes: bool = False
    branches: bool = False


def footprint(run: Realization) -> Footprint:
    """Take one gradient at θ(0) and see what it needs."""
    with seeding.isolated(seeding.derive("run", run.seed)), as_found(run.objective):
        trial = _Trial(run)
        loss = trial.watched()
        stateful, keeps = trial.changes_the_objective(), trial.changes_the_model()
        keeps = keeps or trial.is_set_by_its_first_call() or trial.heeds_its_first_call()
        convolves = any("Convolution" in operation for operation in operations(loss))
        gradient = torch.autograd.grad(loss, list(trial.parameters.values()), allow_unused=True)
        keeps = keeps or trial.remembers(gradient)
    of = dict(zip(trial.parameters, gradient, strict=True))
    return Footprint(
        bytes=_COPIES * sum(value.nbytes for value in trial.parameters.values()) + sum(trial.saved.values()),
        unused=tuple(name for name, g in of.items() if g is None),
        sparse=tuple(name for name, g in of.items() if g is not None and g.layout != torch.strided),
        keeps=keeps,
        stateful=stateful or keeps,
        convolves=convolves,
        minibatch=0.0 if run.batch_size is None else run.batch_size / run.examples,
        writes=trial.branches or trial.writes.seen,
        branches=trial.branches,
    )


class _Trial:
    """A run at θ(0) of its own, called twice: what is kept from the first call on, such as a cache, is no state.

    It is called for the first time as it is made.
    """

    def __init__(self, run: Realization) -> None:
        self.run, self.module = run, copied(run.module)
        self.parameters = {name: value.clone().requires_grad_() for name, value in run.parameters.items()}
        self.constants = _copies(run.constants)
        buffers = {name for name, _ in self.module.named_buffers()}
        weights = {**self.parameters, **self.constants}
        self.writes = Writes(value for name, value in weights.items() if name not in buffers)
        self.saved: dict[int, int] = {}
        self.held, self.objective_held = self.holds(), inner_state(run.objective)
        loss = self.loss(self.parameters, self.constants)
        self.first, self.branches = loss.detach(), has_branches(loss)
        self.altered = not all(equal(value, run.parameters[name]) for name, value in self.parameters.items())
        self.held_since, self.objective_held_since = inner_state(self.module), inner_state(run.objective)
        self.left, self.left_in_the_objective = Left(self.module), Left(run.objective)

    def loss(self, parameters: Tensors, constants: Tensors) -> Tensor:
        outputs = functional_call(self.module, {**parameters, **constants}, self.run.inputs)
        return loss_of(self.run)(outputs, self.run.targets, parameters)

    def watched(self) -> Tensor:
        """Call it again, and see what it writes into and what autograd saves; not where it branches."""
        with ExitStack() as seen:
            if not self.branches:
                seen.enter_context(torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor))
                seen.enter_context(self.writes)
            return self.loss(self.parameters, self.constants)

    def pack(self, tensor: Tensor) -> Tensor:
        self.saved.update({part.data_ptr(): part.nbytes() for part in memory_of(tensor)})
        return tensor

    def changes_the_objective(self) -> bool:
        """Return whether a call changed what the objective holds: the first one too, since all runs share it."""
        held = {self.objective_held, self.objective_held_since, inner_state(self.run.objective)}
        return len(held) > 1 or self.left_in_the_objective.differs()

    def changes_the_model(self) -> bool:
        """Return whether the second call changed what the model holds."""
        return inner_state(self.module) != self.held_since

    def is_set_by_its_first_call(self) -> bool:
        """Return whether the first call alone wrote into parameters."""
        return self.altered and not self.writes.seen

    def holds(self) -> tuple[str, list[str]]:
        """Return what the model holds, but for the elements of its buffers."""
        return inner_state(self.module), [name for name, _ in self.module.named_buffers()]

    def heeds_its_first_call(self) -> bool:
        """Return whether a call on other examples, before any on all of them, changes what these give.

        Only a model that has kept something of its first call is asked.
        """
        if self.holds() == self.held or self.run.examples < 2:
            return False
        self.module = copied(self.run.module)
        others = tuple(part[torch.arange(len(part), device=part.device) // 2] for part in self.run.inputs)
        try:
            with seeding.isolated(seeding.derive("run", self.run.seed)), torch.no_grad():
                functional_call(self.module, {**self.parameters, **_copies(self.run.constants)}, others)
            return not equal(self.again(self.parameters), self.first)
        except Exception:  # it may be that what it keeps is of a shape: then it does not pass unnoticed in the loop
            return True

    def remembers(self, gradient: Sequence[Tensor | None]) -> bool:
        """Return whether calls leave tensors behind that later ones make use of."""
        return self.left.differs() and remembers(self.again, self.parameters, gradient)

    def again(self, weights: Tensors) -> Tensor:
        """Return L at other weights, with the random numbers that it began with."""
        with seeding.isolated(seeding.derive("run", self.run.seed)):
            return self.loss(weights, _copies(self.run.constants))


def _copies(values: Tensors) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in values.items()}


_COPIES = 6
"""A parameter stands beside its gradient, two moments, and what the step needs for a moment."""
