"""What a finite run says of T → ∞: the limits of Definitions 1 and 2, each with an interval and the run's regime.

Capability is a Cesàro mean, so that of a run that converges is lim L(t) − L(0), and that of one that recurs is the mean
over its orbit, less L(0). Where no limit is in sight there is no number, but a name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from alignment_checks.asymptotics import ratios
from alignment_checks.asymptotics.endpoints import TOLERANCE, Endpoint, endpoint, last_change
from alignment_checks.asymptotics.intervals import Ends, Interval, Vector
from alignment_checks.asymptotics.regimes import Outlook, Regime, more_steps, nowhere, outlook, rounding, together
from alignment_checks.measures import Side, infimum
from alignment_checks.trajectory import Trajectory, check_trajectory

__all__ = ["Estimate", "Regime", "alignment_factor_limit", "capability_limit"]

SLIGHT = 0.01
"""A run whose L has moved less than this part of its range in its second half may look settled to the eye."""


@dataclass(frozen=True)
class Estimate:
    """A limit, as far as a finite run tells.

    Attributes
    ----------
    value : float
        In the units of what is estimated; NaN where there is no number.
    low, high : float
        Where the limit lies: at 95 % confidence for what is stationary, else by how much extrapolations and windows
        differ. −inf and inf where there is no number.
    regime : Regime
    method : str
        How it was found, or why there is none; of a run that diverged, at which step.
    stricter : tuple of (float, float)
        `low` and `high` at each of `alignment_checks.asymptotics.intervals.LEVELS`, the first 95 %, of what is
        stationary; else empty. The worst of many is told from chance by these.
    remark : str
        What its endpoint tells beside: that it is at a saddle or a maximum, or that curvature could not be seen. Else
        empty.
    """

    value: float
    low: float
    high: float
    regime: Regime
    method: str
    stricter: tuple[Ends, ...] = field(default=(), repr=False)
    remark: str = ""


def capability_limit(trajectory: Trajectory, *, of: str = "base") -> list[Estimate]:
    """Return lim C_T as T → ∞ of each run: the limit of the mean of X(t) − X(0) (Harris 2020, Definition 1).

    Parameters
    ----------
    trajectory : Trajectory
    of : {"base", "mesa"}
        X is the base objective L, or the mesa-objective G.

    Returns
    -------
    list of Estimate
        One for each run, in units of X.

    Raises
    ------
    ValueError
        If `of` is neither.

    Notes
    -----
    `fixed` and `stopped` are extrapolated (Sidi, *Practical Extrapolation Methods*, 2003), `periodic` and
    `quasiperiodic` are weighted Birkhoff averages (Das, Saiki, Sander and Yorke, Nonlinearity 30, 2017), `stationary`
    is a mean after its transient (Fishman 1973), its standard error counting autocorrelation, and its interval skewness
    (Hall, JRSS B 54, 1992).

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from alignment_checks import landscape, run
    >>> bowl = landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.25), steps=100)
    >>> (found,) = capability_limit(run(bowl))
    >>> found.value, found.regime.name
    (-1.0, 'FIXED')
    """
    if of not in ("base", "mesa"):
        raise ValueError(f"capability_limit: `of` must be 'base' or 'mesa'; got {of!r}")
    check_trajectory(trajectory)
    side, series = (0, trajectory.base) if of == "base" else (1, trajectory.mesa)
    return [_capability(one, _outlooks(trajectory, row)[side]) for row, one in enumerate(series)]


def alignment_factor_limit(trajectory: Trajectory) -> list[Estimate]:
    """Return lim α_T as T → ∞ of each run: of Σ[L(t) − L(0)] / Σ[G(t) − G(0)] (Harris 2020, Definition 2).

    Returns
    -------
    list of Estimate
        One for each run, in units of L over units of G. `undefined` where the denominator is 0, or not clear of 0.

    Notes
    -----
    The interval is the set {a : |mean D_a| ≤ z·MCSE(D_a)} with D_a = ΔL − a·ΔG (Fieller, JRSS B 16, 1954). A set that
    is unbounded or in two pieces is `undefined`. D_a decides, so α may exist where L and G drift together: such a run
    is `drifting`, and has a number all the same.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from alignment_checks import landscape, run
    >>> bowl = landscape(lambda x: x.square().sum(), [3.0], optimizer=partial(torch.optim.SGD, lr=0.25), steps=100)
    >>> (found,) = alignment_factor_limit(run(bowl))
    >>> found.value, found.regime.name
    (1.5, 'FIXED')
    """
    check_trajectory(trajectory)
    return [_alignment_factor(trajectory, row, *_outlooks(trajectory, row)) for row in range(len(trajectory.runs))]


class Limits(NamedTuple):
    """The limits of C_B, C_M and α of one run."""

    base: Estimate
    mesa: Estimate
    alignment: Estimate

    def of(self, name: str, side: Side) -> Estimate:
        """Return that of a quantity, "capability" or "alignment"; the latter has no sides."""
        if name == "alignment":
            return self.alignment
        return self.base if side == "base" else self.mesa


def limits(trajectory: Trajectory, row: int) -> Limits:
    """Return the limits of one run, whose endpoint is looked at once."""
    base, mesa = both = _outlooks(trajectory, row)
    return Limits(
        _capability(trajectory.base[row], base),
        _capability(trajectory.mesa[row], mesa),
        _alignment_factor(trajectory, row, *both),
    )


def _capability(series: Vector, found: Outlook) -> Estimate:
    first = float(series[0])
    return _estimate(found, found.limit.plus(-first) if found.has_limit else found.limit)


def _alignment_factor(trajectory: Trajectory, row: int, base: Outlook, mesa: Outlook) -> Estimate:
    for one in (base, mesa):
        if one.regime in (Regime.DIVERGED, Regime.PLATEAU):
            return _estimate(one, one.limit)
    found = ratios.ratio(*_series(trajectory, row), base, mesa, trajectory.resolution, int(trajectory.t[1]))
    return _estimate(found, found.limit)


def _estimate(found: Outlook, limit: Interval) -> Estimate:
    return Estimate(limit.value, limit.low, limit.high, found.regime, found.method, limit.stricter, found.remark)


# ----------------------------------------------------------------------------------------- series and endpoint together


def _outlooks(trajectory: Trajectory, row: int) -> tuple[Outlook, Outlook]:
    """Return where L and G of one run go, under one name, its endpoint heard."""
    run = trajectory.runs[row]
    if run.outcome.diverged_at is not None:
        gone = nowhere(Regime.DIVERGED, str(run.outcome))
        return gone, gone
    series, every = _series(trajectory, row), int(trajectory.t[1])
    lowest = infimum(trajectory, row), 0.0
    base, mesa = (outlook(one, trajectory.resolution, least, every) for one, least in zip(series, lowest, strict=True))
    base, mesa = _with_endpoint(trajectory, row, base, mesa)
    if every > 1 and {base.regime, mesa.regime} & {Regime.FIXED, Regime.PERIODIC}:
        base, mesa = _between_records(trajectory, row, base, mesa)
    return together(base, mesa, *series, trajectory.resolution, every)


def _between_records(trajectory: Trajectory, row: int, base: Outlook, mesa: Outlook) -> tuple[Outlook, Outlook]:
    """Return the outlooks, none where L moves between its records: part of a cycle has another mean than all of it."""
    series, every = trajectory.base[row], int(trajectory.t[1])
    late = float(np.ptp(series[-(len(series) // 4 + 1) :])) + rounding(series, trajectory.resolution)
    cycles = Regime.PERIODIC in (base.regime, mesa.regime)
    if not cycles and not last_change(trajectory, row) > late:
        return base, mesa
    why = (
        f"it moves between its records, {every} steps apart, and what they leave out is not seen: record_every=1 tells"
    )
    return nowhere(Regime.DRIFTING, why), nowhere(Regime.DRIFTING, why)


def _series(trajectory: Trajectory, row: int) -> tuple[Vector, Vector]:
    """Return L and G of one run, at records that are equally far apart."""
    records = evenly(trajectory)
    return trajectory.base[row, :records], trajectory.mesa[row, :records]


def evenly(trajectory: Trajectory) -> int:
    """Return how many records are equally far apart: all but the last, where T is no multiple of `record_every`."""
    gaps = np.diff(trajectory.t[-3:])
    return len(trajectory.t) - int(len(gaps) == 2 and gaps[0] != gaps[1])


def _with_endpoint(trajectory: Trajectory, row: int, base: Outlook, mesa: Outlook) -> tuple[Outlook, Outlook]:
    """Return the outlooks with what the endpoint says of them."""
    rests = _resting(trajectory.base[row], base)
    end = endpoint(trajectory, row, lowest=rests.low if rests else None)
    if end.frozen:
        base = _held(trajectory.base[row], trajectory.resolution)
        mesa = _held(trajectory.mesa[row], trajectory.resolution)
    if end.stopped:
        return _stopped(base), _stopped(mesa)
    if rests and end.escape is not None and _counts(trajectory.base[row], base, rests, end, end.escape):
        when = f", {more_steps(end.escape_in)} away" if math.isfinite(end.escape_in) else ""
        why = f"least curvature {end.curvature:.3g}, and it goes down{when}: to L = {end.escape:.4g}, perhaps further"
        return nowhere(Regime.PLATEAU, why), nowhere(Regime.PLATEAU, why)
    if end.escape is not None and base.regime is Regime.FIXED:
        low = 2 * end.escape - float(trajectory.base[row, -1])  # as far again as it can see
        base = replace(base, limit=base.limit.down_to(low).above(infimum(trajectory, row)))
    remark = _remark(end)
    return replace(base, remark=remark), replace(mesa, remark=remark)


def _remark(end: Endpoint) -> str:
    if end.unseen:
        return f"curvature not seen: {end.unseen}"
    return f"at a {'maximum' if end.maximum else 'saddle'}, least curvature {end.curvature:.3g}" if end.saddle else ""


def _resting(series: Vector, found: Outlook) -> Interval | None:
    """Return where a series that looks settled is: its limit, or where it was in its second half if it hardly moved."""
    if found.has_limit:
        return found.limit
    half = series[len(series) // 2 :]
    if found.regime is not Regime.DRIFTING or float(np.ptp(half)) > SLIGHT * float(np.ptp(series)):
        return None
    return Interval(float(half[-1]), float(half.min()), float(half.max()))


def _held(series: Vector, resolution: float) -> Outlook:
    """Return the outlook where the learning rate is 0: the series stays as it is."""
    last = float(series[-1])
    limit = Interval(last, last, last).wider(rounding(series, resolution))
    return Outlook(Regime.FIXED, limit, "the last value: the learning rate is 0")


def _stopped(found: Outlook) -> Outlook:
    """Return the outlook where the learning rate has gone to 0: what went round before is no mean of what comes."""
    if found.regime in _GOING_ROUND:
        return nowhere(Regime.DRIFTING, "the learning rate goes to 0, and the run no longer goes on as it did")
    return replace(found, regime=Regime.STOPPED) if found.has_limit else found


_GOING_ROUND = (Regime.PERIODIC, Regime.QUASIPERIODIC, Regime.STATIONARY)
"""Where a run comes to no rest: it goes up and down all the time, and the limit is a mean."""


def _counts(series: Vector, found: Outlook, limit: Interval, end: Endpoint, escape: float) -> bool:
    """Return whether an escape changes L beyond what the series leaves open, and beyond tolerance.

    A run that goes round may go down from θ(T) in any case: there, it has to linger, and to change the mean by as much
    as it goes down; of a random one, to below all that it has been to.
    """
    last = float(series[-1])
    room = TOLERANCE * max(abs(float(series[0]) - last), abs(escape - last))
    if found.regime not in _GOING_ROUND:
        return not limit.wider(room).holds(escape)
    below = found.regime is not Regime.STATIONARY or escape < float(series[found.start :].min()) - room
    leaves = end.lingers and _departed(series, found, end) <= limit.high - limit.low
    return leaves and below and not limit.wider(room).holds(limit.value + escape - last)


def _departed(series: Vector, found: Outlook, end: Endpoint) -> float:
    """Return by how much L has come down on the way out while the series went round: it would not have, unnoticed."""
    return end.fallen * -math.expm1(-2 * end.growth * (len(series) - 1 - found.start))
