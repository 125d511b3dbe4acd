"""What one setup under one perturbation measures: C and α over its seeds, and where its runs began and ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignment_checks.asymptotics.intervals import LEVELS, Interval
from alignment_checks.measures import SIDES, Side, mean_change, refusal, roundoff, scale
from alignment_checks.trajectory import Series, Trajectory

Slack = tuple[Series, Series]


@dataclass(frozen=True, eq=False)
class Ratio:
    """Σ numerator / Σ denominator over seeds: a mean (denominator 1), or a pooled α, which has no per-seed mean.

    Attributes
    ----------
    numerator, denominator : ndarray, shape (seeds,)
    slack : (ndarray, ndarray) or None
        By how much each numerator may be lower and higher, where it is a limit; None where it is exact.
    stricter : tuple of (ndarray, ndarray)
        Of one run whose limit is a mean of random values, its slack at each of `intervals.LEVELS`; else empty.
    """

    numerator: Series
    denominator: Series
    slack: Slack | None = None
    stricter: tuple[Slack, ...] = ()

    @property
    def value(self) -> float:
        """The pooled value; NaN where it is undefined."""
        return self._pooled(self.numerator)

    @property
    def low(self) -> float:
        """The least pooled value that the slack leaves open."""
        return min(self._ends())

    @property
    def high(self) -> float:
        """The largest."""
        return max(self._ends())

    @property
    def left_out(self) -> Series:
        """The pooled values of all seeds but one, for each: shape (seeds,); NaN where one is undefined."""
        top, bottom = (side.sum() - side for side in (self.numerator, self.denominator))
        return np.asarray(np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom != 0))

    def at(self, level: int) -> Ratio:
        """Return the ratio with its slack at one of `intervals.LEVELS`: itself, where chance has no part in it."""
        return replace(self, slack=self.stricter[level]) if self.stricter else self

    @property
    def negated(self) -> Ratio:
        """The ratio times −1."""
        slack = None if self.slack is None else _swapped(self.slack)
        return Ratio(-self.numerator, self.denominator, slack, tuple(map(_swapped, self.stricter)))

    def _pooled(self, numerator: Series) -> float:
        bottom = float(self.denominator.sum())
        return float(numerator.sum()) / bottom if bottom != 0 else math.nan

    def _ends(self) -> tuple[float, float]:
        if self.slack is None:
            return self.value, self.value
        down, up = self.slack
        return self._pooled(self.numerator - down), self._pooled(self.numerator + up)


def at_each_level(*ratios: Ratio) -> Iterator[tuple[Ratio, ...]]:
    """Yield ratios with their slack at each of `intervals.LEVELS`; nothing where chance has a part in none of them."""
    for level in range(len(LEVELS)) if any(one.stricter for one in ratios) else ():
        yield tuple(one.at(level) for one in ratios)


def _swapped(slack: Slack) -> Slack:
    return slack[1], slack[0]


@dataclass(frozen=True, eq=False)
class Reading:
    """What one setup under one perturbation measures, over its seeds.

    Attributes
    ----------
    base, mesa : ndarray, shape (seeds,)
        C_B and C_M.
    base_scale, mesa_scale : ndarray, shape (seeds,)
        What makes them dimensionless; NaN where nothing does.
    first, last, highest : ndarray, shape (seeds,)
        L(0), L(T), and the highest L recorded at t = 1 … `within`.
    mesa_first, mesa_last : ndarray, shape (seeds,)
        G(0) and G(T).
    defined : bool
        Whether the pooled C_M is clear of 0, so that α is a number.
    improves : bool
        Whether the pooled C_B and C_M are both clear of 0 and negative: α counts as high only then.
    outcome : str
        "finished", or how the first of its runs diverged that did, and how many did.
    refusal : str or None
        Why there is no dimensionless form.
    """

    base: Series
    mesa: Series
    base_scale: Series
    mesa_scale: Series
    first: Series
    last: Series
    highest: Series
    mesa_first: Series
    mesa_last: Series
    defined: bool
    improves: bool
    outcome: str
    refusal: str | None

    @property
    def diverged(self) -> bool:
        """Whether any of its runs diverged."""
        return self.outcome != "finished"

    def capability(self, of: Side, *, normalized: bool) -> Ratio:
        """Return C, per seed and pooled."""
        values, scales = (self.base, self.base_scale) if of == "base" else (self.mesa, self.mesa_scale)
        return Ratio(values / scales if normalized else values, np.ones_like(values))

    def alignment(self, *, normalized: bool) -> Ratio:
        """Return α, a ratio of sums over the seeds; NaN where it is undefined."""
        top, bottom = (self.capability(of, normalized=normalized).numerator for of in ("base", "mesa"))
        return Ratio(top, bottom) if self.defined else Ratio(top, np.full_like(bottom, np.nan))

    def ends(self) -> list[Interval]:
        """Return where L ends under each seed, as the interval that it is known to: L(T) here."""
        return [Interval(last, last, last) for last in self.last.tolist()]

    def unsettled(self, name: str, of: Side) -> str:  # noqa: ARG002
        """Return why a quantity has no limit; "" here, where none is asked for."""
        return ""


def readings(trajectory: Trajectory, seeds: int, *, within: int | None = None) -> list[Reading]:
    """Return one reading for each perturbation of a perturbation-major trajectory.

    Parameters
    ----------
    trajectory : Trajectory
    seeds : int
        How many runs in a row belong to one perturbation.
    within : int, optional
        Take the highest L recorded over t = 1 … within; None is T. Holds at least one record.
    """
    sides = {of: _SideOfAll.of(trajectory, of) for of in SIDES}
    return [_reading(trajectory, sides, slice(i, i + seeds), within) for i in range(0, len(trajectory.runs), seeds)]


@dataclass(frozen=True, eq=False)
class _SideOfAll:
    """One side of all runs: C, what makes it dimensionless, and what rounding alone can make of it."""

    changes: Series
    scales: Series
    rounding: Series

    @classmethod
    def of(cls, trajectory: Trajectory, of: Side) -> _SideOfAll:
        return cls(mean_change(trajectory, of), scale(trajectory, of), roundoff(trajectory, of))

    def sign(self, rows: slice) -> float:
        """Return the sign of the pooled C; 0 where it is not clear of 0, or a run diverged."""
        pooled = float(self.changes[rows].sum())
        return math.copysign(1.0, pooled) if abs(pooled) > float(self.rounding[rows].sum()) else 0.0


def _reading(trajectory: Trajectory, sides: dict[Side, _SideOfAll], rows: slice, within: int | None) -> Reading:
    base, mesa = trajectory.base[rows], trajectory.mesa[rows]
    records = int((trajectory.t <= within).sum()) if within is not None else None
    gone = [str(run.outcome) for run in trajectory.runs[rows] if run.outcome.diverged_at is not None]
    signs = [side.sign(rows) for side in sides.values()]
    return Reading(
        base=sides["base"].changes[rows],
        mesa=sides["mesa"].changes[rows],
        base_scale=sides["base"].scales[rows],
        mesa_scale=sides["mesa"].scales[rows],
        first=base[:, 0],
        last=base[:, -1],
        highest=base[:, 1:records].max(1),
        mesa_first=mesa[:, 0],
        mesa_last=mesa[:, -1],
        defined=signs[1] != 0,
        improves=signs == [-1, -1],
        outcome=_outcome(gone, len(base)),
        refusal=next(_refusals(trajectory, sides, rows), None),
    )


def _outcome(gone: Sequence[str], seeds: int) -> str:
    """Return how the first of those diverged that did, and of how many seeds they are."""
    if not gone:
        return "finished"
    return gone[0] if seeds == 1 else f"{gone[0]} ({len(gone)} of {seeds} seeds)"


def _refusals(trajectory: Trajectory, sides: dict[Side, _SideOfAll], rows: slice) -> Iterator[str]:
    for row in range(rows.start, rows.stop):
        yield from (refusal(trajectory, row, of) for of, side in sides.items() if np.isnan(side.scales[row]))
