"""What a model draws at random, drawn from the run's seed, the step and the number of the call instead.

torch's own generator is one for all lanes of a batch, and where it stands depends on what was drawn before. Under
`Drawing` a dropout mask is a pure function of the run: loop and lanes draw the same, and evaluating draws nothing that
training would have drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from alignment_checks.inspection.modes import DispatchMode
from alignment_checks.randomness import seeding
from alignment_checks.randomness.random_operations import REPLACED, Source
from alignment_checks.randomness.recurrent_dropout import RECURRENT

_DRAWN: Mapping[Callable[..., Any], Callable[..., Any]] = {**REPLACED, **RECURRENT}
STEP, EVALUATION, NOISE = range(3)
"""What is drawn for: the step's forward pass, measuring L and G (at every t the same draws), noise on the gradient."""


class Randomness(Enum):
    """What a forward pass draws: nothing, what `Drawing` replaces, or (also) what it cannot see."""

    NONE = "draws nothing"
    SEEN = "draws what can be drawn from seed, step and call"
    HIDDEN = "draws random numbers that cannot be drawn for each lane apart"


def seed_of(run: int, device: torch.device | None = None) -> Tensor:
    """Return the seed of what a run draws, a scalar of int64."""
    return torch.tensor(seeding.derive("draws", run), device=device)


def drawing(seed: Tensor | None, stream: int, step: int | Tensor = 0) -> AbstractContextManager[object]:
    """Return a context in which torch draws from seed and step; one that does nothing where the seed is None."""
    return nullcontext() if seed is None else Drawing(seed, stream, step)


def drawing_of(randomness: Randomness, run: int, device: torch.device | None = None) -> Tensor | None:
    """Return the seed of what a run draws; None where it draws nothing, or (also) from torch's own generators."""
    return seed_of(run, device) if randomness is Randomness.SEEN else None


def observed(forward: Callable[[], Tensor], seed: Tensor) -> Randomness:
    """Return what a forward pass draws, by the global generators that it moves.

    One that is run again on the way back (`torch.utils.checkpoint`) counts as hidden: torch gives it the numbers of the
    first time, `Drawing` cannot.
    """
    before = seeding.states()
    forward()
    if seeding.states() == before:
        return Randomness.NONE
    before = seeding.states()
    with Drawing(seed, EVALUATION, 0):
        loss = forward()
    seen = seeding.states() == before and not _draws_on_the_way_back(loss)
    return Randomness.SEEN if seen else Randomness.HIDDEN


def _draws_on_the_way_back(loss: Tensor) -> bool:
    watch = _Seeded()
    with watch:
        if loss.requires_grad:
            torch.autograd.backward(loss.sum())
    return watch.seen


class _Seeded(DispatchMode):  # type: ignore[no-untyped-call]
    """Notices operations that draw from torch's generator, also where that is put back afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.seen = self.seen or torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


class Drawing(TorchFunctionMode, Source):
    """Within it, torch's random operations draw from (seed, stream, step, number of the call).

    Parameters
    ----------
    seed : Tensor of int64
        A scalar; under `vmap`, batched: one for each lane.
    stream : int
    step : int or scalar Tensor
    """

    def __init__(self, seed: Tensor, stream: int, step: int | Tensor) -> None:
        TorchFunctionMode.__init__(self)
        Source.__init__(self, seed, stream, step)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in _DRAWN and named.get("generator") is None and "out" not in named:
            named.pop("generator", None)
            return _DRAWN[func](self, *args, **named)
        if isinstance(func, FunctionType) and func.__globals__ is vars(functional):
            with self:
                return _body(func)(*args, **named)
        return func(*args, **named)


@cache
def _body(function: FunctionType) -> FunctionType:
    """Return a function of `torch.nn.functional` without its own look for modes, which would find this one for ever."""
    blind = {name: _never for name in function.__globals__ if name.startswith("has_torch_function")}
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **blind},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _never(*_: object) -> bool:
    return False
