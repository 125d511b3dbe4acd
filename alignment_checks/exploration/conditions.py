"""What a strategy was filtered by, so that the search keeps to it where it goes beyond what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis.strategies import SearchStrategy
from hypothesis.strategies._internal.lazy import unwrap_strategies
from hypothesis.strategies._internal.strategies import FilteredStrategy, OneOfStrategy

from alignment_checks.perturbations import Perturbation

Condition = Callable[[Perturbation], object]


def conditions(strategy: SearchStrategy[Perturbation]) -> tuple[Condition, ...]:
    """Return the conditions that everything drawn meets: those of `.filter`, over a union too.

    What strategies were filtered by before they were mapped or composed is not among them: it says nothing of what
    comes out. Nor is what holds of some branches of a union alone.
    """
    inner = unwrap_strategies(strategy)  # type: ignore[no-untyped-call]
    if isinstance(inner, FilteredStrategy):
        return (*conditions(inner.filtered_strategy), *inner.flat_conditions)
    if isinstance(inner, OneOfStrategy):
        first, *others = [conditions(branch) for branch in inner.original_strategies]
        return tuple(one for one in first if all(one in branch for branch in others))
    return ()


def as_drawn(delta: Perturbation, draws: Sequence[Perturbation]) -> Perturbation:
    """Return δ in the form in which it is drawn: with the parts that were dropped, at 0.

    `draws` are one of each form; where none of them has all of its parts, δ is returned as it is.
    """
    for draw in sorted(draws, key=lambda one: len(one.parts)):
        left = list(delta.parts)
        parts = [left.pop(0) if left and _is_alike(left[0], part) else part.at(0.0) for part in draw.parts]
        if not left:
            return parts[0] if len(parts) == 1 else Perturbation("compose", None, None, 0, components=tuple(parts))
    return delta


def _is_alike(one: Perturbation, other: Perturbation) -> bool:
    return (one.family, one.options) == (other.family, other.options)
