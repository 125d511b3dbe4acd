"""A number and the interval that it lies in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A number and the interval that it lies in."""

    value: float
    low: float
    high: float

    def plus(self, shift: float) -> Interval:
        """Return the interval moved by a number that is known exactly."""
        return Interval(self.value + shift, self.low + shift, self.high + shift)

    def wider(self, by: float) -> Interval:
        """Return the interval with `by` more on both sides."""
        return replace(self, low=self.low - by, high=self.high + by)

    def above(self, infimum: float | None) -> Interval:
        """Return the part of the interval that a known lower bound leaves."""
        if infimum is None or self.high < infimum:
            return self
        return Interval(max(self.value, infimum), max(self.low, infimum), self.high)

    def holds(self, number: float) -> bool:
        """Return whether `number` is in the interval."""
        return self.low <= number <= self.high


def hull(value: float, numbers: list[float]) -> Interval:
    """Return the smallest interval that holds `value` and all of `numbers`."""
    return Interval(value, min(value, *numbers), max(value, *numbers))
