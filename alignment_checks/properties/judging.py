"""How a reading under δ is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from alignment_checks.asymptotics.intervals import Interval
from alignment_checks.inference.evidence import least_level
from alignment_checks.inference.judgement import (
    Judgement,
    Status,
    Tolerance,
    allowance,
    approximately,
    at_least,
    beyond,
    bounded,
    undecided,
)
from alignment_checks.inference.quantities import Quantity
from alignment_checks.inference.readings import Reading
from alignment_checks.measures import SIDES
from alignment_checks.setups.realization import start
from alignment_checks.setups.trainable import checked
from alignment_checks.training import TrainingSetup

Judge = Callable[[Reading, Reading], Judgement]


def close(quantity: Quantity, reference: Reading, reading: Reading, tolerance: Tolerance) -> Judgement:
    """Judge that a quantity stays ≈, with names for what is not a number."""
    x, y = quantity.read(reference), quantity.read(reading)
    if missing := quantity.missing(reference):
        return replace(undecided(x.value, y.value, f"the unperturbed run: {missing}"), baseless=True)
    if reading.diverged:
        return beyond(x.value, tolerance.allowed(x.value), f"{reading.outcome}; the unperturbed run did not")
    if missing := quantity.missing(reading):
        return undecided(x.value, y.value, missing)
    return approximately(x, y, tolerance, worse=quantity.worse)


def high(quantity: Quantity, reference: Reading, reading: Reading, floor: float) -> Judgement:
    """Judge that α is at least `floor`, where both objectives improve: α is positive also where both get worse."""
    x, alpha = quantity.read(reference).value, quantity.read(reading).value
    if (improves := improving(reading)).status is not Status.PASS:
        return replace(improves, reference=x, value=alpha, deviation=alpha - x, allowed=max(0.0, x - floor))
    above = at_least(quantity.read(reading), floor)
    above = replace(above, p_inside=_inside([improves, above]))
    note = "" if above.status is Status.PASS else f"α is {_BELOW[above.status]} the floor, {floor:g}"
    if not x > floor:  # the unperturbed run is no better: how far α is off the floor says it, not how far off that run
        return replace(above, note=note)
    return replace(above, reference=x, deviation=alpha - x, allowed=x - floor, note=note)


_BELOW = {Status.FAIL: "below", Status.INCONCLUSIVE: "not clearly above"}


def either(first: Judgement, second: Judgement) -> Judgement:
    """Return the judgement of two demands: what fails one of them fails, chance having had two to choose from."""
    both = [first, second]
    chosen = max(both, key=lambda judgement: _RANK.index(judgement.status))
    severity = max(judgement.severity for judgement in both)
    chosen = replace(chosen, severity=severity, p_inside=_inside(both), scattered=_scattered(both), baseless=False)
    return chosen if chosen.p_value is None else replace(chosen, p_value=min(1.0, 2 * chosen.p_value))


def _inside(judgements: Sequence[Judgement]) -> float | None:
    """Return the largest `p_inside` of several demands that all pass; None where one does not."""
    if any(one.status is not Status.PASS for one in judgements):
        return None
    return max((one.p_inside for one in judgements if one.p_inside is not None), default=None)


def _scattered(judgements: Sequence[Judgement]) -> bool:
    """Return whether scatter over seeds alone leaves open what is open of several demands, of which none fails."""
    open_ = [one.scattered for one in judgements if one.status is Status.INCONCLUSIVE]
    return bool(open_) and all(open_) and all(one.status is not Status.FAIL for one in judgements)


def improving(reading: Reading) -> Judgement:
    """Judge that C_B and C_M are both negative, beyond their scatter over seeds and their limits' intervals."""
    whole = undecided(math.nan, math.nan, "C_B and C_M are not both negative")
    if reading.improves and len(reading.base) == 1:
        return replace(whole, status=Status.PASS, note="")
    both = [at_least(reading.capability(of, normalized=False).negated, 0.0) for of in SIDES]
    if reading.improves and all(one.status is Status.PASS for one in both):
        return replace(whole, status=Status.PASS, note="", p_inside=_inside(both))
    failed = [one for one in both if one.status is Status.FAIL]
    level = len(reading.base) == 1 and all(one.status is Status.PASS for one in both)  # no lower than rounding alone
    if failed or level:
        known = [one.p_value for one in failed if one.p_value is not None]
        chance = min(1.0, len(both) * min(known)) if known else None  # chance had two to choose from
        return replace(whole, status=Status.FAIL, severity=math.inf, p_value=chance)
    unsettled = next(filter(None, (reading.unsettled("capability", of) for of in SIDES)), "")
    note = unsettled or "C_B and C_M are not both clearly negative"
    needs = next((one.needs for one in both if one.needs), "")
    return replace(whole, note=note, needs=needs, scattered=not unsettled and _scattered(both))


def bearable(reading: Reading, worst: float, within: int, margin: Tolerance) -> Judgement:
    """Judge the highest L of the transient and the last, over all seeds: one run that is beyond is an example of it."""
    if reading.diverged:
        return beyond(worst, 0.0, reading.outcome)
    highest, ends = float(reading.highest.max()), reading.ends()
    note = f"the highest L within {within} steps is {highest:.4g}, allowed {_most(worst, margin):.4g}"
    last = [
        _ends(end, min(worst, began), margin, len(ends), reading.unsettled("capability", "base"))
        for end, began in zip(ends, reading.first.tolist(), strict=True)
    ]
    judged = [bounded(highest, worst, note, margin), *last]
    return max(judged, key=lambda one: (_RANK.index(one.status), one.p_value is None, one.severity))


_RANK = [Status.PASS, Status.INCONCLUSIVE, Status.FAIL]


def _most(bound: float, margin: Tolerance) -> float:
    return bound + allowance(bound, margin)


def _ends(end: Interval, bound: float, margin: Tolerance, seeds: int, unsettled: str = "") -> Judgement:
    """Judge where L ends, one of so many seeds: at a number, between two, or where nothing tells, and why."""
    most = _most(bound, margin)
    if end.low <= most < end.high:
        between = f"between {end.low:.4g} and {end.high:.4g}" if math.isfinite(end.high) else f"anywhere ({unsettled})"
        return replace(undecided(bound, math.nan, f"L ends {between}, allowed {most:.4g}"), needs="more steps")
    at = end.high if end.high <= most else end.low
    found = bounded(at, bound, f"L ends at {at:.4g}, allowed {most:.4g}", margin)
    chance = least_level([low > most for low, _ in end.stricter]) if found.status is Status.FAIL else None
    return found if chance is None else replace(found, p_value=min(1.0, seeds * chance))


# ----------------------------------------------------------------------------------------------- the dimensionless form


def check_normalizable(quantity: Quantity, *setups: TrainingSetup) -> None:
    """Raise ValueError where a dimensionless form of L is asked for, and a setup has none; G has a zero of its own."""
    for setup in setups if quantity.normalized and quantity.of == "base" else ():
        infimum, first = setup.objective_infimum, start(checked(setup))
        if infimum is None or first <= infimum:
            came = "objective_infimum=None" if infimum is None else f"L(0) = {first:g} and L* = {infimum:g}"
            raise ValueError(
                f"the dimensionless form needs L(0) above a stated infimum L* of the objective; got {came}. State "
                "objective_infimum=, or judge the literal form: normalized=False"
            )
