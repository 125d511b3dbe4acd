"""Counter-based random numbers: pure functions of a seed and of a place, the same in any company and on any device.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011) in integer
operations: no state, so that runs that share a batch draw what each of them would draw alone. They are NumPy's where a
CPU computes them and no graph is recorded: a mask of a thousand numbers takes a quarter of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


class Place(NamedTuple):
    """Where in a run numbers are drawn: for what, at which step, and by which call within it."""

    stream: int
    step: int | Tensor
    call: int


Kind = Callable[[Tensor, Place, int], Tensor]


def philox(counter: Tensor, key: Tensor, rounds: int = 10) -> Tensor:
    """Return the block of four 32-bit words for each counter, all in int64.

    Parameters
    ----------
    counter : Tensor of int64, shape (4, ...)
    key : Tensor of int64, shape (2, ...)
        Broadcast against the counter's other axes.
    rounds : int

    Returns
    -------
    Tensor of int64, shape (4, ...)

    Examples
    --------
    >>> zero = torch.zeros(6, dtype=torch.int64)
    >>> [f"{word:08x}" for word in philox(zero[:4], zero[:2]).tolist()]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    turn = torch.arange(rounds, device=key.device).reshape(rounds, *[1] * (key.ndim - 1))
    keys = [((key[half] + turn * _WEYL[half]) & _WORD).unbind() for half in (0, 1)]
    return torch.stack(_mixed(counter.unbind(), zip(*keys, strict=True)))


def _mixed(counter: Sequence[Any], keys: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Return the words of each counter after a round with each of the keys, all int64: torch's arrays or NumPy's."""
    a, b, c, d = counter
    for first, second in keys:
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # beyond 2⁶³ they wrap, and the masks undo the sign
        a, c = right >> 32, left >> 32
        for high, low, key in ((a, b, first), (c, d, second)):
            high &= _WORD
            high ^= low
            high ^= key
        right &= _WORD
        left &= _WORD
        b, d = right, left
    return [a, b, c, d]


def words(seed: Tensor, place: Place, count: int) -> Tensor:
    """Return uniform 32-bit words in int64, shape (*seed.shape, count): word i depends on seed, place and i alone.

    Parameters
    ----------
    seed : Tensor of int64
    place : Place
    count : int
    """
    blocks = -(-count // 4)
    if seed.device.type == "cpu" and not isinstance(place.step, Tensor):  # a tensor is that of a graph
        return torch.from_numpy(_on_host(seed.numpy(), place, blocks)[..., :count])
    index = torch.arange(blocks, device=seed.device).expand(*seed.shape, blocks)
    at = [_everywhere(part, index) for part in (place.call, place.step, place.stream)]
    key = torch.stack([seed & _WORD, (seed >> 32) & _WORD]).unsqueeze(-1)
    return torch.movedim(philox(torch.stack([index, *at]), key), 0, -1).flatten(-2)[..., :count]


def _everywhere(part: int | Tensor, like: Tensor) -> Tensor:
    return part.expand_as(like) if isinstance(part, Tensor) else torch.full_like(like, part)


def _on_host(seed: np.ndarray[Any, Any], place: Place, blocks: int) -> np.ndarray[Any, Any]:
    """Return all words of so many blocks."""
    shape = (*seed.shape, blocks)
    index = np.broadcast_to(np.arange(blocks), shape)
    at = [np.full(shape, part) for part in (place.call, place.step, place.stream)]
    key = [seed[..., None] & _WORD, (seed[..., None] >> 32) & _WORD]
    turn = np.arange(10).reshape(-1, *[1] * (seed.ndim + 1))
    keys = zip(*((half + turn * weyl) & _WORD for half, weyl in zip(key, _WEYL, strict=True)), strict=True)
    return np.stack(_mixed([index, *at], keys), axis=-1).reshape(*seed.shape, -1)


def fractions(seed: Tensor, place: Place, count: int) -> Tensor:
    """Return numbers uniform in [0, 1) to 32 bits, in float64: what a mask is made of."""
    return words(seed, place, count).double() * 2.0**-32


def uniforms(seed: Tensor, place: Place, count: int) -> Tensor:
    """Return numbers uniform in [0, 1) to 53 bits, in float64."""
    pairs = words(seed, place, 2 * count).reshape(*seed.shape, count, 2)
    return ((pairs[..., 0] << 21) | (pairs[..., 1] >> 11)).double() * 2.0**-53


def normals(seed: Tensor, place: Place, count: int) -> Tensor:
    """Return standard normal numbers in float64 (Box and Muller, Annals of Mathematical Statistics 29, 1958)."""
    pairs = words(seed, place, 2 * count).reshape(*seed.shape, count, 2).double()
    radius = ((pairs[..., 0] + 1) * 2.0**-32).log().mul_(-2).sqrt_()
    return radius * (pairs[..., 1] * (2 * math.pi * 2.0**-32)).cos_()


def drawn(kind: Kind, seed: Tensor, place: Place, count: int) -> Tensor:
    """Return `kind(seed, place, count)`; where `seed` is batched by `vmap`, in one go over the batch."""
    found: Tensor = _Drawn.apply(seed, kind, place, count)  # type: ignore[no-untyped-call]
    return found


class _Drawn(torch.autograd.Function):
    """What hides the generator's many small operations from the transforms of `torch.func`."""

    @staticmethod
    def forward(seed: Tensor, kind: Kind, place: Place, count: int) -> Tensor:
        return kind(seed, place, count)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(
        info: Any,  # noqa: ARG004
        in_dims: tuple[int | None, ...],
        seed: Tensor,
        kind: Kind,
        place: Place,
        count: int,
    ) -> tuple[Tensor, int]:
        return kind(seed.movedim(in_dims[0] or 0, 0), place, count), 0
