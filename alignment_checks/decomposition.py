"""What a difference between two setups comes from: Δlog|C_B| = Δlog|α| + Δlog|C_M|."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignment_checks.readings import Reading


@dataclass(frozen=True)
class Decomposition:
    """Δlog|C_B| = Δlog|α| + Δlog|C_M| of one setup against another, or why there is none.

    Attributes
    ----------
    base, alignment, mesa : float
        The three terms; NaN where refused.
    cause : str
        "capability-limited", "less aligned" or "both": what the difference in C_B comes from. Empty where refused, and
        where there is no difference.
    refusal : str or None
    """

    base: float
    alignment: float
    mesa: float
    cause: str
    refusal: str | None = None


def decomposition(a: Reading, b: Reading, *, normalized: bool) -> Decomposition:
    """Return how the difference between the base capabilities of a and b comes about (Harris 2020, "Two examples")."""
    values = [r.capability(of, normalized=normalized).value for r in (a, b) for of in ("base", "mesa")]
    if not (a.improves and b.improves and all(value < 0 for value in values)):
        signs = ", ".join(f"{name} {_sign(v)}" for name, v in zip(_NAMES, values, strict=True))
        return Decomposition(
            math.nan, math.nan, math.nan, "", f"not all capabilities are clear of 0 and negative: {signs}"
        )
    base_a, mesa_a, base_b, mesa_b = (math.log(-value) for value in values)
    base, mesa = base_a - base_b, mesa_a - mesa_b
    return Decomposition(base, base - mesa, mesa, _cause(base, base - mesa, mesa))


_NAMES = ("C_B(a)", "C_M(a)", "C_B(b)", "C_M(b)")


_SHARE = 0.01
"""A smaller part of a difference is not called its cause: no two runs agree to the last digit."""


def _cause(base: float, alignment: float, mesa: float) -> str:
    by_mesa, by_alignment = (term * base > 0 and abs(term) > _SHARE * abs(base) for term in (mesa, alignment))
    if by_mesa and by_alignment:
        return "both"
    return "capability-limited" if by_mesa else "less aligned" if by_alignment else ""


def _sign(value: float) -> str:
    return "undefined" if math.isnan(value) else "negative" if value < 0 else "positive" if value > 0 else "0"
