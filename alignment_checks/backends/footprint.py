"""What one step of one run takes, seen by taking one gradient at θ(0)."""

from __future__ import annotations

from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from alignment_checks import seeding
from alignment_checks.backends.remembering import Left, remembers
from alignment_checks.backends.writes import Writes, memory_of
from alignment_checks.inner_state import inner_state
from alignment_checks.objectives import Tensors, as_found
from alignment_checks.operations import has_branches, operations
from alignment_checks.realization import Realization, loss_of


@dataclass(frozen=True)
class Footprint:
    """What one step of one run takes.

    Attributes
    ----------
    bytes : int
        What the weights, what stands beside them, and what autograd saves take.
    unused, sparse : tuple of str
        The parameters that the loss does not use, and those whose gradient is sparse.
    stateful : bool
        Whether a call changes what the model or the objective holds beside buffers, and so what later calls give; or
        the first writes into parameters; or the objective, which all runs share, keeps anything of a call.
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
    stateful: bool = False
    convolves: bool = False
    minibatch: float = 0.0
    writes: bool = False
    branches: bool = False


def footprint(run: Realization) -> Footprint:
    """Take one gradient at θ(0) and see what it needs."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved.update({part.data_ptr(): part.nbytes() for part in memory_of(tensor)})
        return tensor

    parameters = {name: value.clone().requires_grad_() for name, value in run.parameters.items()}
    constants = {name: value.clone() for name, value in run.constants.items()}
    module = deepcopy(run.module)
    buffers = {name for name, _ in module.named_buffers()}
    watch = Writes(value for name, value in {**parameters, **constants}.items() if name not in buffers)

    def loss_at(weights: Tensors = parameters, others: Tensors = constants) -> Tensor:
        outputs = functional_call(module, {**weights, **others}, run.inputs)
        return loss_of(run)(outputs, run.targets, weights)

    def again_at(weights: Tensors) -> Tensor:
        with seeding.isolated(seeding.derive("run", run.seed)):
            return loss_at(weights, {name: value.clone() for name, value in run.constants.items()})

    with seeding.isolated(seeding.derive("run", run.seed)), as_found(run.objective):
        found = inner_state(run.objective)  # which all runs share
        branches = has_branches(loss_at())  # what a model keeps from the first call on, such as a cache, is no state
        altered = any(not torch.equal(value, run.parameters[name]) for name, value in parameters.items())
        before, left = inner_state(module, run.objective), (Left(module), Left(run.objective))
        with ExitStack() as seen:
            if not branches:
                seen.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
                seen.enter_context(watch)
            loss = loss_at()
        stateful = inner_state(module, run.objective) != before or left[1].differs()
        stateful = stateful or (altered and not watch.seen) or inner_state(run.objective) != found
        convolves = any("Convolution" in operation for operation in operations(loss))
        gradient = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        stateful = stateful or (left[0].differs() and remembers(again_at, parameters, gradient))
    weights = sum(value.nbytes for value in parameters.values())
    of = dict(zip(parameters, gradient, strict=True))
    unused = tuple(name for name, g in of.items() if g is None)
    sparse = tuple(name for name, g in of.items() if g is not None and g.layout != torch.strided)
    minibatch = 0.0 if run.batch_size is None else run.batch_size / run.examples
    return Footprint(
        bytes=_COPIES * weights + sum(saved.values()),
        unused=unused,
        sparse=sparse,
        stateful=stateful,
        convolves=convolves,
        minibatch=minibatch,
        writes=branches or watch.seen,
        branches=branches,
    )


_COPIES = 6
"""A parameter stands beside its gradient, two moments, and what the step needs for a moment."""
