"""How wide the rounds of a search are: a function of the device's kind, never of how fast it turns out to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """The widths of the rounds.

    Attributes
    ----------
    corners : int
        Corners of the domain in the first batch; the others come before the draws.
    apart : bool
        Whether the first batch holds no draws; the next holds as many as are trained at once, and each further one
        three times as many while nothing fails. False judges all of them in the first.
    width : int
        Runs of one round of shrinking: what ladders leave of it is filled with other seeds.
    rivals : int
        How many failing perturbations of a kind are shrunk side by side, lest the smallest drawn hide a smaller one.
    followed : int
        How many other seeds that fail are followed side by side, to see which of them fails at the least magnitude.
    rungs : int
        Magnitudes tried at once along one line, while other seeds are tried beside them.
    seeds : int
        Fresh seeds of δ's own randomness that are tried at least, just below the smallest failure so far.
    curve : int
        Magnitudes of the degradation curve.
    """

    corners: int
    apart: bool
    width: int
    rivals: int
    followed: int
    rungs: int
    seeds: int
    curve: int

    def batches(self, draws: Sequence[T], *, corners: bool = True) -> Iterator[Sequence[T]]:
        """Return the draws in batches, at least one: all at once, or none beside corners and more each time."""
        start, size = 0, self.width if self.apart else max(1, len(draws))
        if not draws or (self.apart and corners):
            yield draws[:0]
        while start < len(draws):
            yield draws[start : start + size]
            start, size = start + size, 3 * size


WIDE = Plan(corners=64, apart=False, width=128, rivals=6, followed=6, rungs=12, seeds=24, curve=16)
"""For an accelerator, where a batch of a hundred takes hardly longer than a run: few rounds."""

FRUGAL = Plan(corners=15, apart=True, width=16, rivals=1, followed=2, rungs=4, seeds=16, curve=8)
"""For a CPU, where each run of a batch has its price: 0 and the limits first, since a limit that fails makes the draws
unnecessary; then as many as are trained at once."""
