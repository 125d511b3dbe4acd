"""The limit of Σ ΔL / Σ ΔG, ΔX = X(t) − X(0), for two series of one run: the alignment factor's."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from alignment_checks.asymptotics.intervals import Ends, Interval, Vector, at_each_level, confident
from alignment_checks.asymptotics.regimes import Outlook, Regime, nowhere, outlook, rounding
from alignment_checks.asymptotics.stationarity import Mean, has_trend, mean_with_error

LEAST = 100
"""Of fewer values, no slope is taken to be that of a drift that goes on."""


def ratio(base: Vector, mesa: Vector, of_base: Outlook, of_mesa: Outlook, resolution: float, every: int = 1) -> Outlook:
    """Return the limit of the ratio of sums, from two series and where each of them goes.

    Parameters
    ----------
    base, mesa : ndarray of float64, shape (T + 1,)
        L(t) and G(t).
    of_base, of_mesa : Outlook
    resolution : float
        Machine epsilon of the dtype in which the series were computed.
    every : int
        How many steps apart their values are, for the text.
    """
    if of_mesa.has_limit and of_mesa.limit.plus(-float(mesa[0])).holds(0.0):
        return nowhere(Regime.UNDEFINED, _vanishing(base, mesa, of_base, of_mesa))
    if not (of_base.has_limit and of_mesa.has_limit):
        return _cointegrated(base, mesa, of_base, of_mesa, resolution)
    if of_base.sampled and of_mesa.sampled:
        return _fieller(base, mesa, of_base, of_mesa, every)
    return _quotient(of_base.limit.plus(-float(base[0])), of_mesa.limit.plus(-float(mesa[0])), of_base)


def _vanishing(base: Vector, mesa: Vector, of_base: Outlook, of_mesa: Outlook) -> str:
    if of_mesa.limit.high - of_mesa.limit.low > 1e-6 * float(np.ptp(mesa)) > 0:
        return "the denominator's interval holds 0"
    if of_base.has_limit and of_base.limit.plus(-float(base[0])).holds(0.0):
        return "0/0: neither L nor G changes in the mean"
    return "the denominator is 0, the numerator is not"


def _quotient(numerator: Interval, denominator: Interval, found: Outlook) -> Outlook:
    """Return the quotient of two intervals, the second clear of 0."""
    whole = _divided((numerator.low, numerator.high), (denominator.low, denominator.high))
    stricter = tuple(_divided(*ends) for ends in at_each_level(numerator, denominator))
    limit = Interval(numerator.value / denominator.value, *whole, stricter=stricter)
    return replace(found, limit=limit, method=f"quotient of two limits, L {found.method}")


def _divided(numerator: Ends, denominator: Ends) -> Ends:
    """Return between which numbers a quotient lies: any, where the denominator may be 0."""
    if denominator[0] <= 0 <= denominator[1]:
        return -math.inf, math.inf
    corners = [a / b for a in numerator for b in denominator]
    return min(corners), max(corners)


def _fieller(base: Vector, mesa: Vector, of_base: Outlook, of_mesa: Outlook, every: int) -> Outlook:
    """Return {a : |mean D_a| ≤ z·MCSE(D_a)} on the joint tail, with D_a = ΔL − a·ΔG; z to either side is its own."""
    start = max(of_base.start, of_mesa.start)
    dl, dg = base[start:] - base[0], mesa[start:] - mesa[0]
    centre = float(dl.mean() / dg.mean())
    left, pursued, shared = _errors(dl - centre * dg, dg)
    left = replace(left, effective=min(left.effective, pursued.effective))

    def ends(level: float) -> Ends:
        return fieller_set(centre, left, pursued, shared, level)

    limit = confident(centre, ends)
    if not math.isfinite(limit.low):
        return nowhere(
            Regime.UNDEFINED, "the denominator is not clear of 0: Fieller's set is unbounded or in two pieces"
        )
    method = f"Fieller's set on the joint series from t = {every * start}"
    return replace(of_base, limit=limit, start=start, method=method)


def fieller_set(centre: float, left: Mean, pursued: Mean, shared: float, level: float) -> Ends:
    """Return Fieller's set about a ratio at one level: from −inf to inf, where it is unbounded.

    Parameters
    ----------
    centre : float
        a₀, the ratio of the means of ΔL and ΔG.
    left, pursued : Mean
        Of ΔL − a₀·ΔG and of ΔG: mean D_a over its error lies between the two quantiles that the first one's skewness
        gives, to either side its own.
    shared : float
        The covariance of these means.
    level : float
    """
    low, high = left.reach(level)
    under, over = (low, high) if pursued.value < 0 else (high, low)
    variances = left.error**2, shared, pursued.error**2
    ends = [fieller(pursued.value, *variances, abs(quantile)) for quantile in (under, over)]
    if ends[0] is None or ends[1] is None:
        return -math.inf, math.inf
    return centre + ends[0][0], centre + ends[1][1]


def fieller(denominator: float, v_rr: float, v_rg: float, v_gg: float, z: float) -> tuple[float, float] | None:
    """Return the ends of {δ : (δ·denominator)² ≤ z²·(v_rr − 2δ·v_rg + δ²·v_gg)}, None where it is unbounded.

    r = ΔL − a₀·ΔG has mean 0 at the ratio of means a₀ = a − δ; so a₀ itself is always in the set (Fieller 1954).

    Examples
    --------
    >>> fieller(10.0, 1.0, 0.0, 0.0, 2.0)
    (-0.2, 0.2)
    >>> fieller(1.0, 1.0, 0.0, 1.0, 2.0) is None
    True
    """
    a, b, c = denominator**2 - z**2 * v_gg, z**2 * v_rg, z**2 * v_rr
    if a <= 0:
        return None
    root = math.sqrt(b * b + a * c)
    return (-b - root) / a, (-b + root) / a


def _errors(left: Vector, pursued: Vector) -> tuple[Mean, Mean, float]:
    """Return the means of two series with their errors, and the covariance of the means, by polarization."""
    one, two = mean_with_error(left), mean_with_error(pursued)
    if one.error == 0 or two.error == 0:
        return one, two, 0.0
    plus, minus = (mean_with_error(left / one.error + sign * pursued / two.error) for sign in (1, -1))
    correlation = float(np.clip((plus.error**2 - minus.error**2) / 4, -1, 1))
    return one, two, correlation * one.error * two.error


def _cointegrated(base: Vector, mesa: Vector, of_base: Outlook, of_mesa: Outlook, resolution: float) -> Outlook:
    """Return the slope of L on G where both drift, G away from G(0), and what is left of L does not drift.

    As G goes on, the ratio of sums goes to the slope (Stolz–Cesàro); where it comes to rest after all, the ratio lies
    between the slope and what it is now. Any curve is straight over a short way: one that bends on the scale of G
    itself has to be seen to bend.
    """
    drifting = of_base if not of_base.has_limit else of_mesa
    half = len(base) // 2
    dl, dg = base[half:] - base[0], mesa[half:] - mesa[0]
    spread = dg - dg.mean()
    away = len(base) >= LEAST and abs(float(dg[-1])) > abs(float(dg.mean())) > 0 and has_trend(dg)
    if of_base.has_limit or of_mesa.has_limit or not away:
        return drifting
    slope = float(spread @ dl / (spread @ spread))
    floor = rounding(base, resolution) + abs(slope) * rounding(mesa, resolution)
    error = _width(dl - slope * dg, resolution, floor)
    bend = float(np.ptp(dl) * np.ptp(dg) / np.abs(mesa).max()) / 8
    if not (bend > floor and error <= 0.05 * float(np.ptp(dl)) + floor):
        return drifting
    now = float(dl.mean() / dg.mean())
    width = (2 * error + floor) / float(np.ptp(dg))
    limit = Interval(slope, min(slope, now) - width, max(slope, now) + width)
    return Outlook(Regime.DRIFTING, limit, "slope of L on G: both drift, what is left of L does not", half)


def _width(left: Vector, resolution: float, floor: float) -> float:
    """Return how wide the interval is of the limit of what is left, inf where it has none."""
    if float(np.ptp(left)) <= floor:
        return floor
    found = outlook(left, resolution)
    return found.limit.high - found.limit.low if found.has_limit else math.inf
