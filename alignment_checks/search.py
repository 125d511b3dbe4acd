"""Draw, evaluate in batches, shrink, confirm. Knows perturbations and judgements, not how either comes about.

Hypothesis draws; everything after that happens in our own domain, in rounds of one batch each, because a training run
is dear and a batch of them is hardly dearer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import is_dataclass

from hypothesis import HealthCheck, Phase, Verbosity, currently_in_test_context, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider
from hypothesis.strategies import SearchStrategy

from alignment_checks.exploration.adversary import pursue_worst
from alignment_checks.exploration.conditions import conditions, draws_whole
from alignment_checks.exploration.confirmation import Confirmation, Searched
from alignment_checks.exploration.knowledge import Evaluate, Knowledge
from alignment_checks.exploration.progress import Budget, OutOfTimeError, Watch
from alignment_checks.exploration.rounds import WIDE, Plan
from alignment_checks.exploration.sampling import Domain, corners, randomness, spread
from alignment_checks.exploration.shrinking import ROUNDS, Shrinking
from alignment_checks.inference.chance import LEVEL, Chance
from alignment_checks.perturbations import IDENTITY, Perturbation, reattached
from alignment_checks.setups.sameness import alike

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
    plan: Plan = WIDE,
    level: float = LEVEL,
    same: Callable[[Perturbation], Hashable] | None = None,
    same_seeds: bool = False,
    drawn_from: Sequence[SearchStrategy[Perturbation]] = (),
) -> Searched:
    """Search `strategy` for the smallest perturbation that fails.

    Parameters
    ----------
    strategy : strategy of Perturbation
    evaluate : callable
        From a batch of perturbations to their judgements.
    confirm : callable
        The same, trained afresh; where chance has a part, under seeds that took none in finding it.
    examples : int
        Perturbations that Hypothesis draws; 0 judges `first` alone, without shrinking unless `shrink`. Where nothing
        fails, at most as many are judged again near the worst seen.
    random_seed : int
        What is judged depends on `examples`, this, `plan` and the judgements alone.
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
    plan : Plan
        How wide the rounds are.
    level : float
        How often chance alone may make what holds fail.
    same : callable, optional
        From a perturbation to what it shares with those that come to the same run; each run is judged once.
    same_seeds : bool
        Whether `confirm` trains under the seeds of `evaluate`: then it also judges what is left, in the same batch, and
        what chance has a part in counts as picked among all that can be searched, a number fixed before any is judged.
    drawn_from : sequence of strategies of Perturbation
        What drew `first`, where that was not `strategy`: the search keeps to the filters of these in its place.

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
    if examples == 0 and not shrink:
        state = Knowledge(evaluate, budget, watch, same, Chance(level, len(known) if same_seeds else None))
        state.judge(known)
        return Confirmation(state).outcome(confirm)
    beside: list[Perturbation] = []
    domain = Domain.of(draws or known, whole=draws_whole(strategy), conditions=conditions(*(drawn_from or [strategy])))
    ends = corners(draws, domain)
    always = [*known, IDENTITY, *ends[: plan.corners]]
    planned = [*ends[plan.corners :], *spread(draws, domain, random_seed)]
    most = len({*always, *planned}) + examples + plan.width * ROUNDS + plan.curve  # near the worst, and while shrinking
    state = Knowledge(evaluate, budget, watch, same, Chance(level, most if same_seeds else None))
    try:
        _look(state, plan, always, planned, corners=bool(ends))
        if not (state.failing() or state.baseless()):
            pursue_worst(state, domain, examples, random_seed)
        if state.failing():
            shrinking = Shrinking(state, plan, resolution, domain, randomness("reseed", random_seed))
            beside = _shrink(shrinking, same_seeds=same_seeds)
    except OutOfTimeError:
        state.stopped = True
    return Confirmation(state).outcome(confirm, beside)


def _look(
    state: Knowledge, plan: Plan, always: Sequence[Perturbation], draws: Sequence[Perturbation], *, corners: bool
) -> None:
    """Judge what is always tried and then the draws, in batches, until something fails, or nothing can be judged."""
    state.planned = len({*always, *draws})
    for batch in plan.batches(draws, corners=corners):
        state.judge([*always, *batch])
        if state.failing() or state.baseless():
            return


def _shrink(shrinking: Shrinking, *, same_seeds: bool) -> list[Perturbation]:
    """Make what fails smaller; return what is left to judge beside what is confirmed: the degradation curves."""
    shrinking.drop_components()
    shrinking.descend()
    if same_seeds:
        return shrinking.curve()
    shrinking.state.judge(shrinking.curve())
    return []


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
    ValueError
        If it yields two functions of the same name.
    """
    _check_strategy(strategy)
    values: list[Perturbation] = []

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
            values.append(_checked(delta, strategy))

        collect()

    try:
        if currently_in_test_context():
            _in_thread(draw)  # a `@given` within a `@given` fails a health check of the outer one
        else:
            draw()
    except Unsatisfiable:
        raise Unsatisfiable(
            f"{strategy!r:.200} drew no perturbation: its filters let none through. Loosen them"
        ) from None
    check_names(values, {})
    return list(dict.fromkeys(values))


def _check_strategy(strategy: object) -> None:
    if not isinstance(strategy, SearchStrategy):
        one = isinstance(strategy, Perturbation)
        came = f"one perturbation, {strategy}" if one else f"{type(strategy).__name__} {strategy!r:.60}"
        raise TypeError(
            "expected a strategy of perturbations, such as pt.label_noise(max_rate=0.05); got "
            f"{came}. {_instead_of(strategy)}"
        )


def _instead_of(strategy: object) -> str:
    if callable(strategy):
        return "A family is called, pt.init_seed(); another objective L′ goes into pt.objective_mix(…)"
    if isinstance(strategy, (list, tuple, set)):
        return "Several are one by hypothesis.strategies.one_of(…), or applied at once by pt.compose(…)"
    return "A single drawn perturbation is passed as delta="


def _checked(delta: object, strategy: object) -> Perturbation:
    if not isinstance(delta, Perturbation):
        raise TypeError(
            f"expected a strategy of perturbations; {strategy!r:.80} drew {type(delta).__name__} {delta!r:.60}. "
            "The functions of alignment_checks.perturbations return such strategies"
        )
    return delta


def check_names(deltas: Iterable[Perturbation], held: dict[Hashable, object]) -> None:
    """Raise ValueError where two functions go by one name: no verdict could say which of them failed.

    `held` is what went by each name before.
    """
    for part in (part for delta in deltas for part in delta.parts if part.payload is not None):
        other = held.setdefault((part.family, part.options), part.payload)
        if other is not part.payload and _content(other) != _content(part.payload):
            name = dict(part.options).get("apply", dict(part.options).get("other"))
            raise ValueError(
                f"{part.family}: two different functions both go by the name {name}, by which verdicts and replays "
                "would take them for one. Give each a name of its own: a `def` instead of a lambda, functools.partial "
                "instead of a closure, or another `name` of custom"
            )


def _content(payload: object) -> Hashable:
    return alike(list(vars(payload).values()) if is_dataclass(payload) else payload)


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
