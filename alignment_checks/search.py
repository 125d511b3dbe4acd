"""Draw, evaluate in batches, shrink, confirm. Knows perturbations and judgements, not how either comes about.

Hypothesis draws; everything after that happens in our own domain, in rounds of one batch each, because a training run
is dear and a batch of them is hardly dearer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from hypothesis import HealthCheck, Phase, Verbosity, currently_in_test_context, given, seed, settings
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider
from hypothesis.strategies import SearchStrategy

from alignment_checks.perturbations import IDENTITY, Perturbation, reattached
from alignment_checks.perturbations.composition import assembled
from alignment_checks.perturbations.value import draws_whole
from alignment_checks.progress import Budget, OutOfTimeError, Watch
from alignment_checks.shrinking import Direction, Domain, Evaluate, Searched, Shrinking, direction

Kind = tuple[str, tuple[tuple[str, object], ...]]


DONORS = 10
"""Draws from which a stored perturbation gets back what it lost on its way through a file."""


def search(
    strategy: SearchStrategy[Perturbation],
    evaluate: Evaluate,
    confirm: Evaluate,
    *,
    examples: int = 100,
    random_seed: int = 0,
    resolution: float = 0.01,
    first: Iterable[Perturbation] = (),
    shrink: bool = False,
    budget: Budget | None = None,
    watch: Watch | None = None,
) -> Searched:
    """Search `strategy` for the smallest perturbation that fails.

    Parameters
    ----------
    strategy : strategy of Perturbation
    evaluate : callable
        From a batch of perturbations to their judgements.
    confirm : callable
        The same, trained afresh.
    examples : int
        Perturbations that Hypothesis draws; 0 judges `first` alone, without shrinking unless `shrink`.
    random_seed : int
        The plan of the search depends on `examples` and this alone.
    resolution : float in (0, 1)
        Relative resolution of the smallest failing magnitude.
    first : iterable of Perturbation
        Tried before any drawn one; what they lost on their way through a file is found again among the draws.
    shrink : bool
        Shrink also where `examples` is 0: what fails of `first`, between the magnitudes that `first` spans.
    budget : Budget, optional
        The time is looked at before each batch; it never changes what the batches are. Once it is over, what was found
        by then is the result. The first batch is always judged.
    watch : callable, optional
        Told of the search's `Progress` before each batch trains, and after it.

    Raises
    ------
    TypeError
        If `strategy` is no strategy, or yields something else than perturbations.
    ValueError
        If there is nothing to judge.
    """
    _check_strategy(strategy)
    known = list(first)
    draws = drawn(strategy, examples or DONORS, random_seed) if examples or not all(d.is_whole for d in known) else []
    known = [delta if delta.is_whole else reattached(delta, draws) for delta in known]
    if examples == 0 and not known:
        raise ValueError("nothing to judge: examples=0 judges `first` alone, and `first` is empty")
    draws = draws if examples else []
    whole = draws_whole(strategy)
    corners, domain = (_corners(draws), {}) if whole else ([], _domain(draws or known))
    state = Shrinking(evaluate, resolution, domain, budget, watch)
    if examples == 0 and not shrink:
        state.judge(known)
        return state.outcome(confirm)
    try:
        _pursue(state, [*known, IDENTITY, *corners, *draws])
    except OutOfTimeError:
        state.stopped = True
    return state.outcome(confirm)


def _pursue(state: Shrinking, plan: Sequence[Perturbation]) -> None:
    """Judge what is planned, and shrink what fails of it."""
    state.planned = len(set(plan))
    state.judge(plan)
    if state.failing():
        state.drop_components()
        state.descend()
        state.climb()


# ------------------------------------------------------------------------------------------------------------- drawing


class Unbiased(HypothesisProvider):
    """Hypothesis's own draws, less the constants that it picks up from whatever modules of the user are imported.

    Those would make the draws of one test depend on which other tests were collected beside it.
    """

    def _maybe_draw_constant(self, *_: object, **__: object) -> None:
        return None


BACKEND = "alignment-checks"
AVAILABLE_PROVIDERS[BACKEND] = f"{Unbiased.__module__}.{Unbiased.__qualname__}"


def drawn(strategy: SearchStrategy[Perturbation], examples: int, random_seed: int) -> list[Perturbation]:
    """Return what Hypothesis draws, without repetition; the same for the same arguments.

    It works also inside a test that uses `@given` itself.

    Raises
    ------
    TypeError
        If `strategy` is no strategy, or yields something else than perturbations.
    """
    _check_strategy(strategy)
    values: dict[Perturbation, None] = {}

    def draw() -> None:
        @seed(random_seed)
        @settings(
            max_examples=examples,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            derandomize=False,
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
            backend=BACKEND,
        )
        @given(strategy)
        def collect(delta: object) -> None:
            values[_checked(delta, strategy)] = None

        collect()

    if currently_in_test_context():
        _in_thread(draw)  # a `@given` within a `@given` fails a health check of the outer one
    else:
        draw()
    return list(values)


def _check_strategy(strategy: object) -> None:
    if not isinstance(strategy, SearchStrategy):
        raise TypeError(
            "expected a strategy of perturbations, such as pt.label_noise(max_rate=0.05); got "
            f"{type(strategy).__name__} {strategy!r:.60}. A single drawn perturbation is passed as delta="
        )


def _checked(delta: object, strategy: object) -> Perturbation:
    if not isinstance(delta, Perturbation):
        raise TypeError(
            f"expected a strategy of perturbations; {strategy!r:.80} drew {type(delta).__name__} {delta!r:.60}. "
            "The functions of alignment_checks.perturbations return such strategies"
        )
    return delta


def _in_thread(work: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, name="alignment-checks draws")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _corners(draws: Sequence[Perturbation]) -> list[Perturbation]:
    """Return the ends of each drawn family's domain: every part at its limit, and at −limit where draws go below 0."""
    signed = {_kind(p) for delta in draws for p in delta.parts if (p.magnitude or 0) < 0}
    shapes = {tuple(map(_kind, delta.parts)): delta for delta in reversed(draws)}
    corners = []
    for shape, delta in shapes.items():
        corners.append(_at_limit(delta, set()))
        if any(part in signed for part in shape):
            corners.append(_at_limit(delta, signed))
    return corners


def _domain(draws: Sequence[Perturbation]) -> Domain:
    """Return between which magnitudes each family was drawn, on each side: all that is known of a filtered strategy."""
    sizes: dict[Direction, list[float]] = {}
    for part in (part for delta in draws for part in delta.parts):
        sizes.setdefault(direction(part), []).append(abs(part.magnitude or 0.0))
    return {which: (min(found), max(found)) for which, found in sizes.items()}


def _at_limit(delta: Perturbation, negative: set[Kind]) -> Perturbation:
    """Return δ with every part at its limit, those of the given kinds at −limit."""
    return assembled([part.at((-1 if _kind(part) in negative else 1) * (part.limit or 0.0)) for part in delta.parts])


def _kind(part: Perturbation) -> Kind:
    return part.family, part.options
