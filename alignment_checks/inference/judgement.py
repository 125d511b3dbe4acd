"""What "≈" means, and the judgement of one comparison: it holds, it does not, or the evidence does not tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

import numpy as np

from alignment_checks.arguments import is_number
from alignment_checks.inference.evidence import Evidence, decisive, jackknifed, scattered
from alignment_checks.inference.readings import Ratio, at_each_level

Direction = Literal["both", "worse"]


class Status(StrEnum):
    """What is known of a property: it holds, it does not, or this evidence does not tell."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


# --------------------------------------------------------------------------------------------------------- judging "≈"


@dataclass(frozen=True)
class Tolerance:
    """When x′ ≈ x: |x′ − x| ≤ atol + rtol·|x|, two-sided or counting deterioration only.

    Raises
    ------
    ValueError
        If a tolerance is negative or not finite, or `side` is neither "both" nor "worse".
    """

    rtol: float
    atol: float = 0.0
    side: Direction = "both"

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be a finite number, at least 0; got {value!r}")
        if self.side not in ("both", "worse"):
            raise ValueError(f"`side` must be 'both' or 'worse' (count deterioration only); got {self.side!r}")

    def allowed(self, reference: float) -> float:
        """Return the largest deviation from `reference` that still counts as ≈."""
        return self.atol + self.rtol * abs(reference)

    def __str__(self) -> str:
        parts = [f"rtol={self.rtol:g}"] if self.rtol or not self.atol else []
        parts += [f"atol={self.atol:g}"] if self.atol else []
        return ", ".join(parts + ["side='worse'"] * (self.side == "worse"))


@dataclass(frozen=True)
class Judgement:
    """Whether x′ ≈ x, and by how much not.

    Attributes
    ----------
    status : Status
    reference, value : float
        x and x′.
    deviation : float
        x′ − x, signed; inf where x′ diverged.
    allowed : float
    severity : float
        The deviation that counts, over what is allowed: above 1 is outside. What a search maximises.
    note : str
        What has a name and not a number: a divergence, an undefined ratio.
    p_value : float or None
        Of what fails: how often chance alone, in the seeds or in a limit estimated from one run, takes what holds this
        far outside. None where nothing was left to chance.
    needs : str
        What would decide what is inconclusive.
    p_inside : float or None
        Of what passes over several seeds: how often chance alone takes what does not hold this far inside, counted on
        both sides as `p_value` is; at most 0.05. None where nothing was left to chance.
    scattered : bool
        Of what is inconclusive: whether it is scatter over seeds, and nothing that has a name, that leaves it open.
    baseless : bool
        Of what is inconclusive: whether it is so under any δ, since the unperturbed run has no number to compare with.
    """

    status: Status
    reference: float
    value: float
    deviation: float
    allowed: float
    severity: float
    note: str = ""
    p_value: float | None = None
    needs: str = ""
    p_inside: float | None = None
    scattered: bool = False
    baseless: bool = False


def approximately(reference: Ratio, value: Ratio, tolerance: Tolerance, *, worse: Literal[1, -1]) -> Judgement:
    """Judge x′ ≈ x, on paired seeds where there are several: the interval decides.

    Parameters
    ----------
    reference, value : Ratio
        x and x′ over the same seeds.
    tolerance : Tolerance
    worse : {1, -1}
        The sign of a change for the worse: 1 for capability (less negative), −1 for alignment.

    Notes
    -----
    With several seeds the linear forms x′ − (1 ± rtol)·x ∓ atol (signs by x's) get a jackknife standard error (Tukey
    1958) over the seeds and Student's t: wholly inside → PASS, wholly outside → FAIL, else INCONCLUSIVE. What the
    values themselves are only known to, as limits are, is added to the interval.
    """
    x, y = reference.value, value.value
    if math.isnan(x) or math.isnan(y):
        return undecided(x, y, "undefined")
    if _same(reference, value):  # off by nothing, however little is known of x
        return Judgement(Status.PASS, x, y, 0.0, tolerance.allowed(x), 0.0)
    signs = [sign for sign in (1, -1) if tolerance.side == "both" or sign == worse]
    evidence = [_Form(sign, tolerance, math.copysign(1, x)).of(reference, value) for sign in signs]
    allowed = tolerance.allowed(x)
    counts = max((sign * (y - x) for sign in signs), default=0.0)
    return _decided(Judgement(Status.INCONCLUSIVE, x, y, y - x, allowed, _severity(counts, allowed)), evidence)


def better(reference: Ratio, value: Ratio, tolerance: Tolerance, *, worse: Literal[1, -1]) -> Judgement:
    """Judge that x′ is better than x by more than the tolerance: PASS only where it clearly is.

    Parameters are those of `approximately`.
    """
    x, y = reference.value, value.value
    if math.isnan(x) or math.isnan(y):
        return undecided(x, y, "undefined")
    ahead = _Form(-worse, tolerance, math.copysign(1, x)).of(reference, value)
    judgement = Judgement(Status.INCONCLUSIVE, x, y, y - x, tolerance.allowed(x), math.inf)
    low, high = ahead.interval()
    if low > 0:
        return replace(judgement, status=Status.PASS, severity=0.0)
    if high <= 0:
        return replace(judgement, status=Status.FAIL, p_value=ahead.p_below)
    return replace(judgement, needs=decisive([ahead]))


def at_least(value: Ratio, floor: float) -> Judgement:
    """Judge x ≥ floor: the interval decides."""
    x = value.value
    if math.isnan(x):
        return undecided(floor, x, "undefined")
    bound = bounded(-x, -floor)
    ranges = [(floor - one.high, floor - one.low) for (one,) in ((value,), *at_each_level(value))]
    missed = jackknifed(lambda one: floor - one, (value,), ranges[0], ranges[1:])
    return _decided(replace(bound, reference=floor, value=x, deviation=x - floor), [missed])


def _decided(judgement: Judgement, evidence: Sequence[Evidence]) -> Judgement:
    """Return the judgement with the status that its linear forms, above 0 outside, decide."""
    intervals = [one.interval() for one in evidence]
    if all(high <= 0 for _, high in intervals):
        inside = [one.p_below for one in evidence if one.seeds > 1 and one.p_below is not None]
        return replace(judgement, status=Status.PASS, p_inside=max(inside, default=None))
    if any(low > 0 for low, _ in intervals):
        known = [one.p_above for one in evidence if one.p_above is not None]
        return replace(judgement, status=Status.FAIL, p_value=min(known, default=None))
    needs, by_scatter = decisive(evidence), scattered(evidence)
    return replace(judgement, status=Status.INCONCLUSIVE, needs=needs, scattered=by_scatter)


def bounded(value: float, bound: float, note: str = "", margin: Tolerance | None = None) -> Judgement:
    """Judge that a value is at most a bound, or above it by no more than a margin."""
    allowed = 0.0 if margin is None else allowance(bound, margin)
    most = bound + allowed
    status = Status.PASS if value <= most else Status.FAIL
    over = math.inf if status is Status.FAIL else -math.inf
    if math.isfinite(value - most):
        over = (value - most) / max(abs(most), 1e-300)
    return Judgement(status, bound, value, value - bound, allowed, max(0.0, 1 + over), note)


def allowance(bound: float, margin: Tolerance) -> float:
    """Return by how much a value may be above a bound; above one that is infinite, nothing is."""
    return margin.allowed(bound) if math.isfinite(bound) else 0.0


def undecided(reference: float, value: float, note: str) -> Judgement:
    """Return the judgement of what has a name and not a number."""
    return Judgement(Status.INCONCLUSIVE, reference, value, math.nan, math.nan, 0.0, note)


def beyond(reference: float, allowed: float, note: str) -> Judgement:
    """Return the judgement of a perturbed run that diverged where the reference did not: a failure."""
    return Judgement(Status.FAIL, reference, math.nan, math.inf, allowed, math.inf, note)


@dataclass(frozen=True)
class _Form:
    """One side of the tolerance as a linear form in (x′, x), above 0 outside: ±(x′ − x) − rtol·|x| − atol."""

    sign: int
    tolerance: Tolerance
    positive: float

    def of(self, reference: Ratio, value: Ratio) -> Evidence:
        """Return what paired seeds, and intervals of x and x′, tell of the form."""
        low, high = self._range(reference, value)
        open_ = low <= 0 < high  # then no p-value is asked for
        stricter = [] if open_ else [self._range(*both) for both in at_each_level(reference, value)]
        return jackknifed(self, (reference, value), (low, high), stricter)

    def __call__(self, x: float, y: float) -> float:
        return self.sign * (y - x) - self.tolerance.rtol * self.positive * x - self.tolerance.atol

    def _range(self, reference: Ratio, value: Ratio) -> tuple[float, float]:
        """Return the least and the largest value of the form while x and x′ are in their intervals."""
        low, high = reference.low, reference.high
        corners = [low, high, *([0.0] if low < 0 < high else [])]
        forms = [
            self.sign * (y - x) - self.tolerance.rtol * abs(x) - self.tolerance.atol
            for x in corners
            for y in (value.low, value.high)
        ]
        return min(forms), max(forms)


def _same(reference: Ratio, value: Ratio) -> bool:
    pairs = ((reference.numerator, value.numerator), (reference.denominator, value.denominator))
    return all(np.array_equal(one, other) for one, other in pairs) and bool(np.all(reference.denominator != 0))


def _severity(deviation: float, allowed: float) -> float:
    if allowed > 0:
        return deviation / allowed
    return math.inf if deviation > 0 else 0.0
