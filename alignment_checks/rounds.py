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
        Draws of the first batch; each batch that nothing fails in is followed by one three times as large. None judges
        all of them at once.
    rivals : int
        How many failing perturbations are shrunk side by side, lest the smallest drawn hide a smaller one.
    rungs : int
        Magnitudes tried at once along one line.
    seeds, last_seeds : int
        Fresh seeds of δ's own randomness tried while the smallest failure shrinks, and just below where it ends.
    curve : int
        Magnitudes of the degradation curve.
    """

    corners: int
    first: int | None
    rivals: int
    rungs: int
    seeds: int
    last_seeds: int
    curve: int

    def batches(self, draws: Sequence[T]) -> Iterator[Sequence[T]]:
        """Return the draws in batches, at least one: all at once, or few at first and three times as many each time."""
        start, size = 0, self.first or max(1, len(draws))
        while start < max(1, len(draws)):
            yield draws[start : start + size]
            start, size = start + size, 3 * size


WIDE = Plan(corners=64, first=None, rivals=6, rungs=12, seeds=12, last_seeds=12, curve=16)
"""For an accelerator, where a batch of a hundred takes hardly longer than a run: few rounds."""

FRUGAL = Plan(corners=16, first=6, rivals=2, rungs=6, seeds=15, last_seeds=15, curve=6)
"""For a CPU, where each run of a batch has its price: 0, the limits and some draws first, since a limit that fails
makes most draws unnecessary."""
