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
    first : int or None
        Draws of the first batch; the next holds as many as are trained at once, and each further one three times as
        many while nothing fails. None judges all of them at once.
    width : int
        Runs of one round of shrinking: what ladders leave of it is filled with other seeds.
    rivals : int
        How many failing perturbations of a kind are shrunk side by side, lest the smallest drawn hide a smaller one.
    rungs : int
        Magnitudes tried at once along one line.
    seeds : int
        Fresh seeds of δ's own randomness that are tried at least, just below the smallest failure so far.
    curve : int
        Magnitudes of the degradation curve.
    """

    corners: int
    first: int | None
    width: int
    rivals: int
    rungs: int
    seeds: int
    curve: int

    def batches(self, draws: Sequence[T], *, corners: bool = True) -> Iterator[Sequence[T]]:
        """Return the draws in batches, at least one: all at once, or few at first and more each time.

        Without corners before them, the first draws are as many as are trained at once.
        """
        start, size = 0, max(1, len(draws)) if self.first is None else self.first if corners else self.width
        while start < max(1, len(draws)):
            yield draws[start : start + size]
            start, size = start + size, max(self.width, 3 * size)


WIDE = Plan(corners=64, first=None, width=128, rivals=6, rungs=12, seeds=24, curve=16)
"""For an accelerator, where a batch of a hundred takes hardly longer than a run: few rounds."""

FRUGAL = Plan(corners=15, first=2, width=16, rivals=1, rungs=4, seeds=16, curve=8)
"""For a CPU, where each run of a batch has its price: 0, the limits and hardly a draw first, since a limit that fails
makes most draws unnecessary; then as many as are trained at once."""
