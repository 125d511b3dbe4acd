"""Definitions 1 and 2 at finite T: pure functions from a trajectory to numbers.

With ΔX = X(t) − X(0): C_T = (1/T) Σ_{t=1..T} ΔL(t), and α_T = Σ ΔL(t) / Σ ΔG(t) (Harris 2020, Definitions 1 and 2). The
dimensionless forms divide ΔL by L(0) − L* and ΔG by G(0).

Between two records a series is taken to change linearly: every number here is that of the series so filled in, which is
the series itself where every step is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alignment_checks.trajectory import Series, Steps, Trajectory

Side = Literal["base", "mesa"]
_SIDES: tuple[Side, Side] = ("base", "mesa")


def capability(trajectory: Trajectory, *, of: Side = "base", normalized: bool = False) -> Series:
    """Return C_T of each run: the mean over t = 1 … T of X(t) − X(0). Negative means that the objective improved.

    Parameters
    ----------
    trajectory : Trajectory
    of : {"base", "mesa"}
        X is the base objective L, or the mesa-objective G.
    normalized : bool
        Divide by L(0) − L* (base) or by G(0) (mesa): dimensionless.

    Returns
    -------
    ndarray of float64, shape (runs,)
        In units of X; NaN for a run that diverged.

    Raises
    ------
    ValueError
        If `normalized` and a run's infimum is not stated, or not below its value at t = 0.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from alignment_checks import landscape, run
    >>> bowl = landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.25), steps=2)
    >>> capability(run(bowl))
    array([-0.84375])
    """
    changes = mean_change(trajectory, of)
    if not normalized:
        return changes
    scales = scale(trajectory, of)
    refused = np.flatnonzero(np.isnan(scales) & np.isfinite(_series(trajectory, of)[:, 0]))
    if refused.size:
        raise ValueError(_refusal(trajectory, int(refused[0]), of))
    return changes / scales


def improvement(trajectory: Trajectory, *, of: Side = "base", normalized: bool = False) -> Series:
    """Return −C_T of each run: positive where the objective improved. Arguments are those of `capability`."""
    return -capability(trajectory, of=of, normalized=normalized)


def alignment_factor(trajectory: Trajectory, *, normalized: bool = False) -> Series:
    """Return α_T of each run: Σ_{t=1..T} [L(t) − L(0)] / Σ_{t=1..T} [G(t) − G(0)], a ratio of sums.

    Parameters
    ----------
    trajectory : Trajectory
    normalized : bool
        The ratio of the dimensionless forms instead.

    Returns
    -------
    ndarray of float64, shape (runs,)
        In units of L over units of G. NaN where it is undefined (the denominator is not clear of 0 at the rounding of
        the recorded values) or the run diverged. α is positive also where both objectives got worse.

    Raises
    ------
    ValueError
        As `capability`.
    """
    base = capability(trajectory, normalized=normalized)
    mesa = capability(trajectory, of="mesa", normalized=normalized)
    defined = clear_of_zero(trajectory, "mesa")
    return np.divide(base, mesa, out=np.full_like(base, np.nan), where=defined)


def correlation(trajectory: Trajectory, *, of: Literal["levels", "increments"] = "levels") -> Series:
    """Return Pearson's correlation of L(t) with G(t) over each run; NaN where either is constant, or the run diverged.

    Levels correlate through their trend alone; increments X(t+1) − X(t) do not.

    Raises
    ------
    ValueError
        If `of` is neither.
    """
    if of not in ("levels", "increments"):
        raise ValueError(f"`of` must be 'levels' (X(t)) or 'increments' (X(t+1) − X(t)); got {of!r}")
    series = [_finished(trajectory, side) for side in _SIDES]
    least = [_rounding(trajectory, side) for side in _SIDES]
    found = []
    for *pair, least_base, least_mesa in zip(*series, *least, strict=True):
        base, mesa = (filled(values, trajectory.t) for values in pair)
        if of == "increments":
            base, mesa = np.diff(base), np.diff(mesa)
        found.append(_pearson(base, mesa, least_base, least_mesa))
    return np.array(found)


def filled(series: Series, t: Steps) -> Series:
    """Return one run's series at every step 0 … T, linear between records."""
    return series if len(t) == t[-1] + 1 else np.asarray(np.interp(np.arange(t[-1] + 1), t, series))


def quadrature(t: Steps) -> Series:
    """Return how many of the steps 1 … T each record after t = 0 stands for: the sum over t = 1 … T is Σ wᵢ·ΔX(tᵢ).

    Exact for a series that is linear between records, ΔX(0) being 0: a step s of the way from one record to the next
    counts for s to the next and for 1 − s to the one before. All weights are 1 where every step is recorded: the sum is
    Definition 1's.

    Examples
    --------
    >>> quadrature(np.arange(4)), quadrature(np.array([0, 2, 4, 5]))
    (array([1., 1., 1.]), array([2. , 1.5, 1. ]))
    """
    gaps = np.diff(t).astype(np.float64)
    weights = (gaps + 1) / 2
    weights[:-1] += (gaps[1:] - 1) / 2
    return weights


def _pearson(x: Series, y: Series, least_x: float, least_y: float) -> float:
    """Return the correlation, NaN where a range does not exceed what rounding makes of a constant."""
    if not (np.ptp(x) > least_x and np.ptp(y) > least_y):
        return math.nan
    x, y = ((values - values.mean()) / np.ptp(values) for values in (x, y))  # the squares of tiny values vanish
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def mean_change(trajectory: Trajectory, of: Side) -> Series:
    """Return the mean over t = 1 … T of X(t) − X(0) of each run, NaN for one that diverged."""
    series = _finished(trajectory, of)
    return np.asarray(((series[:, 1:] - series[:, :1]) * quadrature(trajectory.t)).sum(1) / trajectory.t[-1])


def _finished(trajectory: Trajectory, of: Side) -> Series:
    """Return the series, those of runs that diverged (if only at the very last step) wholly NaN."""
    gone = np.array([run.outcome.diverged_at is not None for run in trajectory.runs])
    return np.where(gone[:, None], np.nan, _series(trajectory, of))


def scale(trajectory: Trajectory, of: Side) -> Series:
    """Return what makes C dimensionless: L(0) − L*, or G(0); NaN where there is no such positive number."""
    first = _series(trajectory, of)[:, 0]
    floor = [run.infimum if of == "base" else 0.0 for run in trajectory.runs]
    scales = first - np.array([np.nan if value is None else value for value in floor])
    return np.where(scales > 0, scales, np.nan)


def clear_of_zero(trajectory: Trajectory, of: Side) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return whether each run's C is distinguishable from 0 at the rounding of the recorded values."""
    return np.asarray(np.abs(mean_change(trajectory, of)) > _rounding(trajectory, of))


def _rounding(trajectory: Trajectory, of: Side) -> Series:
    """Return the largest C of each run that rounding of the recorded values could make; NaN where it diverged."""
    return np.asarray(4 * trajectory.resolution * np.abs(_finished(trajectory, of)).max(1))


def _series(trajectory: Trajectory, of: Side) -> Series:
    if of not in ("base", "mesa"):
        raise ValueError(f"`of` must be 'base' (the designer's L) or 'mesa' (the process's own G); got {of!r}")
    return trajectory.base if of == "base" else trajectory.mesa


def _refusal(trajectory: Trajectory, row: int, of: Side) -> str:
    run, first = trajectory.runs[row], _series(trajectory, of)[row, 0]
    if of == "mesa":
        return f"the dimensionless form needs G(0) > 0; got {first:g} under {run.perturbation}"
    if run.infimum is None:
        return (
            "the dimensionless form needs an infimum L* of the objective, and none is stated. State it "
            "(objective_infimum=0.0 for cross-entropy or squared error), or judge the literal form: normalized=False"
        )
    return (
        f"the dimensionless form needs L(0) above the stated infimum L* = {run.infimum:g}; got L(0) = {first:g} under "
        f"{run.base}. Correct objective_infimum, or judge the literal form: normalized=False"
    )


# ------------------------------------------------------------------------------------- one setup under one perturbation


@dataclass(frozen=True, eq=False)
class Ratio:
    """Σ numerator / Σ denominator over seeds: a mean (denominator 1), or a pooled α, which has no per-seed mean.

    Attributes
    ----------
    numerator, denominator : ndarray, shape (seeds,)
    slack : (ndarray, ndarray) or None
        By how much each numerator may be lower and higher, where it is a limit; None where it is exact.
    """

    numerator: Series
    denominator: Series
    slack: tuple[Series, Series] | None = None

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

    def without(self, seed: int) -> Ratio:
        """Return the same over all seeds but one."""
        slack = None if self.slack is None else (np.delete(self.slack[0], seed), np.delete(self.slack[1], seed))
        return Ratio(np.delete(self.numerator, seed), np.delete(self.denominator, seed), slack)

    def _pooled(self, numerator: Series) -> float:
        bottom = float(self.denominator.sum())
        return float(numerator.sum()) / bottom if bottom != 0 else math.nan

    def _ends(self) -> tuple[float, float]:
        down, up = (0.0, 0.0) if self.slack is None else self.slack
        return self._pooled(self.numerator - down), self._pooled(self.numerator + up)


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
        "finished", or how the first of its runs diverged.
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

    def ends(self) -> list[tuple[float, float]]:
        """Return where L ends under each seed, as the interval that it is known to: L(T) here."""
        return list(zip(self.last.tolist(), self.last.tolist(), strict=True))

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
    sides = {of: _SideOfAll.of(trajectory, of) for of in _SIDES}
    return [_reading(trajectory, sides, slice(i, i + seeds), within) for i in range(0, len(trajectory.runs), seeds)]


@dataclass(frozen=True, eq=False)
class _SideOfAll:
    """One side of all runs: C, what makes it dimensionless, and what rounding alone can make of it."""

    changes: Series
    scales: Series
    rounding: Series

    @classmethod
    def of(cls, trajectory: Trajectory, of: Side) -> _SideOfAll:
        return cls(mean_change(trajectory, of), scale(trajectory, of), _rounding(trajectory, of))

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
        outcome=gone[0] if gone else "finished",
        refusal=next(_refusals(trajectory, sides, rows), None),
    )


def _refusals(trajectory: Trajectory, sides: dict[Side, _SideOfAll], rows: slice) -> Iterator[str]:
    for row in range(rows.start, rows.stop):
        yield from (_refusal(trajectory, row, of) for of, side in sides.items() if np.isnan(side.scales[row]))


# -------------------------------------------------------------------------------------------------------- decomposition


@dataclass(frozen=True)
class Decomposition:
    """Δlog|C_B| = Δlog|α| + Δlog|C_M| of one setup against another, or why there is none.

    Attributes
    ----------
    base, alignment, mesa : float
        The three terms; NaN where refused.
    cause : str
        "capability-limited", "less aligned" or "both": what the difference in C_B comes from. Empty where refused, and
        where there is no difference.
    refusal : str or None
    """

    base: float
    alignment: float
    mesa: float
    cause: str
    refusal: str | None = None


def decomposition(a: Reading, b: Reading, *, normalized: bool) -> Decomposition:
    """Return how the difference between the base capabilities of a and b comes about (Harris 2020, "Two examples")."""
    values = [r.capability(of, normalized=normalized).value for r in (a, b) for of in ("base", "mesa")]
    if not (a.improves and b.improves and all(value < 0 for value in values)):
        signs = ", ".join(f"{name} {_sign(v)}" for name, v in zip(_NAMES, values, strict=True))
        return Decomposition(
            math.nan, math.nan, math.nan, "", f"not all capabilities are clear of 0 and negative: {signs}"
        )
    base_a, mesa_a, base_b, mesa_b = (math.log(-value) for value in values)
    base, mesa = base_a - base_b, mesa_a - mesa_b
    return Decomposition(base, base - mesa, mesa, _cause(base, base - mesa, mesa))


_NAMES = ("C_B(a)", "C_M(a)", "C_B(b)", "C_M(b)")


_SHARE = 0.01
"""A smaller part of a difference is not called its cause: no two runs agree to the last digit."""


def _cause(base: float, alignment: float, mesa: float) -> str:
    by_mesa, by_alignment = (term * base > 0 and abs(term) > _SHARE * abs(base) for term in (mesa, alignment))
    if by_mesa and by_alignment:
        return "both"
    return "capability-limited" if by_mesa else "less aligned" if by_alignment else ""


def _sign(value: float) -> str:
    return "undefined" if math.isnan(value) else "negative" if value < 0 else "positive" if value > 0 else "0"


def matched(a: Sequence[float] | Series, b: Sequence[float] | Series, tolerance: float) -> bool:
    """Return whether two sets of starting values agree to a relative tolerance."""
    return bool(np.allclose(a, b, rtol=tolerance, atol=0.0))
