"""`Family`: what the name of a perturbation's family means, and how a family's strategy is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from alignment_checks.arguments import is_number
from alignment_checks.perturbations.value import LARGEST_SEED, Perturbation, Plain
from alignment_checks.setups.realization import Realization

Kind = Literal["dataset", "init", "objective", "optimizer", "custom", "identity", "compose"]
Drawn = tuple[str, tuple[tuple[str, Plain], ...], float]
"""The family, options and limit of what a strategy draws."""
LARGEST_LOG2 = 1023.0
"""2 to the power of anything larger is no float."""


@dataclass(frozen=True)
class Family:
    """What the name of a family means: its effect on a run, beside the strategy that draws it.

    Attributes
    ----------
    name : str
    kind : str
        What of a run it may change.
    unit : str
        What its magnitude is called.
    apply : callable
        From a realization and a perturbation of this family to the perturbed realization.
    achieved : callable
        From the realization before and after, and the perturbation, to the magnitude that was really done.
    seeded : bool
        Whether it draws randomness of its own.
    continuous : bool
        Whether the magnitude can take any value up to its limit.
    needs : str, optional
        The option that names what is not plain data and travels as the perturbation's payload.
    most : float
        The largest |magnitude| that means anything.
    signed : bool
        Whether a magnitude below 0 means anything, as of a logarithm or a change.
    vanishes : bool
        Whether its effect goes to nothing as its magnitude does: what a user's function does at any above 0 only its
        user knows.
    """

    name: str
    kind: Kind
    unit: str
    apply: Callable[[Realization, Perturbation], Realization]
    achieved: Callable[[Realization, Realization, Perturbation], float]
    seeded: bool = False
    continuous: bool = True
    needs: str | None = None
    most: float = math.inf
    signed: bool = False
    vanishes: bool = True

    def accepts(self, magnitude: float) -> bool:
        """Return whether the family has such a magnitude; NaN it never has."""
        return math.isfinite(magnitude) and abs(magnitude) <= self.most and (self.signed or magnitude >= 0)


def as_asked(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    """Return the magnitude asked for: the `achieved` of a family that always does exactly that."""
    return float(delta.magnitude or 0.0)


def drawn(
    family: Family,
    limit: float,
    *,
    magnitudes: SearchStrategy[float] | None = None,
    options: tuple[tuple[str, Plain], ...] = (),
    payload: object = None,
    shown: Mapping[str, object] | None = None,
) -> SearchStrategy[Perturbation]:
    """Return the strategy of a family's perturbations, by default over all magnitudes that it has up to the limit.

    Its repr is the call that made it, `name(**shown)`.
    """
    chosen = st.floats(-limit if family.signed else 0, limit) if magnitudes is None else magnitudes
    seeds = st.integers(0, LARGEST_SEED) if family.seeded else st.just(0)

    def draw_one(draw: DrawFn, /, **arguments: object) -> Perturbation:  # noqa: ARG001
        return Perturbation(family.name, draw(chosen) + 0.0, limit, draw(seeds), options, payload=payload)

    draw_one.__name__ = str(dict(options).get("name", family.name))
    vars(draw_one)[_DRAWS] = family.name, options, limit
    return st.composite(draw_one)(**(shown or {}))


def up_to(family: Family, argument: str, limit: float) -> SearchStrategy[Perturbation]:
    """Return the strategy of a family up to the limit that its user gave by an argument of this name.

    Raises
    ------
    ValueError
    """
    return drawn(family, positive(family.name, argument, limit, most=family.most), shown={argument: limit})


_DRAWS = "draws"
"""What the function that draws a family's perturbations says of them."""


def drawn_by(definition: object) -> Drawn | None:
    """Return what a family's strategy of this definition draws; None of any other."""
    found: Drawn | None = getattr(definition, _DRAWS, None)
    return found


def positive(family: str, argument: str, value: float, *, most: float = math.inf) -> float:
    """Return `value` as a float in (0, most], or say what was expected.

    Raises
    ------
    ValueError
    """
    if not is_number(value) or not 0 < value <= most or math.isinf(value):
        upper = "" if math.isinf(most) else f", at most {most:g}"
        raise ValueError(f"{family}: `{argument}` must be a number above 0{upper}; got {value!r}")
    return float(value)


class Named:
    """An argument that prints as a short name, so that a strategy's repr stays readable."""

    def __init__(self, name: object) -> None:
        self.name = name

    def __repr__(self) -> str:
        return str(self.name)
