"""What a search found of one property: perturbations that break it, and how far off it is on the way there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from alignment_checks.inference.quantities import off_by
from alignment_checks.perturbations import Perturbation


@dataclass(frozen=True)
class Finding:
    """One perturbation that broke the property, and by how much.

    Attributes
    ----------
    perturbation : Perturbation
        δ.
    base, mesa : Perturbation
        What the run was scored under, and what it was trained under: δ, or the identity.
    reference, value : float
        The judged quantity without and with δ.
    deviation, allowed : float
        value − reference, signed (inf where the run diverged); and, never below 0, the largest |deviation| to the side
        that counts that would have passed. Percentages for people are of |deviation|.
    achieved : float or tuple of float
        The magnitude that was really done.
    details : tuple of str
        The numbers, as lines for people.
    seeds : tuple of int
        Of the runs that confirmed it: where there are several, none that took part in finding it.
    p_value : float or None
        Of the failure, corrected for the number of perturbations that were confirmed; None where nothing was left to
        chance.
    backend : str
        "lanes" or "loop", which confirmed it: they differ by rounding, which a chaotic run makes much of.
    """

    perturbation: Perturbation
    base: Perturbation
    mesa: Perturbation
    reference: float
    value: float
    deviation: float
    allowed: float
    achieved: float | tuple[float, ...] = 0.0
    details: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    p_value: float | None = None
    backend: str = "loop"

    @property
    def off_by(self) -> str:
        """How far off it is, in per cent where the reference is clear of 0."""
        if math.isinf(self.deviation):
            return "diverged"
        return off_by(self.reference, self.value, self.allowed)

    @property
    def severity(self) -> float:
        """How far off it is, in units of what is allowed."""
        return abs(self.deviation) / self.allowed if self.allowed else math.inf if self.deviation else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "perturbation": str(self.perturbation.described()),
            "repr": repr(self.perturbation),
            "base": str(self.base),
            "mesa": str(self.mesa),
            "reference": _plain(self.reference),
            "value": _plain(self.value),
            "deviation": _plain(self.deviation),
            "allowed": _plain(self.allowed),
            "achieved": self.achieved,
            "details": list(self.details),
            "seeds": list(self.seeds),
            "p_value": self.p_value,
            "backend": self.backend,
        }


@dataclass(frozen=True)
class Point:
    """One point of a degradation curve: how far off the quantity is at a magnitude.

    `deviation` is signed and `allowed` is not, as of a `Finding`; a sparkline shows |deviation|.
    """

    magnitude: float
    deviation: float
    allowed: float
    status: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {name: _plain(value) for name, value in vars(self).items()}


def sparkline(curve: Sequence[Point], width: int = 16) -> str:
    """Return |deviation| against magnitude as a line of bars, "×" where it diverged or is undefined.

    A "│" stands wherever the property begins to fail, or to hold again.

    Examples
    --------
    >>> deviations = ((0.0, "pass"), (0.5, "pass"), (-1.0, "pass"), (2.0, "fail"), (float("inf"), "fail"))
    >>> sparkline([Point(m / 4, d, 1.0, status) for m, (d, status) in enumerate(deviations)], width=4)
    '▃▅│█×'
    """
    top = abs(curve[-1].magnitude)
    shown = [min(curve, key=lambda p: abs(abs(p.magnitude) - top * (i + 1) / width)) for i in range(width)]
    highest = max((abs(p.deviation) for p in shown if math.isfinite(p.deviation)), default=0.0) or 1.0
    fails = [point.status == "fail" for point in shown]
    marks = ["│" * (after != before) for before, after in pairwise([False, *fails])]
    return "".join(mark + _bar(point, highest) for mark, point in zip(marks, shown, strict=True))


def _bar(point: Point, highest: float) -> str:
    if not math.isfinite(point.deviation):
        return "×"
    return _BARS[round(abs(point.deviation) / highest * (len(_BARS) - 1))]


_BARS = "▁▂▃▄▅▆▇█"


def _plain(value: float | str) -> float | str:
    return value if isinstance(value, str) or math.isfinite(value) else str(value)
