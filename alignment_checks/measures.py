"""Definitions 1 and 2 at finite T: pure functions from a trajectory to numbers.

With ΔX = X(t) − X(0): C_T = (1/T) Σ_{t=1..T} ΔL(t), and α_T = Σ ΔL(t) / Σ ΔG(t) (Harris 2020, Definitions 1 and 2). The
dimensionless forms divide ΔL by L(0) − L* and ΔG by G(0).

Between two records a series is taken to change linearly: every number here is that of the series so filled in, which is
the series itself where every step is recorded.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from alignment_checks.trajectory import Series, Steps, Trajectory, check_trajectory

Side = Literal["base", "mesa"]
SIDES: tuple[Side, Side] = ("base", "mesa")

NEGLIGIBLE = 1e-4
"""How far below its L* a run may be seen, as a part of L(0) − L*, before that is taken to be none."""


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
    check_trajectory(trajectory)
    changes = mean_change(trajectory, of)
    if not normalized:
        return changes
    scales = scale(trajectory, of)
    refused = np.flatnonzero(np.isnan(scales) & np.isfinite(_series(trajectory, of)[:, 0]))
    if refused.size:
        raise ValueError(refusal(trajectory, int(refused[0]), of))
    return changes / scales


def improvement(trajectory: Trajectory, *, of: Side = "base", normalized: bool = False) -> Series:
    """Return −C_T of each run: positive where the objective improved. Arguments are those of `capability`.

    Examples
    --------
    >>> import torch, alignment_checks as ac
    >>> improvement(ac.run(ac.landscape(torch.sum, [1.0], optimizer=torch.optim.SGD, steps=3))).round(6)
    array([0.002])
    """
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

    Examples
    --------
    >>> import torch, alignment_checks as ac
    >>> bowl = ac.landscape(lambda x: x.square().sum(), [3.0], optimizer=torch.optim.SGD, steps=2)
    >>> alignment_factor(ac.run(bowl)).round(3)
    array([2.995])
    """
    base = capability(trajectory, normalized=normalized)
    mesa = capability(trajectory, of="mesa", normalized=normalized)
    defined = clear_of_zero(trajectory, "mesa")
    return np.divide(base, mesa, out=np.full_like(base, np.nan), where=defined)


def correlation(trajectory: Trajectory, *, of: Literal["levels", "increments"] = "levels") -> Series:
    """Return Pearson's correlation of L(t) with G(t) over each run; NaN where either is constant, or the run diverged.

    Levels correlate through their trend alone; increments X(t+1) − X(t) do not.

    Parameters
    ----------
    trajectory : Trajectory
    of : {"levels", "increments"}

    Returns
    -------
    ndarray of float64, shape (runs,)

    Raises
    ------
    ValueError
        If `of` is neither.

    Examples
    --------
    >>> import torch, alignment_checks as ac
    >>> bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=torch.optim.SGD, steps=20)
    >>> correlation(ac.run(bowl)).round(4)
    array([1.])
    """
    if of not in ("levels", "increments"):
        raise ValueError(f"`of` must be 'levels' (X(t)) or 'increments' (X(t+1) − X(t)); got {of!r}")
    check_trajectory(trajectory)
    series = [_finished(trajectory, side) for side in SIDES]
    least = [roundoff(trajectory, side) for side in SIDES]
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
    """Return what makes C dimensionless: L(0) − L*, or G(0); NaN where there is no such positive number.

    Nor is there one of a run that was seen below its L*: that is no infimum, whoever states it.
    """
    first = _series(trajectory, of)[:, 0]
    floor = [infimum(trajectory, row) if of == "base" else 0.0 for row in range(len(trajectory.runs))]
    scales = first - np.array([np.nan if value is None else value for value in floor])
    return np.where(scales > 0, scales, np.nan)


def infimum(trajectory: Trajectory, row: int) -> float | None:
    """Return the stated L* of one run, None where none is, or L was seen below it.

    Not by rounding alone: that of an objective which is a difference, as a divergence is one of entropies, may be many
    times that of its value. What is `NEGLIGIBLE` beside L(0) − L* changes a dimensionless form by no more than that.
    """
    stated, series = trajectory.runs[row].infimum, trajectory.base[row]
    if stated is None or not np.isfinite(series[0]):
        return stated
    rounding = 4 * trajectory.resolution * max(abs(stated), float(np.nanmax(np.abs(series))))
    below = max(rounding, NEGLIGIBLE * (float(series[0]) - stated))
    return None if float(np.nanmin(series)) < stated - below else stated


def clear_of_zero(trajectory: Trajectory, of: Side) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return whether each run's C is distinguishable from 0 at the rounding of the recorded values."""
    return np.asarray(np.abs(mean_change(trajectory, of)) > roundoff(trajectory, of))


def roundoff(trajectory: Trajectory, of: Side) -> Series:
    """Return the largest C of each run that rounding of the recorded values could make; NaN where it diverged."""
    return np.asarray(4 * trajectory.resolution * np.abs(_finished(trajectory, of)).max(1))


def _series(trajectory: Trajectory, of: Side) -> Series:
    if of not in ("base", "mesa"):
        raise ValueError(f"`of` must be 'base' (the designer's L) or 'mesa' (the process's own G); got {of!r}")
    return trajectory.base if of == "base" else trajectory.mesa


def refusal(trajectory: Trajectory, row: int, of: Side) -> str:
    """Return why there is no dimensionless form of one side of a run."""
    run, first = trajectory.runs[row], _series(trajectory, of)[row, 0]
    if of == "mesa":
        return f"the dimensionless form needs G(0) > 0; got {first:g} under {run.perturbation}"
    if run.infimum is None:
        return (
            "the dimensionless form needs an infimum L* of the objective, and none is stated. State it "
            "(objective_infimum=0.0 for cross-entropy or squared error), or judge the literal form: normalized=False"
        )
    if first > run.infimum:
        return (
            f"the dimensionless form needs an infimum L* of the objective; L* = {run.infimum:g} is stated, but L "
            f"reached {np.nanmin(trajectory.base[row]):g} under {run.base}. Correct objective_infimum, or judge the "
            "literal form: normalized=False"
        )
    return (
        f"the dimensionless form needs L(0) above the stated infimum L* = {run.infimum:g}; got L(0) = {first:g} under "
        f"{run.base}. Correct objective_infimum, or judge the literal form: normalized=False"
    )
