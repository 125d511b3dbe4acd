"""A number and the interval that it lies in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Ends = tuple[float, float]

LEVELS = tuple(0.05 / 2**k for k in range(26))
"""How often an interval of confidence may miss: the first is its 95 %, the others are what the worst of many needs.

The last, 1.5e-9, times the 2350 perturbations that 100 examples come to on an accelerator at most, is 3.5e-6: the share
of the level that each of 7000 tests has. What is clear at it and is asked for less is inconclusive, and says why.
"""

MOST_TIMES = 100
"""What would tell is not named where it takes more than so many times as much, be it seeds, steps or narrowness."""


@dataclass(frozen=True)
class Interval:
    """A number and the interval that it lies in.

    Attributes
    ----------
    value, low, high : float
    stricter : tuple of (low, high)
        Of an interval of confidence, that at each of `LEVELS`; empty where chance has no part in it.
    """

    value: float
    low: float
    high: float
    stricter: tuple[Ends, ...] = field(default=(), repr=False)

    def plus(self, shift: float) -> Interval:
        """Return the interval moved by a number that is known exactly."""
        return self._changed(self.value + shift, lambda low, high: (low + shift, high + shift))

    def wider(self, by: float) -> Interval:
        """Return the interval with `by` more on both sides."""
        return self._changed(self.value, lambda low, high: (low - by, high + by))

    def above(self, infimum: float | None) -> Interval:
        """Return the part of the interval that a known lower bound leaves."""
        if infimum is None or self.high < infimum:
            return self
        return self._changed(max(self.value, infimum), lambda low, high: (max(low, infimum), high))

    def holds(self, number: float) -> bool:
        """Return whether `number` is in the interval."""
        return self.low <= number <= self.high

    def down_to(self, low: float) -> Interval:
        """Return the interval with no higher a lower end than `low`."""
        return self._changed(self.value, lambda lower, high: (min(lower, low), high))

    def at(self, level: int) -> Ends:
        """Return its ends at one of `LEVELS`: the same at all, where chance has no part in it."""
        return self.stricter[level] if self.stricter else (self.low, self.high)

    def _changed(self, value: float, change: Callable[[float, float], Ends]) -> Interval:
        return replace(
            Interval(value, *change(self.low, self.high)), stricter=tuple(change(*ends) for ends in self.stricter)
        )


def hull(value: float, numbers: list[float]) -> Interval:
    """Return the smallest interval that holds `value` and all of `numbers`."""
    return Interval(value, min(value, *numbers), max(value, *numbers))


def confident(value: float, at: Callable[[float], Ends]) -> Interval:
    """Return the interval of confidence whose ends at each level `at` returns."""
    ends = tuple(at(level) for level in LEVELS)
    return Interval(value, *ends[0], stricter=ends)


def at_each_level(*intervals: Interval) -> Iterator[tuple[Ends, ...]]:
    """Yield the ends of several intervals at each of `LEVELS`; nothing where chance has a part in none of them."""
    for level in range(len(LEVELS)) if any(one.stricter for one in intervals) else ():
        yield tuple(one.at(level) for one in intervals)
