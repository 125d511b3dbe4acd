"""A batched function as a graph of tensor operations: traced once, and compared with the function again and again.

`vmap` and `grad` take Python anew at each step what comes to the same operations at every step. A graph is those
operations alone: the same bits, for about half of the time on a CPU; as compiled code it is faster still.

Tracing sees one path through the model's Python code. So the graph is compared with the function at its first step in
each batch, at every `AUDITED`-th and at its last ones, for all lanes. A difference is an error: the batch is then
trained again without a graph. On a CPU uncompiled graphs have to give the same bits; else rounding is allowed for.
The first step is looked at in every batch, not in the first alone: an init has zeros and ties that no later step has,
and a perturbation of it others than the batch before.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from alignment_checks.backends.compilation.compiled import Flat, Traced, compiled, layouts
from alignment_checks.backends.compilation.simplified import direct, simplified

AUDITED = 128
"""Every so many steps a graph is compared with the function that it was traced from.

A call of the function takes as long as six of compiled code: 3 % of the time of a long run.
"""
ROUNDING = 64
"""How many epsilons, times the root of a tensor's size and the largest value of its lane, compiled code may be off."""

Outputs = tuple[list[Tensor], list[Tensor]]
"""Tensors with an axis of lanes: values of one magnitude, and others each of its own."""
Function = Callable[..., Outputs]
Pairs = list[tuple[Tensor, Tensor]]
Form = tuple[tuple[Hashable, ...] | None, ...]
"""Of each argument: the keys of a dict, None for a tensor."""


class NotTraced(Exception):  # noqa: N818
    """Why a function cannot be traced, or that what was traced is not the function."""


class NotCompiled(Exception):  # noqa: N818
    """Why a graph cannot be compiled."""


class Graphs:
    """The graphs of a structure of runs, by the role that they play; and whether there can be any.

    Parameters
    ----------
    traces : bool
        Whether there are any.
    compiles : bool
        Whether they are compiled.
    """

    def __init__(self, *, traces: bool = True, compiles: bool = False) -> None:
        self.traces, self.compiles = traces, compiles
        self.refusals: list[str] = []
        self._of: dict[Hashable, Graph] = {}

    def of(self, role: Hashable) -> Graph:
        """Return the graph of a role for another batch, whose function was made anew."""
        graph = self._of.setdefault(role, Graph(compiles=self.compiles))
        graph.audit()
        return graph

    def audit(self) -> None:
        """Compare each graph at its next step."""
        for graph in self._of.values():
            graph.audit()

    def refuse(self, error: NotTraced | NotCompiled) -> None:
        """Trace without compiling from here on, or do neither."""
        self._of.clear()
        self.traces, self.compiles = isinstance(error, NotCompiled), False
        self.refusals.append(f"not {'compiled' if self.traces else 'traced'}: {error}")


class Arguments:
    """What a function is called with: tensors, and dicts of them, which are laid out alike as long as they last."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        self.values: list[Tensor] = []
        form: list[tuple[Hashable, ...] | None] = []
        for argument in given:
            if isinstance(argument, Tensor):
                self.values.append(argument)
                form.append(None)
            else:
                self.values += argument.values()
                form.append(tuple(argument))
        self.form: Form = tuple(form)
        self.key = _Key((self.form, layouts(self.values)))


class _Key:
    """A key of a dict whose hash is found once."""

    def __init__(self, held: Hashable) -> None:
        self.held, self.hash = held, hash(held)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Key) and self.held == other.held)

    def __hash__(self) -> int:
        return self.hash


class Graph:
    """Calls a function of tensors, and of dicts of them, as what is traced once for each layout of them."""

    def __init__(self, *, compiles: bool = False) -> None:
        self.compiles = compiles
        self.codes: dict[object, _Code] = {}
        self.calls: Counter[object] = Counter()

    def audit(self) -> None:
        """Compare again from the next step on."""
        self.calls.clear()

    def __call__(self, function: Function, arguments: Arguments, calls: int = 1) -> Outputs:
        """Return what the function does; so many calls make a step, and all of them are compared or none.

        Raises
        ------
        NotTraced
            If it cannot be traced, or the graph gives something else.
        NotCompiled
            If the graph cannot be compiled.
        """
        values, key = arguments.values, arguments.key
        code = self.codes.get(key)
        if code is None:
            code = self.codes[key] = self._code(function, values, arguments.form)
        with torch.no_grad():
            flat = code.run(values)
        found = flat[: code.measured], flat[code.measured :]
        if self.calls[key] // calls % AUDITED == 0:
            self._compare(found, function(*arguments.given), values)
        self.calls[key] += 1
        return found

    def _compare(self, found: Outputs, expected: Outputs, values: list[Tensor]) -> None:
        if _agree(found, expected, exactly=not self.compiles and _is_on_cpu(values)):
            return
        if self.compiles:  # it may be rounding that a step of these runs makes much of: the graph itself will tell
            raise NotCompiled("what was compiled differs from what the model computes by more than rounding")
        raise NotTraced("what was traced is not what the model computes: its code takes more than one path")

    def _code(self, function: Function, values: list[Tensor], form: Form) -> _Code:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer's own making
            graph, count = _traced(function, values, form)
            run = _compiled(graph, values) if self.compiles else None  # the compiler simplifies as it sees fit
            graph = graph if self.compiles else direct(simplified(graph))
        return _Code(run or (lambda given: list(graph.forward(*given))), count)


class _Code(NamedTuple):
    """What is called, and how many of the tensors that it returns are of one magnitude."""

    run: Flat
    measured: int


def _formed(values: Iterable[Tensor], form: Form) -> list[Any]:
    """Return the arguments that were flattened to these values."""
    left, arguments = iter(values), list[Any]()
    for part in form:
        if part is None:
            arguments.append(next(left))
        else:
            arguments.append(dict(zip(part, islice(left, len(part)), strict=True)))
    return arguments


def _traced(function: Function, values: list[Tensor], form: Form) -> tuple[fx.GraphModule, int]:
    counts: list[int] = []

    def flat(*given: Tensor) -> list[Tensor]:
        found, others = function(*_formed(given, form))
        counts[:] = [len(found)]
        return [*found, *others]

    try:
        with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):  # else each operation makes a mode
            graph = make_fx(flat)(*(value.detach() for value in values))  # one tensor given twice is two inputs
    except Exception as error:
        raise NotTraced(_said(error)) from error
    return graph, counts[0]


def _compiled(graph: fx.GraphModule, values: list[Tensor]) -> Flat:
    try:
        return compiled(Traced(graph, values))
    except Exception as error:
        raise NotCompiled(_said(error)) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n", 1)[0][:160]


def _is_on_cpu(values: Sequence[Tensor]) -> bool:
    return all(value.device.type == "cpu" for value in values)


def _agree(found: Outputs, expected: Outputs, *, exactly: bool) -> bool:
    """Return whether a graph's values are those of the function, exactly or but for rounding, in all lanes.

    The largest of a lane's loss and gradient is the measure of rounding in both: a gradient that is 0 but for rounding,
    such as that of a bias before a normalization, has none of its own. Buffers, and what is measured of the gradient,
    have their own; each of their numbers may be a sum over the whole gradient, and of the rounding in it.
    """
    values, others = (_pairs(a, b) for a, b in zip(found, expected, strict=True))
    if _surely_agree(values, others, exactly=exactly):
        return True
    if exactly:
        return bool(torch.stack([_same(a, b) for a, b in (*values, *others)]).all())
    largest = torch.stack([b.abs().amax(1) for _, b in values if b.is_floating_point()]).amax(0)
    lost = ~largest.isfinite() & torch.stack([~a.isfinite().all(1) for a, _ in values]).any(0)
    summed = sum(b.shape[1] for _, b in values)
    close = [_close(a, b, largest, b.shape[1]) for a, b in values]
    close += [_close(a, b, _own(b, largest), max(summed, b.shape[1])) for a, b in others]
    return bool((torch.stack(close).all(0) | lost).all())


def _surely_agree(values: Pairs, others: Pairs, *, exactly: bool) -> bool:
    """Return whether that shows by a few calls for all tensors; it may not where a number is not finite.

    But for rounding, it does where no number is off by more than a tensor of one element is allowed in any lane.
    """
    if exactly:
        return all(torch.equal(a, b) for a, b in (*values, *others))
    if len({one.dtype for pair in (*values, *others) for one in pair}) > 1 or not values[0][1].is_floating_point():
        return False
    (a, b), (_, scale) = (
        [torch.cat(column, 1) for column in zip(*pairs, strict=True)] for pairs in ([*values, *others], values)
    )
    allowed = ROUNDING * torch.finfo(b.dtype).eps * scale.abs().amax(1).amin()
    return bool((a - b).abs().amax() <= allowed)


def _pairs(found: list[Tensor], expected: list[Tensor]) -> Pairs:
    both = zip(found, expected, strict=True)
    return [(a.flatten(1), b.flatten(1)) if a.ndim > 1 else (a[:, None], b[:, None]) for a, b in both if a.numel()]


def _same(a: Tensor, b: Tensor) -> Tensor:
    """Return for each lane whether two rows of numbers are the same, be they NaN."""
    same: Tensor = ((a == b) | ((a != a) & (b != b))).all(1)
    return same


def _own(b: Tensor, largest: Tensor) -> Tensor:
    """Return the measure of rounding in each lane's row of what is measured, which may exceed the gradient's."""
    return largest.maximum(b.abs().amax(1)) if b.is_floating_point() else largest


def _close(a: Tensor, b: Tensor, largest: Tensor, terms: int) -> Tensor:
    """Return for each lane whether two rows of numbers, sums of so many terms, are the same but for rounding."""
    if not b.is_floating_point():
        return _same(a, b)
    allowed = ROUNDING * torch.finfo(b.dtype).eps * terms**0.5 * largest
    near: Tensor = ((a - b).abs() <= allowed[:, None]) | (a == b) | (a.isnan() & b.isnan())
    return near.all(1)
