"""Which regime a series of a run has come to, and the limit of its mean that this gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from alignment_checks.asymptotics import extrapolation, recurrence, stationarity
from alignment_checks.asymptotics.intervals import Interval, Vector

ROUNDING = 64
"""What L and G are taken to be known to, in units of machine epsilon times their largest value."""

SMALLEST = 1e-140
"""What no difference is told from 0 below, whatever the scale: its square would vanish."""

FEWEST = 12
"""Shorter runs are read only where they stand still."""

SHORTEST = 200
"""A tail of fewer values is not called stationary: what is left of a transient was seen to be more than chance."""

INDEPENDENT = 12
"""Nor is one that is worth fewer independent values: of random walks, one in thirty is taken to be worth more. To ask
for 25 would pick by luck those whose scatter looks small: where the truth was 15, intervals of 95 % covered 70 %. What
is picked so already has a wider interval instead (`stationarity.Mean.reach`)."""


class Regime(StrEnum):
    """How a run behaves as T → ∞, as far as it shows; a value begins with the regime's name, and goes on as a message.

    Examples
    --------
    >>> Regime.FIXED.name, Regime.FIXED.value
    ('FIXED', 'fixed: converging to a fixed point')
    """

    FIXED = "fixed: converging to a fixed point"
    STOPPED = "stopped: the learning rate goes to 0 and the steps vanish, away from any zero of the gradient"
    PERIODIC = "periodic: on a cycle"
    QUASIPERIODIC = "quasiperiodic: on a torus, never quite coming back"
    STATIONARY = "stationary: chaotic or noisy about a mean"
    DRIFTING = "drifting: still trending at the last step, no limit in sight"
    PLATEAU = "plateau: looks settled, but is leaving an unstable fixed point"
    DIVERGED = "diverged: NaN, infinite, or grown beyond all bounds"
    UNDEFINED = "undefined: the denominator is 0, or not clear of it"


_SETTLING = [Regime.FIXED, Regime.STOPPED, Regime.PERIODIC, Regime.QUASIPERIODIC, Regime.STATIONARY]
NOWHERE = Interval(math.nan, -math.inf, math.inf)


@dataclass(frozen=True)
class Outlook:
    """Where one series goes: its regime, the limit of its mean, how that was found, from which t on, and a remark."""

    regime: Regime
    limit: Interval
    method: str
    start: int = 0
    remark: str = ""

    @property
    def has_limit(self) -> bool:
        """Whether there is a number."""
        return self.regime in _SETTLING

    @property
    def sampled(self) -> bool:
        """Whether the limit is a mean of random values, and its interval one of confidence."""
        return bool(self.limit.stricter)


def more_steps(steps: float) -> str:
    """Return how many more steps, for people: an order of magnitude.

    Examples
    --------
    >>> more_steps(70), more_steps(12_000)
    ('about 10² more steps', 'about 10⁴ more steps')
    """
    exponent = max(1, round(math.log10(max(steps, 1.0))))
    return f"about {'10' + str(exponent).translate(_RAISED)} more steps"


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def nowhere(regime: Regime, why: str) -> Outlook:
    """Return the outlook of a series without a limit."""
    return Outlook(regime, NOWHERE, why)


def rounding(series: Vector, resolution: float) -> float:
    """Return what the values of a series are known to."""
    return ROUNDING * resolution * float(np.abs(series).max()) + SMALLEST


def outlook(series: Vector, resolution: float, infimum: float | None = None, every: int = 1) -> Outlook:
    """Return where a series goes.

    Parameters
    ----------
    series : ndarray of float64, shape (T + 1,)
        L(t) or G(t) of one run, finite.
    resolution : float
        Machine epsilon of the dtype in which it was computed.
    infimum : float or None
        A number that no value can be below, nor the limit.
    every : int
        How many steps apart the values are, for the text.

    Examples
    --------
    >>> found = outlook(2.0 + 0.9 ** np.arange(1000.0), 2.0**-52)
    >>> found.regime.name, found.limit.value
    ('FIXED', 2.0)
    """
    floor = rounding(series, resolution)
    found = _still(series, floor, every) or _converging(series, floor) or _recurring(series, floor, every)
    return replace(found, limit=found.limit.above(infimum)) if found.has_limit else found


def _still(series: Vector, floor: float, every: int) -> Outlook | None:
    short = len(series) < FEWEST
    moved = float(np.ptp(series if short else series[-(len(series) // 4) :]))
    if moved > (0.0 if short else floor):
        why = f"{every * (len(series) - 1)} steps are too few to tell: {more_steps(every * FEWEST)} may tell"
        return nowhere(Regime.DRIFTING, why) if short else None
    if moved > 0 and _creeps(series):
        return nowhere(Regime.DRIFTING, "what it moves by is within its rounding, and does not shrink")
    last = float(series[-1])
    return Outlook(Regime.FIXED, Interval(last, last, last).wider(2 * moved + floor), "the last value: it stands still")


def _creeps(series: Vector) -> bool:
    """Return whether a series has moved one way, ever on, so that it stands still only beside its rounding."""
    steps = np.diff([quarter.mean() for quarter in np.array_split(series, 4)])
    same_way = bool(np.all(steps > 0) or np.all(steps < 0))
    return same_way and abs(steps.sum()) > 0.6 * np.ptp(series) and abs(steps[2]) > 0.5 * abs(steps[0])


def _converging(series: Vector, floor: float) -> Outlook | None:
    half, quarter = series[len(series) // 2 :], series[-(len(series) // 4) :]
    if extrapolation.is_monotone(half, floor):
        limit = extrapolation.extrapolated(series, floor)
        method = "extrapolated: exponential and power-law tails"
    elif np.ptp(quarter) <= 1e-3 * np.ptp(half) and extrapolation.is_monotone(quarter, floor):
        limit = extrapolation.extrapolated(half, floor)
        method = "extrapolated: the second half, after a late change"
    elif extrapolation.is_damped(series, floor):
        limit = extrapolation.damped(series, floor)
        method = "extrapolated: a running mean, within dying fluctuations"
    else:
        return None
    if limit is None:
        return nowhere(Regime.DRIFTING, f"{_trend(series)} do not shrink as those of a converging run do")
    return Outlook(Regime.FIXED, limit, method)


def _trend(series: Vector) -> str:
    first, second, third = series[len(series) // 4], series[len(series) // 2], series[-1]
    return "its changes grow: they" if abs(third - second) > 2.01 * abs(second - first) else "its changes"


def _recurring(series: Vector, floor: float, every: int) -> Outlook:
    start = stationarity.transient(series)
    tail = series[start:]
    p = recurrence.period(tail, floor)
    if p is not None:
        return _periodic(tail, floor, p, start, every)
    if len(tail) >= 3 * FEWEST and recurrence.is_quasiperiodic(tail):
        return _quasiperiodic(series, floor, start, every)
    return _stationary(tail, start, every)


def _quasiperiodic(series: Vector, floor: float, start: int, every: int) -> Outlook:
    limit = recurrence.recurrent_mean(series[start:], floor)
    return Outlook(Regime.QUASIPERIODIC, limit, f"weighted Birkhoff average from t = {every * start}", start)


def _periodic(tail: Vector, floor: float, p: int, start: int, every: int) -> Outlook:
    """Read a cycle by its running mean, which may still be settling."""
    means = extrapolation.moving_mean(tail, p)
    second = means[len(means) // 2 :]
    if float(np.ptp(second)) <= floor + 1e-3 * float(np.ptp(tail)):
        method = f"weighted Birkhoff average of the mean over period {every * p}, from t = {every * start}"
        return Outlook(Regime.PERIODIC, recurrence.recurrent_mean(second, floor), method, start)
    limit = extrapolation.extrapolated(means, floor) if extrapolation.is_monotone(second, floor) else None
    if limit is None:
        return nowhere(Regime.DRIFTING, f"it cycles with period {every * p} about a mean that drifts")
    return Outlook(Regime.PERIODIC, limit, f"extrapolated: the mean over period {every * p}", start)


def _stationary(tail: Vector, start: int, every: int) -> Outlook:
    since = f"from t = {every * start} on"
    if len(tail) < SHORTEST:
        few = f"it scatters, and {len(tail)} values {since} are too few for a mean"
        return nowhere(Regime.DRIFTING, f"{few}: {more_steps(every * (SHORTEST - len(tail)))} may tell")
    if start >= len(tail) - 1:
        why = f"half of the run is its transient, which may not be over: {more_steps(every * 2 * start)} may tell"
        return nowhere(Regime.DRIFTING, why)
    if stationarity.has_trend(tail):
        return nowhere(Regime.DRIFTING, f"its mean moves beyond its scatter {since}")
    if stationarity.has_uneven_scatter(tail):
        return nowhere(Regime.DRIFTING, f"its scatter is not the same throughout, {since}")
    mean = stationarity.mean_with_error(tail)
    if not mean.effective >= INDEPENDENT:
        lacking = every * len(tail) * (INDEPENDENT / max(mean.effective, 1.0) - 1)
        worth = f"{mean.effective:.0f} independent ones, too few: {more_steps(lacking)} may tell"
        return nowhere(Regime.DRIFTING, f"its {len(tail)} values {since} are worth {worth}")
    method = f"mean from t = {every * start}, effective size {mean.effective:.0f}"
    return Outlook(Regime.STATIONARY, mean.interval, method, start)


def together(
    base: Outlook, mesa: Outlook, levels: Vector, norms: Vector, resolution: float, every: int = 1
) -> tuple[Outlook, Outlook]:
    """Return the outlooks of L and G of one run under one name, the less settled one.

    Drift of one leaves the other its limit, but for a mean of random values, which rests on the run's being
    stationary. An orbit that one of them shows to be quasiperiodic is so for both: G has kinks, at which Birkhoff
    averages converge too slowly to show it.
    """
    if {base.regime, mesa.regime} == {Regime.QUASIPERIODIC, Regime.STATIONARY}:
        floors = rounding(levels, resolution), rounding(norms, resolution)
        pairs = ((levels, floors[0], base.start), (norms, floors[1], mesa.start))
        first, second = (_quasiperiodic(*pair, every) for pair in pairs)
        return first, second
    if Regime.DRIFTING in (base.regime, mesa.regime):
        return _stationary_beside(base, mesa, "G"), _stationary_beside(mesa, base, "L")
    if not (base.has_limit and mesa.has_limit):
        return base, mesa
    regime = max(base.regime, mesa.regime, key=_SETTLING.index)
    return replace(base, regime=regime), replace(mesa, regime=regime)


def _stationary_beside(found: Outlook, other: Outlook, name: str) -> Outlook:
    """Return the outlook, none of what seems stationary where the other side, so named, shows that the run is not."""
    if found.regime is not Regime.STATIONARY or other.regime is not Regime.DRIFTING:
        return found
    return nowhere(Regime.DRIFTING, f"it scatters about a mean, but {name} is drifting: {other.method}")
