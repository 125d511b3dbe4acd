"""The loss of runs that are stacked into lanes, as one batched function of their weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from alignment_checks.backends.compilation.graphs import Arguments, Graph
from alignment_checks.backends.weights import Shared, Weights, cast
from alignment_checks.inspection.copies import copied
from alignment_checks.inspection.placement import beside, placed
from alignment_checks.objectives import Coefficient, MesaObjective, Objective, Tensors
from alignment_checks.randomness.drawing import EVALUATION, STEP, drawing, seed_of
from alignment_checks.setups.realization import Realization, model_inputs

_Function = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """The loss of runs alike in structure, one lane each.

    Attributes
    ----------
    lanes : Tensor or None
        Whose weights each lane is evaluated at: see `Shared.at`.
    seeds : Tensor or None
        Of what each lane draws at random, shape (lanes,); None where nothing is drawn.
    stream : int
        What it is drawn for.
    dtype : torch.dtype or None
        What it is evaluated in, where that is not the weights' own.
    size : int
        How many lanes there are.
    chunk : int or None
        How many of them are evaluated by one call, the last ones filled up; None is all of them.
    idle : frozenset of int
        Lanes that nobody asks for, not all of them: calls of such alone are left out, and give what another gives.
    mesa : MesaObjective or None
        What is measured of the gradient.
    graph : Graph or None
        What calls the batched function in its place.
    kept : dict
        How it is evaluated, by what is asked for: the calls of one step are those of the next.
    minibatches : dict
        The loss on so many examples of each lane: see `on`.
    """

    module: nn.Module
    objective: Objective
    data: tuple[Shared, ...] | None
    coefficients: tuple[Tensor, ...]
    lanes: Tensor | None
    seeds: Tensor | None
    stream: int
    dtype: torch.dtype | None
    size: int
    chunk: int | None = None
    idle: frozenset[int] = frozenset()
    mesa: MesaObjective | None = None
    graph: Graph | None = None
    kept: dict[str, _Calls] = field(default_factory=dict, init=False, repr=False)
    minibatches: dict[int, Batch] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        runs: Sequence[Realization],
        device: torch.device,
        owners: list[int] | None = None,
        *,
        random: bool = False,
        lowered: bool = False,
        chunk: int | None = None,
        idle: Collection[int] = (),
    ) -> Batch:
        """Stack what the runs are evaluated on; `owners` says whose weights each is evaluated at, None its own.

        A loss whose training mode is `random` is evaluated in eval mode; where the weights are `lowered`, that is in a
        lower dtype, it is evaluated in the runs' own.
        """
        first, lanes = runs[0], None if owners is None else torch.tensor(owners, device=device)
        dtype = next(iter(first.parameters.values())).dtype
        columns = zip(*(run.objective.coefficients for run in runs), strict=True)
        coefficients = tuple(torch.tensor(column, dtype=dtype, device=device) for column in columns)
        parts = None if first.data is None else tuple(zip(*(run.data or () for run in runs), strict=True))
        owned = zip(parts or (), first.own, strict=True)
        data = None if parts is None else tuple(Shared.of(part, device, own=own) for part, own in owned)
        seeds = torch.stack([seed_of(run.seed) for run in runs]).to(device) if random else None
        module = placed(copied(first.module), device).train(not random)
        own = dtype if lowered else None
        sizes = len(runs), chunk, frozenset(idle)
        return cls(module, first.objective.on(device), data, coefficients, lanes, seeds, EVALUATION, own, *sizes)

    def stepping(self, dtype: torch.dtype | None) -> Batch:
        """Return the loss that steps descend, itself where that is the same: in training mode and the given dtype."""
        if self.seeds is None and dtype is None:
            return self
        return replace(
            self,
            module=copied(self.module).train(),
            data=None if self.data is None else tuple(part.cast(dtype) for part in self.data),
            coefficients=tuple(cast(column, dtype) for column in self.coefficients),
            stream=STEP,
            dtype=dtype,
        )

    def on(self, examples: Tensor | None) -> Batch:
        """Return the loss on each lane's own examples, indices of shape (lanes, size); None is all of them.

        It is on those until it is asked for on as many others: these are written over them.
        """
        if examples is None or self.data is None:
            return self
        size = examples.shape[1]
        if size not in self.minibatches:
            self.minibatches[size] = replace(self, data=tuple(part.room(examples) for part in self.data))
        found = self.minibatches[size]
        for part, some in zip(self.data, found.data or (), strict=True):
            part.pick(examples, some.tensor)
        return found

    def gradient(self, weights: Weights, step: int = 0) -> Found:
        """Return what is found at θ of each lane."""
        with torch.no_grad():  # within, of the lanes' weights alone: others may have a gradient that nobody asks for
            (*gradient, loss), others = self._mapped(self._descent, weights, step)
        buffers = dict(zip(weights.buffers, others, strict=False))
        mesa = None if self.mesa is None else others[-1]
        return Found(dict(zip(weights.trainable, gradient, strict=True)), loss, buffers, mesa)

    def value(self, weights: Weights) -> Tensor:
        """Return each lane's loss, shape (lanes,)."""
        with torch.no_grad():
            (loss,), _ = self._mapped(self._value, weights, 0)
            return loss

    def _mapped(self, function: _Function, weights: Weights, step: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return what the function of a lane gives for all lanes, by calls of so many lanes each."""
        calls = self._calls(weights, function)
        calls.step.fill_(step)
        given: list[tuple[list[Tensor], list[Tensor]]]
        if self.graph is None:
            given = [calls.function(step, *each.given[1:]) for each in calls.arguments]
        else:
            given = [self.graph(calls.function, each, len(calls.arguments)) for each in calls.arguments]
        if calls.width == self.size:
            return given[0]
        found, others = (_joined(columns, self.size) for columns in zip(*(given[i] for i in calls.order), strict=True))
        return found, others

    def _calls(self, weights: Weights, function: _Function) -> _Calls:
        """Return how it is evaluated; where the tensors are the weights' own memory, the same again at each step."""
        kept = self.kept.get(function.__name__)
        if kept is not None and kept.weights is weights:
            return kept
        found = self._laid_out(weights, function)
        if self.lanes is None and self.dtype is None and not weights.buffers and self.size % found.width == 0:
            self.kept[function.__name__] = found
        return found

    def _laid_out(self, weights: Weights, function: _Function) -> _Calls:
        groups: list[Mapping[Any, Shared]] = [*weights.at(self.lanes), dict(enumerate(self.data or ()))]
        groups += [{} if self.seeds is None else {0: Shared(self.seeds, 0)}]
        groups += [{index: Shared(column, 0) for index, column in enumerate(self.coefficients)}]
        values = [{name: part.cast(self.dtype) for name, part in group.items()} for group in groups]
        dims = ({name: part.dim for name, part in group.items()} for group in values)
        # of a copy: kept here, a function of this batch would keep its memory until Python looks for cycles
        of_copy = getattr(replace(self), function.__name__)
        mapped = vmap(of_copy, in_dims=(None, *dims), randomness="error")
        width, device = self.chunk or self.size, next(iter(weights.trainable.values())).device
        step = torch.zeros((), dtype=torch.int64, device=device)  # beside what is drawn from it: no graph mixes devices
        starts = range(0, self.size, width)
        asked = [at for at in starts if not self.idle.issuperset(range(at, min(at + width, self.size)))]
        order = [asked.index(at) if at in asked else len(asked) - 1 for at in starts]
        return _Calls(weights, mapped, width, step, [Arguments(step, *_span(values, at, width)) for at in asked], order)

    def _descent(self, step: int | Tensor, trainable: dict[str, Tensor], *rest: Any) -> tuple[list[Tensor], list[Any]]:
        """Return one lane's gradient and loss; and its buffers, and what is measured of the gradient."""
        gradient, (loss, buffers) = grad_and_value(self._lane, argnums=1, has_aux=True)(step, trainable, *rest)
        with beside(trainable):
            measured = [] if self.mesa is None else [self.mesa(gradient, trainable)]
        return [*(gradient[name] for name in trainable), loss], [*buffers.values(), *measured]

    def _value(self, *arguments: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Return one lane's loss, and nothing beside it."""
        return [self._lane(*arguments)[0]], []

    def _lane(
        self,
        step: int | Tensor,
        trainable: dict[str, Tensor],
        buffers: dict[str, Tensor],
        frozen: dict[str, Tensor],
        data: dict[int, Tensor],
        seeds: dict[int, Tensor],
        coefficients: dict[int, Coefficient],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return one lane's loss, and its buffers after the forward pass."""
        after = {name: value.clone() for name, value in buffers.items()}
        parts = None if self.data is None else tuple(data.values())
        targets = None if parts is None else parts[-1]
        with drawing(seeds.get(0), self.stream, step), beside(trainable), _followed(self.module, after):
            outputs = functional_call(self.module, {**trainable, **after, **frozen}, model_inputs(parts))
            return self.objective.loss(tuple(coefficients.values()))(outputs, targets, trainable), after


def _followed(module: nn.Module, buffers: dict[str, Tensor]) -> AbstractContextManager[Any]:
    """Have buffers, by name, be those that a module has after a call: it may have put others in their place.

    Those are copied: what a module puts there may be a view of its inputs, and their memory is written over.
    """

    def follow(called: nn.Module, *_: Any) -> None:
        now = dict(called.named_buffers())
        buffers.update({name: now[name].detach().clone() for name, own in buffers.items() if now[name] is not own})

    return module.register_forward_hook(follow) if buffers else nullcontext()


class _Calls(NamedTuple):
    """How a batch is evaluated at some weights.

    Attributes
    ----------
    function : callable
        What is called.
    width : int
        How many lanes a call has.
    step : Tensor
        The first of all arguments, of no axis, on the device: t.
    arguments : list of Arguments
        Of the calls that anybody asks for.
    order : list of int
        For as many lanes after as many, which of the calls is theirs; those that nobody asks for have the last one's.
    """

    weights: Weights
    function: _Function
    width: int
    step: Tensor
    arguments: list[Arguments]
    order: list[int]


def _span(groups: list[dict[Any, Shared]], start: int, width: int) -> list[dict[Any, Tensor]]:
    """Return so many lanes of all values, from one on."""
    return [{name: part.span(start, width) for name, part in group.items()} for group in groups]


def _joined(parts: Sequence[list[Tensor]], size: int) -> list[Tensor]:
    """Return what calls of some lanes each have given as what one call of all of them would give."""
    return [torch.cat(column)[:size] for column in zip(*parts, strict=True)]


class Found(NamedTuple):
    """What is found at θ of each lane: a gradient, the loss that it is of, the buffers after the forward pass."""

    gradient: Tensors
    loss: Tensor
    buffers: dict[str, Tensor]
    mesa: Tensor | None
