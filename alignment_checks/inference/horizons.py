"""What is judged: C and α at the last step of the runs, or as T → ∞, as far as the runs tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from alignment_checks.asymptotics.intervals import Interval
from alignment_checks.inference.readings import Ratio, Reading
from alignment_checks.limits import Estimate, Limits, limits
from alignment_checks.measures import SIDES, Side
from alignment_checks.trajectory import Series, Trajectory

Horizon = Literal["finite", "limit"]
HORIZONS = ("finite", "limit")


@dataclass(frozen=True, eq=False)
class LimitReading(Reading):
    """A reading of C and α as T → ∞; all else is as at the last step.

    Attributes
    ----------
    limits : tuple of Limits
        For each seed.
    """

    limits: tuple[Limits, ...]

    def capability(self, of: Side, *, normalized: bool) -> Ratio:
        """Return C's limits and their intervals, per seed and pooled."""
        found = [one.of("capability", of) for one in self.limits]
        scales = (self.base_scale if of == "base" else self.mesa_scale) if normalized else np.ones(len(found))
        return _weighted(found, 1 / scales, np.ones(len(found)))

    def alignment(self, *, normalized: bool) -> Ratio:
        """Return α's limits pooled over the seeds: each weighs by its C_M, that at the last step if it has no limit."""
        found = [one.alignment for one in self.limits]
        limits = np.array([one.mesa.value for one in self.limits])
        weights = np.where(np.isnan(limits), self.mesa, limits)
        if not normalized:
            return _weighted(found, weights, weights)
        return _weighted(found, weights / self.base_scale, weights / self.mesa_scale)

    def ends(self) -> list[Interval]:
        """Return between which numbers L ends in the mean, under each seed."""
        found = [one.base for one in self.limits]
        bases = [Interval(one.value, one.low, one.high, one.stricter) for one in found]
        return [base.plus(x) for x, base in zip(self.first.tolist(), bases, strict=True)]

    def unsettled(self, name: str, of: Side) -> str:
        """Return why a quantity has no limit, "" where it has one under every seed."""
        missing = [one for one in (limits.of(name, of) for limits in self.limits) if np.isnan(one.value)]
        return f"{missing[0].regime.name.lower()}: {missing[0].method}" if missing else ""


def _weighted(found: list[Estimate], weights: Series, denominator: Series) -> Ratio:
    """Return Σ weight·estimate / Σ denominator; of one run that is random, with its intervals at stricter levels."""
    values = np.array([one.value for one in found]) * weights

    def slack(low: Sequence[float], high: Sequence[float]) -> tuple[Series, Series]:
        with np.errstate(invalid="ignore"):
            ends = np.sort([np.array(low) * weights, np.array(high) * weights], axis=0)
            return values - ends[0], ends[1] - values

    whole = slack([one.low for one in found], [one.high for one in found])
    stricter = tuple(slack([low], [high]) for low, high in found[0].stricter) if len(found) == 1 else ()
    return Ratio(values, denominator, whole, stricter)


def at_limit(reading: Reading, trajectory: Trajectory, begin: int) -> LimitReading:
    """Return a reading at the limit.

    Parameters
    ----------
    reading : Reading
        At the last step.
    trajectory : Trajectory
    begin : int
        The first of its rows that belong to the reading, one for each seed.
    """
    found = tuple(limits(trajectory, begin + i) for i in range(len(reading.base)))
    same = {field.name: getattr(reading, field.name) for field in fields(Reading)}
    limit = LimitReading(**same, limits=found)
    both = [limit.capability(of, normalized=False) for of in SIDES]
    same["improves"] = all(one.high < 0 for one in both)
    same["defined"] = not np.isnan(limit.alignment(normalized=False).value)
    return LimitReading(**same, limits=found)
