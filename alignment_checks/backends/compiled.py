"""A batched function as compiled code: traced once, compiled by TorchInductor, and compared again and again.

Tracing sees one path through the model's Python code. So the code is compared with the function itself at its first
call and at every `AUDITED`-th one, and a difference beyond rounding is an error: the batch is then trained uncompiled.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from alignment_checks.realization import content

AUDITED = 64
"""Every so many calls the compiled code is compared with the function that it was traced from."""
ROUNDING = 64
"""How many epsilons, times the root of a tensor's size and the largest value of its lane, compiled code may be off."""

Function = Callable[..., Any]


class NotCompiled(Exception):  # noqa: N818
    """Why a function cannot be compiled, or that what was compiled is not the function."""


class Compiler:
    """Calls functions of tensors (in dicts and tuples) as code that is compiled once for each layout of them.

    One compiler serves one function: what it was given first for a layout is what is called for that layout.
    """

    def __init__(self) -> None:
        self.codes: dict[object, _Code] = {}
        self.calls: Counter[object] = Counter()

    def begin(self) -> None:
        """Compare again from the next call on: the function that comes now was made anew, for another batch."""
        self.calls.clear()

    def __call__(self, function: Function, *arguments: Any) -> Any:
        """Return the function's value.

        Raises
        ------
        NotCompiled
            If it cannot be compiled, or the compiled code gives something else.
        """
        values, form = tree_flatten(arguments)
        key = (form, _layouts(values))
        if key not in self.codes:
            self.codes[key] = _code(function, values, form)
        code = self.codes[key]
        if code.run is None:
            return function(*arguments)
        found = code.run(values)
        if self.calls[key] % AUDITED == 0:
            _compare(found, tree_flatten(function(*arguments))[0])
        self.calls[key] += 1
        return tree_unflatten(found, code.form)


class Compilers(NamedTuple):
    """What compiles the two losses of a setup: the one that is measured, and the one that steps descend."""

    measured: Compiler
    stepped: Compiler

    @classmethod
    def new(cls) -> Compilers:
        """Return two that have compiled nothing yet."""
        return cls(Compiler(), Compiler())


def _layouts(values: Sequence[Tensor]) -> tuple[object, ...]:
    return tuple((v.shape, v.stride(), v.dtype, v.device) for v in values)


Run = Callable[[list[Tensor]], list[Tensor]]


class _Code(NamedTuple):
    """Compiled code, None where compiling brings nothing; and the form of what it returns."""

    run: Run | None
    form: TreeSpec


def _code(function: Function, values: list[Tensor], form: TreeSpec) -> _Code:
    returned: list[TreeSpec] = []

    def flat(*given: Tensor) -> list[Tensor]:
        found, shape = tree_flatten(function(*tree_unflatten(list(given), form)))
        returned[:] = [shape]
        return found

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler's own making
            return _Code(_compiled(_Traced(make_fx(flat)(*values), values)), returned[0])
    except Exception as error:
        raise NotCompiled(f"{type(error).__name__}: {error}".split("\n", 1)[0][:160]) from error


class _Traced:
    """A traced function and tensors to call it with, equal to another that is the same code for the same layouts."""

    def __init__(self, graph: fx.GraphModule, values: Sequence[Tensor]) -> None:
        graph.graph.eliminate_dead_code()
        self.graph, self.values = graph, values
        constants = [getattr(graph, str(node.target)) for node in graph.graph.nodes if node.op == "get_attr"]
        self.key = (str(graph.code), tuple(map(content, constants)), _layouts(values), torch.get_num_threads())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Traced) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def convolves(self) -> bool:
        """Whether its work is in convolutions, which a compiler leaves as they are."""
        return any("convolution" in str(node.target) for node in self.graph.graph.nodes)


@lru_cache(maxsize=64)
def _compiled(traced: _Traced) -> Run | None:
    """Compile once in a process; TorchInductor keeps the code on disk for the next one."""
    if traced.convolves:
        return None
    from torch import _inductor  # here, since it takes a second that most runs do not need

    run = _inductor.compile(traced.graph, list(traced.values), options={"compile_threads": 1})
    return lambda values: list(run(*values))


def _compare(found: list[Tensor], expected: list[Tensor]) -> None:
    """Raise NotCompiled where compiled values are not those of the function, but for rounding, in any lane.

    The largest value of a lane is the measure of rounding in all its tensors: a gradient that is 0 but for rounding,
    such as that of a bias before a normalization, has none of its own.
    """
    pairs = [(a.reshape(len(a), -1), b.reshape(len(b), -1)) for a, b in zip(found, expected, strict=True)]
    floats = [b for _, b in pairs if b.is_floating_point()]
    largest = torch.stack([b.abs().amax(1) for b in floats]).amax(0) if floats else torch.zeros(len(expected[0]))
    lost = ~largest.isfinite() & torch.stack([~a.isfinite().all(1) for a, _ in pairs]).any(0)
    if not bool(torch.stack([lost | _close(a, b, largest) for a, b in pairs]).all()):
        raise NotCompiled("what was compiled is not what the model computes: its code takes more than one path")


def _close(a: Tensor, b: Tensor, largest: Tensor) -> Tensor:
    """Return for each lane whether two rows of numbers are the same but for rounding."""
    if not b.is_floating_point():
        return (a == b).all(1)
    allowed = ROUNDING * torch.finfo(b.dtype).eps * b.shape[1] ** 0.5 * largest
    near: Tensor = ((a - b).abs() <= allowed[:, None]).all(1)
    return near
