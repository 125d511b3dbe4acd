"""What a strategy is made of and filtered by, so that the search keeps to it where it goes beyond what was drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, pairwise, repeat, takewhile
from typing import TypeGuard

from hypothesis.errors import HypothesisDeprecationWarning, UnsatisfiedAssumption
from hypothesis.strategies import SearchStrategy
from hypothesis.strategies._internal.core import CompositeStrategy
from hypothesis.strategies._internal.lazy import unwrap_strategies
from hypothesis.strategies._internal.strategies import FilteredStrategy, OneOfStrategy

from alignment_checks.inspection.hints import noted
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled, draw_together
from alignment_checks.perturbations.family import Drawn, drawn_by

Condition = Callable[[Perturbation], bool]
Strategy = SearchStrategy[Perturbation]


def draws_whole(strategy: Strategy) -> bool:
    """Return whether a strategy draws everything up to its families' limits: not where it was filtered or mapped."""
    return all(_composes(one) or isinstance(one, OneOfStrategy) or _family_of(one) for one in _made_of(strategy))


def conditions(*strategies: Strategy) -> tuple[Condition, ...]:
    """Return what all that is drawn meets, for each of the strategies that was filtered, or is made of such.

    What was filtered before it was mapped is not asked: that says nothing of what comes out.
    """
    return tuple(partial(_draws, strategy) for strategy in strategies if any(map(_filters, _made_of(strategy))))


def _made_of(strategy: Strategy) -> set[Strategy]:
    """Return what a strategy joins, composes and filters, and itself; each once, since it may be made of itself."""
    found: set[Strategy] = set()
    left = [strategy]
    while left:
        if (inner := _unwrapped(left.pop())) not in found:
            found.add(inner)
            left += [one for one in _next(inner) if not one.is_empty]
    return found


def _unwrapped(strategy: Strategy) -> Strategy:
    inner: Strategy = unwrap_strategies(strategy)  # type: ignore[no-untyped-call]
    return inner


def _next(inner: Strategy) -> Sequence[Strategy]:
    if isinstance(inner, FilteredStrategy):
        return [inner.filtered_strategy]
    if isinstance(inner, OneOfStrategy):
        return inner.original_strategies
    return inner.args if _composes(inner) else ()


def _composes(inner: Strategy) -> TypeGuard[CompositeStrategy]:
    return isinstance(inner, CompositeStrategy) and inner.definition is draw_together


def _family_of(inner: Strategy) -> Drawn | None:
    return drawn_by(getattr(inner, "definition", None))


def _filters(inner: Strategy) -> tuple[Condition, ...]:
    """Return what a strategy itself is filtered by; of `sampled_from` and `just`, what follows the last `.map`."""
    if isinstance(inner, FilteredStrategy):
        return inner.flat_conditions
    steps = getattr(inner, "_transformations", ())
    return tuple(step[1] for step in takewhile(lambda step: step[0] == "filter", reversed(steps)))


def _draws(strategy: Strategy, delta: Perturbation, asked: frozenset[object] = frozenset()) -> bool:
    """Return whether a strategy may draw δ, as far as it can be seen: by families and filters, not by magnitudes.

    What is `asked` already, and asked again while it is found out, adds nothing: a strategy may be made of itself.
    """
    inner = _unwrapped(strategy)
    if (inner, delta) in asked:
        return False
    return _made_by(inner, delta, asked | {(inner, delta)}) and all(_meets(one, delta) for one in _filters(inner))


def _made_by(inner: Strategy, delta: Perturbation, asked: frozenset[object]) -> bool:
    """Return whether a strategy may draw δ, its own filters apart."""
    if isinstance(inner, FilteredStrategy):
        return _draws(inner.filtered_strategy, delta, asked)
    if isinstance(inner, OneOfStrategy):
        return any(_draws(branch, delta, asked) for branch in inner.original_strategies)
    if _composes(inner):
        ways = _shared_out(delta.parts, len(inner.args))
        return any(all(map(_draws, inner.args, shares, repeat(asked))) for shares in ways)
    family = _family_of(inner)
    return family is None or [family] == [(part.family, part.options, part.limit) for part in delta.parts]


def _shared_out(parts: Sequence[Perturbation], among: int) -> Iterator[list[Perturbation]]:
    """Yield the ways to share parts out among so many in order, at least one to each."""
    for cuts in combinations(range(1, len(parts)), among - 1):
        ends = [0, *cuts, len(parts)]
        yield [assembled(list(parts[start:end])) for start, end in pairwise(ends)]


def _meets(condition: Callable[[Perturbation], object], delta: Perturbation) -> bool:
    """Return what a user's condition says of δ; what it assumes to be otherwise is not drawn.

    Hypothesis asks it within a test, where `assume` belongs; whatever else it raises is the user's to see.
    """
    asked = noted(f"raised by a condition that a strategy is filtered by, asked of {delta!r}, which was not drawn")
    try:
        with asked, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using `assume` outside", HypothesisDeprecationWarning)
            return bool(condition(delta))
    except UnsatisfiedAssumption:
        return False


def as_drawn(delta: Perturbation, draws: Sequence[Perturbation]) -> Perturbation:
    """Return δ in the form in which it is drawn: with the parts that were dropped, at 0.

    `draws` are one of each form; where none of them has all of its parts, δ is returned as it is.
    """
    for draw in sorted(draws, key=lambda one: len(one.parts)):
        left = list(delta.parts)
        parts = [left.pop(0) if left and _is_alike(left[0], part) else part.at(0.0) for part in draw.parts]
        if not left:
            return assembled(parts)
    return delta


def _is_alike(one: Perturbation, other: Perturbation) -> bool:
    return (one.family, one.options) == (other.family, other.options)
