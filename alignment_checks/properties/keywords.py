"""The one strategy that a property was given: by its keyword, where δ is applied, and what a statement calls it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import acting
from alignment_checks.properties.options import Strategy
from alignment_checks.properties.sides import BASE, BOTH, MESA, Sides


def under_sides(
    under: Strategy | None,
    mesa_under: Strategy | None,
    base_under: Strategy | None,
    delta: Perturbation | None,
    beside: Sequence[Perturbation],
) -> tuple[Strategy, Sides, str]:
    """Return the one strategy that was given, where its δ is applied, and what the statement calls it.

    `beside` is what is judged beside a given δ.
    """
    given = (
        ("under", under, BOTH, ""),
        ("mesa_under", mesa_under, MESA, " in training alone"),
        ("base_under", base_under, BASE, " in scoring alone"),
        ("delta", None if delta is None else _just(delta), BOTH, ""),
    )
    chosen = [(strategy, sides, words) for _, strategy, sides, words in given if strategy is not None]
    if len(chosen) != 1:
        names = [name for name, strategy, _, _ in given if strategy is not None]
        raise TypeError(
            f"expected exactly one of under=, mesa_under=, base_under= (strategies) and delta= (one perturbation); got "
            f"{', '.join(names) or 'none'}"
        )
    strategy, sides, words = chosen[0]
    return strategy, sides, f"{_named(strategy, delta, beside)}{words}"


def to_strategy(
    to: Strategy | None, delta: Perturbation | None, beside: Sequence[Perturbation]
) -> tuple[Strategy, str]:
    """Return the strategy of L′, and what the statement calls it; `beside` as in `under_sides`."""
    if (to is None) == (delta is None):
        raise TypeError("expected exactly one of to= (a strategy of objectives) and delta= (one perturbation)")
    strategy = to if delta is None else _just(delta)
    assert strategy is not None, "one of the two was given"  # noqa: S101
    return strategy, _named(strategy, delta, beside)


NAMED = 3
"""So many perturbations are named in a statement."""


def _just(delta: Perturbation) -> Strategy:
    if not isinstance(delta, Perturbation):
        raise TypeError(
            f"delta= expects one Perturbation; got {type(delta).__name__}. A strategy goes to under= or to="
        )
    return st.just(delta)


def _named(strategy: Strategy, delta: Perturbation | None, beside: Sequence[Perturbation]) -> str:
    """Return what the statement is about: one that holds is not said to fail where another one does."""
    if delta is None:
        return repr(strategy)
    names = list(dict.fromkeys(acting(one).described() for one in (delta, *beside)))
    more = [f"{len(names) - NAMED} more"] * (len(names) > NAMED)
    return f"each of {', '.join([*names[:NAMED], *more])}" if len(names) > 1 else names[0]
