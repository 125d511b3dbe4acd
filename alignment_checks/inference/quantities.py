"""The quantities that properties compare, C and α, literal or dimensionless, with the names that people read."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from alignment_checks.asymptotics.distributions import student_quantile
from alignment_checks.asymptotics.intervals import MOST_TIMES
from alignment_checks.asymptotics.ratios import fieller
from alignment_checks.inference.horizons import Horizon
from alignment_checks.inference.readings import Ratio, Reading
from alignment_checks.measures import Side


@dataclass(frozen=True)
class Quantity:
    """One quantity of a reading.

    Attributes
    ----------
    name : {"capability", "alignment"}
    of : {"base", "mesa"}
        Whose capability; alignment has no such choice.
    normalized : bool
        The dimensionless form.
    steps : int
        T, for the symbol.
    horizon : {"finite", "limit"}
        What the symbol says: C_500 or C_∞.
    """

    name: Literal["capability", "alignment"]
    of: Side
    normalized: bool
    steps: int
    horizon: Horizon = "finite"

    @property
    def worse(self) -> Literal[1, -1]:
        """The sign of a change for the worse."""
        return 1 if self.name == "capability" else -1

    @property
    def other_form(self) -> Quantity:
        """The dimensionless form of a literal quantity, and the other way round."""
        return replace(self, normalized=not self.normalized)

    def read(self, reading: Reading) -> Ratio:
        """Return the quantity over the reading's seeds."""
        if self.name == "capability":
            return reading.capability(self.of, normalized=self.normalized)
        return reading.alignment(normalized=self.normalized)

    def missing(self, reading: Reading) -> str:
        """Return why the quantity is not a number, "" where it is one."""
        ratio = self.read(reading)
        if not math.isnan(ratio.value):
            return _scattered(ratio) if self.name == "alignment" else ""
        if reading.diverged:
            return reading.outcome
        if self.normalized and reading.refusal:
            return reading.refusal
        return reading.unsettled(self.name, self.of) or "α is undefined: C_M is not clear of 0"

    def symbol(self, base: str = "L", mesa: str = "G") -> str:
        """Return the quantity's symbol, such as C_500(L) or α_500(L, G)."""
        tilde, at = "\u0303" if self.normalized else "", "∞" if self.horizon == "limit" else self.steps
        if self.name == "alignment":
            return f"α{tilde}_{at}({base}, {mesa})"
        return f"C{tilde}_{at}({base if self.of == 'base' else mesa})"

    def __str__(self) -> str:
        whose = "mesa-" if self.name == "capability" and self.of == "mesa" else ""
        return f"{'dimensionless ' if self.normalized else ''}{whose}{self.name}"


def _scattered(ratio: Ratio) -> str:
    """Return why a pooled α is undefined over its seeds: Fieller's set of it is unbounded; "" where it is not."""
    n = len(ratio.numerator)
    if n < 2:
        return ""
    left, bottom = ratio.numerator - ratio.value * ratio.denominator, ratio.denominator
    (v_rr, v_rg), (_, v_gg) = np.cov(left, bottom) / n
    mean, quantile = float(bottom.mean()), student_quantile(n - 1, 0.975)
    if fieller(mean, float(v_rr), float(v_rg), float(v_gg), quantile):
        return ""
    times = quantile**2 * float(v_gg) / mean**2 if mean else math.inf
    more = f"About {math.ceil(1.05 * n * times)}" if times < MOST_TIMES else "More"
    return f"α is undefined: C_M is not clear of 0 at its scatter over {n} seeds. {more} seeds may tell"


def padded(text: str, width: int) -> str:
    """Return text filled up with blanks to a width on screen, where a combining tilde takes no room."""
    return text + " " * (width - sum(not unicodedata.combining(character) for character in text))


def number(value: float, digits: int = 4) -> str:
    """Return a number for people: four significant digits, and "undefined" for what is none."""
    return "undefined" if math.isnan(value) else f"{value:.{digits}g}"


def telling(value: float, other: float) -> int:
    """Return how many significant digits tell a number from another one: four, if that is enough.

    >>> telling(10.33, 10.0), telling(10.00004, 10.0)
    (4, 7)
    """
    return next((digits for digits in range(4, 17) if f"{value:.{digits}g}" != f"{other:.{digits}g}"), 17)


def off_by(reference: float, value: float, allowed: float = math.nan) -> str:
    """Return how far a value is off, in per cent where the reference is clear of 0, and not as far as is allowed."""
    if math.isnan(value) or math.isnan(reference):
        return "undefined"
    deviation = abs(value - reference)
    if abs(reference) > 1e-9 * deviation:
        off, most = (100 * (number / abs(reference)) for number in (deviation, allowed))
        return f"off by {off:.{telling(off, most)}g} %"
    return f"off by {deviation:.{telling(deviation, allowed)}g}"
