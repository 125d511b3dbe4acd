"""What a model draws at random, drawn from the run's seed, the step and the number of the call instead.

torch's own generator is one for all lanes of a batch, and where it stands depends on what was drawn before. Under
`Drawing` a dropout mask is a pure function of the run: loop and lanes draw the same, and evaluating draws nothing that
training would have drawn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import cache
from types import FunctionType, MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_checks import philox, seeding
from alignment_checks.philox import Place

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
    before = _states()
    forward()
    if _states() == before:
        return Randomness.NONE
    before = _states()
    with Drawing(seed, EVALUATION, 0):
        loss = forward()
    seen = _states() == before and not _draws_on_the_way_back(loss)
    return Randomness.SEEN if seen else Randomness.HIDDEN


def _draws_on_the_way_back(loss: Tensor) -> bool:
    watch = _Seeded()
    with watch:
        if loss.requires_grad:
            torch.autograd.backward(loss.sum())
    return watch.seen


class _Seeded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notices operations that draw from torch's generator, also where that is put back afterwards."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return that this mode is not to be wrapped for the compiler, which costs more than the mode itself."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.seen = self.seen or torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def _states() -> tuple[object, ...]:
    of_numpy: Any = np.random.get_state(legacy=False)
    inner = of_numpy["state"]
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        inner["key"].tobytes(),
        inner["pos"],
        of_numpy["gauss"],
    )


class Drawing(TorchFunctionMode):
    """Within it, torch's random operations draw from (seed, stream, step, number of the call).

    Parameters
    ----------
    seed : Tensor of int64
        A scalar; under `vmap`, batched: one for each lane.
    stream : int
    step : int or scalar Tensor
    """

    def __init__(self, seed: Tensor, stream: int, step: int | Tensor) -> None:
        super().__init__()
        self.seed, self.stream, self.step, self.calls = seed, stream, step, 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in REPLACED and named.get("generator") is None and "out" not in named:
            named.pop("generator", None)
            return REPLACED[func](self, *args, **named)
        if isinstance(func, FunctionType) and func.__globals__ is vars(functional):
            with self:
                return _body(func)(*args, **named)
        return func(*args, **named)

    def draw(self, kind: philox.Kind, like: Tensor) -> Tensor:
        """Return float64 numbers of the shape of `like`, those of the next call."""
        place = Place(self.stream, self.step, self.calls)
        self.calls += 1
        return philox.drawn(kind, self.seed.to(like.device), place, like.numel()).reshape(like.shape)

    def below(self, chance: float | Tensor, like: Tensor) -> Tensor:
        """Return 1 with the given chance, else 0, in the shape and dtype of `like`."""
        return (self.draw(philox.fractions, like) < chance).to(like.dtype)

    def uniform(self, like: Tensor) -> Tensor:
        """Return numbers uniform in [0, 1), of as many bits as the dtype of `like` has."""
        digits = 1 / torch.finfo(like.dtype).eps * 2
        return (self.draw(philox.uniforms, like).mul(digits).floor() / digits).to(like.dtype)


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


# ------------------------------------------------------------------------------------------------- dropout of all kinds


def _scaled(draw: Drawing, mask: Tensor, x: Tensor, p: float) -> tuple[Tensor, Tensor | float]:  # noqa: ARG001
    """Return what dropout multiplies by, and adds: 1/(1 − p) of what it keeps (Srivastava et al., JMLR 15, 2014)."""
    return mask / (1 - p) if p < 1 else mask, 0.0


_ALPHA = 1.7580993408473766


def _normalizing(draw: Drawing, mask: Tensor, x: Tensor, p: float) -> tuple[Tensor, Tensor | float]:  # noqa: ARG001
    """Return what alpha dropout multiplies by, and adds: it keeps mean and variance (Klambauer et al., NIPS 2017)."""
    a = 1 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p)) if p < 1 else 0.0
    return mask * a, (mask - 1) * (_ALPHA * a) + _ALPHA * a * p


def _dropping(
    affine: Callable[[Drawing, Tensor, Tensor, float], tuple[Tensor, Tensor | float]], *, feature: bool, inplace: bool
) -> Callable[..., Tensor]:
    def dropped(draw: Drawing, input: Tensor, p: float, train: bool) -> Tensor:  # noqa: A002
        if not train or p == 0:
            return input
        some = input[:, :, *[slice(0, 1)] * (input.ndim - 2)] if feature and input.ndim > 2 else input
        factor, shift = affine(draw, draw.below(1 - p, some), input, p)
        return input.mul_(factor).add_(shift) if inplace else input * factor + shift

    return dropped


def _leaking(*, inplace: bool) -> Callable[..., Tensor]:
    def leaked(
        draw: Drawing,
        input: Tensor,  # noqa: A002
        lower: float = 1 / 8,
        upper: float = 1 / 3,
        training: bool = False,
    ) -> Tensor:
        if not training:
            return functional.leaky_relu(input, (lower + upper) / 2, inplace)  # torch.rrelu cannot be batched
        factor = torch.where(input <= 0, lower + (upper - lower) * draw.uniform(input), 1.0)
        return input.mul_(factor) if inplace else input * factor

    return leaked


def _attended(
    draw: Drawing,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,
) -> Tensor:
    """Return scaled dot product attention; with dropout, written out as torch's documentation does."""
    if dropout_p == 0:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask, 0.0, is_causal, **more)
    if more.pop("enable_gqa", False):
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
    scale = more.pop("scale", None)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = scores.softmax(-1)
    return (weights * draw.below(1 - dropout_p, weights) / (1 - dropout_p)) @ value


# ------------------------------------------------------------------------------------------------- plain random numbers


def _chance(draw: Drawing, input: Tensor, p: float | None = None) -> Tensor:  # noqa: A002
    return draw.below(input.double() if p is None else p, input)


def _chance_(draw: Drawing, input: Tensor, p: float | Tensor = 0.5) -> Tensor:  # noqa: A002
    return input.copy_(draw.below(p, input))


def _uniform_(draw: Drawing, input: Tensor, *bounds: float, **named: float) -> Tensor:  # noqa: A002
    low, high = _two(bounds, named, ("from", "to"), (0.0, 1.0))
    return input.copy_(low + (high - low) * draw.uniform(input))


def _normal_(draw: Drawing, input: Tensor, *moments: float, **named: float) -> Tensor:  # noqa: A002
    mean, std = _two(moments, named, ("mean", "std"), (0.0, 1.0))
    return input.copy_((mean + std * draw.draw(philox.normals, input)).to(input.dtype))


def _two(
    given: tuple[float, ...], named: Mapping[str, float], names: tuple[str, str], default: tuple[float, float]
) -> list[float]:
    """Return two arguments that may come by place or by name."""
    return [given[i] if i < len(given) else named.get(name, default[i]) for i, name in enumerate(names)]


def _exponential_(draw: Drawing, input: Tensor, lambd: float = 1.0) -> Tensor:  # noqa: A002
    """Fill with exponential numbers, none of them 0, as torch does."""
    return input.copy_((draw.draw(philox.uniforms, input).neg().add(1 + 2.0**-54).log().neg() / lambd).to(input.dtype))


def _rand(draw: Drawing, *shape: Any, **named: Any) -> Tensor:
    return draw.uniform(torch.empty(*shape, **named))


def _randn(draw: Drawing, *shape: Any, **named: Any) -> Tensor:
    like = torch.empty(*shape, **named)
    return draw.draw(philox.normals, like).to(like.dtype)


def _rand_like(draw: Drawing, input: Tensor, **named: Any) -> Tensor:  # noqa: A002
    return draw.uniform(torch.empty_like(input, **named))


def _randn_like(draw: Drawing, input: Tensor, **named: Any) -> Tensor:  # noqa: A002
    like = torch.empty_like(input, **named)
    return draw.draw(philox.normals, like).to(like.dtype)


def _randint(draw: Drawing, *given: Any, **named: Any) -> Tensor:
    """Return integers of [low, high), given as (high, size) or (low, high, size)."""
    bounds = [one for one in given if isinstance(one, int)]
    sizes = [one for one in given if not isinstance(one, int)]
    low, high = named.pop("low", bounds[0] if len(bounds) > 1 else 0), named.pop("high", bounds[-1] if bounds else 0)
    like = torch.empty(sizes[0] if sizes else named.pop("size"), **{"dtype": torch.int64, **named})
    found: Tensor = (low + draw.draw(philox.uniforms, like) * (high - low)).floor().to(like.dtype)
    return found


def _randperm(draw: Drawing, n: int, **named: Any) -> Tensor:
    like = torch.empty(n, **{"dtype": torch.int64, **named})
    return draw.draw(philox.uniforms, like).argsort().to(like.dtype)


REPLACED: Mapping[Callable[..., Any], Callable[..., Tensor]] = MappingProxyType(
    {
        torch.dropout: _dropping(_scaled, feature=False, inplace=False),
        torch.dropout_: _dropping(_scaled, feature=False, inplace=True),
        torch.feature_dropout: _dropping(_scaled, feature=True, inplace=False),
        torch.feature_dropout_: _dropping(_scaled, feature=True, inplace=True),
        torch.alpha_dropout: _dropping(_normalizing, feature=False, inplace=False),
        torch.alpha_dropout_: _dropping(_normalizing, feature=False, inplace=True),
        torch.feature_alpha_dropout: _dropping(_normalizing, feature=True, inplace=False),
        torch.feature_alpha_dropout_: _dropping(_normalizing, feature=True, inplace=True),
        torch.rrelu: _leaking(inplace=False),
        torch.rrelu_: _leaking(inplace=True),
        functional.scaled_dot_product_attention: _attended,
        torch.bernoulli: _chance,
        Tensor.bernoulli: _chance,
        Tensor.bernoulli_: _chance_,
        Tensor.uniform_: _uniform_,
        Tensor.normal_: _normal_,
        Tensor.exponential_: _exponential_,
        torch.rand: _rand,
        torch.randn: _randn,
        torch.rand_like: _rand_like,
        torch.randn_like: _randn_like,
        torch.randint: _randint,
        torch.randperm: _randperm,
    }
)
"""torch's random operations, and what draws in their place; what is not here is left to torch, and noticed."""
