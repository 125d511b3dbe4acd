"""torch's random operations as functions of a source of numbers: what draws in their place while a model trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alignment_checks.randomness import philox
from alignment_checks.randomness.philox import Place


class Source:
    """Numbers that depend on (seed, stream, step, number of the call) and on nothing else: see `Drawing`."""

    def __init__(self, seed: Tensor, stream: int, step: int | Tensor) -> None:
        self.seed, self.stream, self.step, self.calls = seed, stream, step, 0

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


# ------------------------------------------------------------------------------------------------- dropout of all kinds


def _scaled(draw: Source, mask: Tensor, x: Tensor, p: float) -> tuple[Tensor, Tensor | float]:  # noqa: ARG001
    """Return what dropout multiplies by, and adds: 1/(1 − p) of what it keeps (Srivastava et al., JMLR 15, 2014)."""
    return mask / (1 - p) if p < 1 else mask, 0.0


_ALPHA = 1.7580993408473766


def _normalizing(draw: Source, mask: Tensor, x: Tensor, p: float) -> tuple[Tensor, Tensor | float]:  # noqa: ARG001
    """Return what alpha dropout multiplies by, and adds: it keeps mean and variance (Klambauer et al., NIPS 2017)."""
    a = 1 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p)) if p < 1 else 0.0
    return mask * a, (mask - 1) * (_ALPHA * a) + _ALPHA * a * p


def _dropping(
    affine: Callable[[Source, Tensor, Tensor, float], tuple[Tensor, Tensor | float]], *, feature: bool, inplace: bool
) -> Callable[..., Tensor]:
    def dropped(draw: Source, input: Tensor, p: float, train: bool) -> Tensor:  # noqa: A002
        if not train or p == 0:
            return input
        some = input[:, :, *[slice(0, 1)] * (input.ndim - 2)] if feature and input.ndim > 2 else input
        factor, shift = affine(draw, draw.below(1 - p, some), input, p)
        return input.mul_(factor).add_(shift) if inplace else input * factor + shift

    return dropped


def _leaking(*, inplace: bool) -> Callable[..., Tensor]:
    def leaked(
        draw: Source,
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
    draw: Source,
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


def _chance(draw: Source, input: Tensor, p: float | None = None) -> Tensor:  # noqa: A002
    return draw.below(input.double() if p is None else p, input)


def _chance_(draw: Source, input: Tensor, p: float | Tensor = 0.5) -> Tensor:  # noqa: A002
    return input.copy_(draw.below(p, input))


def _uniform_(draw: Source, input: Tensor, *bounds: float, **named: float) -> Tensor:  # noqa: A002
    low, high = _two(bounds, named, ("from", "to"), (0.0, 1.0))
    return input.copy_(low + (high - low) * draw.uniform(input))


def _normal_(draw: Source, input: Tensor, *moments: float, **named: float) -> Tensor:  # noqa: A002
    mean, std = _two(moments, named, ("mean", "std"), (0.0, 1.0))
    return input.copy_((mean + std * draw.draw(philox.normals, input)).to(input.dtype))


def _two(
    given: tuple[float, ...], named: Mapping[str, float], names: tuple[str, str], default: tuple[float, float]
) -> list[float]:
    """Return two arguments that may come by place or by name."""
    return [given[i] if i < len(given) else named.get(name, default[i]) for i, name in enumerate(names)]


def _exponential_(draw: Source, input: Tensor, lambd: float = 1.0) -> Tensor:  # noqa: A002
    """Fill with exponential numbers, none of them 0, as torch does."""
    return input.copy_((draw.draw(philox.uniforms, input).neg().add(1 + 2.0**-54).log().neg() / lambd).to(input.dtype))


def _rand(draw: Source, *shape: Any, **named: Any) -> Tensor:
    return draw.uniform(torch.empty(*shape, **named))


def _randn(draw: Source, *shape: Any, **named: Any) -> Tensor:
    like = torch.empty(*shape, **named)
    return draw.draw(philox.normals, like).to(like.dtype)


def _rand_like(draw: Source, input: Tensor, **named: Any) -> Tensor:  # noqa: A002
    return draw.uniform(torch.empty_like(input, **named))


def _randn_like(draw: Source, input: Tensor, **named: Any) -> Tensor:  # noqa: A002
    like = torch.empty_like(input, **named)
    return draw.draw(philox.normals, like).to(like.dtype)


def _randint(draw: Source, *given: Any, **named: Any) -> Tensor:
    """Return integers of [low, high), given as (high, size) or (low, high, size)."""
    bounds = [one for one in given if isinstance(one, int)]
    sizes = [one for one in given if not isinstance(one, int)]
    low, high = named.pop("low", bounds[0] if len(bounds) > 1 else 0), named.pop("high", bounds[-1] if bounds else 0)
    like = torch.empty(sizes[0] if sizes else named.pop("size"), **{"dtype": torch.int64, **named})
    found: Tensor = (low + draw.draw(philox.uniforms, like) * (high - low)).floor().to(like.dtype)
    return found


def _randperm(draw: Source, n: int, **named: Any) -> Tensor:
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
