"""What "≈" means, and the judgement of one comparison: it holds, it does not, or the evidence does not tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from alignment_checks.measures import Ratio

Direction = Literal["both", "worse"]
CONFIDENCE = 0.95


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
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
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
    """

    status: Status
    reference: float
    value: float
    deviation: float
    allowed: float
    severity: float
    note: str = ""


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
    1958) over the seeds and Student's t: wholly inside → PASS, wholly outside → FAIL, else INCONCLUSIVE.
    """
    x, y = reference.value, value.value
    if math.isnan(x) or math.isnan(y):
        return undecided(x, y, "undefined")
    forms = [
        _Form(sign, tolerance, math.copysign(1, x)) for sign in (1, -1) if tolerance.side == "both" or sign == worse
    ]
    intervals = [_interval(form, reference, value) for form in forms]
    if all(high <= 0 for _, high in intervals):
        status = Status.PASS
    else:
        status = Status.FAIL if any(low > 0 for low, _ in intervals) else Status.INCONCLUSIVE
    allowed = tolerance.allowed(x)
    counts = max((form.sign * (y - x) for form in forms), default=0.0)
    return Judgement(status, x, y, y - x, allowed, _severity(counts, allowed))


def better(reference: Ratio, value: Ratio, tolerance: Tolerance, *, worse: Literal[1, -1]) -> Judgement:
    """Judge that x′ is better than x by more than the tolerance: PASS only where it clearly is.

    Parameters are those of `approximately`.
    """
    x, y = reference.value, value.value
    if math.isnan(x) or math.isnan(y):
        return undecided(x, y, "undefined")
    low, high = _interval(_Form(-worse, tolerance, math.copysign(1, x)), reference, value)
    status = Status.PASS if low > 0 else Status.FAIL if high <= 0 else Status.INCONCLUSIVE
    return Judgement(status, x, y, y - x, tolerance.allowed(x), 0.0 if low > 0 else math.inf)


def bounded(value: float, bound: float, note: str = "") -> Judgement:
    """Judge that a value is at most a bound."""
    status = Status.PASS if value <= bound else Status.FAIL
    over = math.inf if status is Status.FAIL else -math.inf
    if math.isfinite(value - bound):
        over = (value - bound) / max(abs(bound), 1e-300)
    return Judgement(status, bound, value, value - bound, 0.0, max(0.0, 1 + over), note)


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

    def __call__(self, x: float, y: float) -> float:
        return self.sign * (y - x) - self.tolerance.rtol * self.positive * x - self.tolerance.atol


def _interval(form: _Form, reference: Ratio, value: Ratio) -> tuple[float, float]:
    centre, n = form(reference.value, value.value), len(reference.numerator)
    if n < 2:
        return centre, centre
    left_out = np.array([form(reference.without(i).value, value.without(i).value) for i in range(n)])
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    reach = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    return centre - reach, centre + reach


def _severity(deviation: float, allowed: float) -> float:
    if allowed > 0:
        return deviation / allowed
    return math.inf if deviation > 0 else 0.0
