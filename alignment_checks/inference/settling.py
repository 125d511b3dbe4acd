"""Whether a limit has settled, and if not, about how many more steps that would take."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from alignment_checks.asymptotics.extrapolation import decay
from alignment_checks.asymptotics.intervals import Vector
from alignment_checks.asymptotics.regimes import SMALLEST, more_steps, rounding
from alignment_checks.inference.horizons import LimitReading, at_limit
from alignment_checks.inference.quantities import Quantity, number, off_by
from alignment_checks.inference.readings import Reading
from alignment_checks.limits import Estimate, Regime, evenly
from alignment_checks.measures import SIDES
from alignment_checks.trajectory import Trajectory

SETTLED = 0.01
"""A limit has settled where it is known to this part of itself."""

EXACT = 1e-9
"""So has one that is known to this part of L(0), or of G(0)."""


def outlook_line(quantity: Quantity, reading: Reading, runs: Trajectory) -> str:
    """Return a line about the limit of a quantity, for people.

    Parameters
    ----------
    quantity : Quantity
    reading : Reading
        Of these runs, at either horizon.
    runs : Trajectory
        Of one perturbation, one for each seed, to their last steps.
    """
    if reading.diverged:
        return reading.outcome
    limit = reading if isinstance(reading, LimitReading) else at_limit(reading, runs, 0)
    found, least = quantity.read(limit), _least_settled(quantity, limit)
    if math.isnan(found.value):
        why = limit.unsettled(quantity.name, quantity.of) or quantity.missing(limit)
        return f"not settled, and no limit in sight: {why}"
    half, size = 0.5 * (found.high - found.low), abs(found.value)
    named = "; ".join(filter(None, (least.regime.name.lower(), least.remark)))
    symbol = replace(quantity, horizon="limit").symbol()
    name = f"{symbol} = {number(found.value)} ({named})"
    if half <= SETTLED * size or _is_exact(quantity, limit):
        return f"{name}, settled{_still_off(quantity, reading, found.value)}"
    within = f"{name}, not settled: between {number(found.low)} and {number(found.high)}"
    times = half / (SETTLED * size) if size else math.inf
    return f"{within}; {_words(_more_steps(quantity, runs, least.regime, times))}"


def _still_off(quantity: Quantity, reading: Reading, limit: float) -> str:
    """Return how far the value at the last step is off the limit."""
    if quantity.horizon == "limit":
        return ""
    value = quantity.read(reading).value
    return "" if math.isnan(value) else f"; {quantity.symbol()} is {off_by(limit, value)}"


def _is_exact(quantity: Quantity, limit: LimitReading) -> bool:
    """Return whether a capability is known up to rounding, of which one that is 0 is never a small part."""
    if quantity.name != "capability":
        return False
    first = limit.first if quantity.of == "base" else limit.mesa_first
    widths = np.array([one.high - one.low for one in _estimates(quantity, limit)])
    return bool((widths <= EXACT * np.abs(first) + 10 * SMALLEST).all())


def _least_settled(quantity: Quantity, limit: LimitReading) -> Estimate:
    """Return the limit of the least settled seed."""
    return max(_estimates(quantity, limit), key=lambda one: one.high - one.low)


def _estimates(quantity: Quantity, limit: LimitReading) -> list[Estimate]:
    """Return the limits of a quantity, one for each seed."""
    return [one.of(quantity.name, quantity.of) for one in limit.limits]


def _more_steps(quantity: Quantity, runs: Trajectory, regime: Regime, times: float) -> float:
    """Return about how many more steps make the interval `times` narrower; inf where none are in sight.

    Of a mean over T random values it goes as T^-½, of one over a cycle as 1/T, else as the tail's own decay.
    """
    steps, records = int(runs.t[-1]), evenly(runs)
    if regime is Regime.STATIONARY:
        return float(steps * (times**2 - 1))
    if regime in (Regime.PERIODIC, Regime.QUASIPERIODIC):
        return float(steps * (times - 1))
    sides = SIDES if quantity.name == "alignment" else (quantity.of,)
    series = [row for of in sides for row in (runs.base if of == "base" else runs.mesa)]
    return max(_by_decay(row[:records], runs.resolution, times, steps) for row in series)


def _by_decay(series: Vector, resolution: float, times: float, steps: int) -> float:
    rate, power = decay(series, rounding(series, resolution))
    if rate > 0:
        return math.log(times) / rate * steps / (len(series) - 1)
    exponent = math.log(times) / power if power > 0 else math.inf
    return steps * math.expm1(exponent) if exponent < 100 else math.inf


def _words(steps: float) -> str:
    if not math.isfinite(steps):
        return "how many more steps that would take is not in sight"
    return f"{more_steps(steps)} would settle it to {100 * SETTLED:g} %"
