"""Draw, evaluate in batches, shrink, confirm. Knows perturbations and judgements, not how either comes about.

Hypothesis draws; everything after that happens in our own domain, in rounds of one batch each, because a training run
is dear and a batch of them is hardly dearer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

from alignment_checks.perturbations import IDENTITY, Perturbation, reattached
from alignment_checks.perturbations.composition import assembled
from alignment_checks.verdict import Judgement, Status

Evaluate = Callable[[Sequence[Perturbation]], Sequence[Judgement]]
Judged = tuple[Perturbation, Judgement]
Kind = tuple[str, tuple[tuple[str, object], ...]]

RIVALS = 6
"""How many failing perturbations are shrunk side by side, lest the smallest drawn hide a smaller one."""
RUNGS = 12
"""Magnitudes tried at once along one line."""
ROUNDS = 16
"""Rounds of shrinking at most."""


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes
    ----------
    minimal, worst : (Perturbation, Judgement) or None
        The smallest failing perturbation and the worst; both failed again when trained afresh.
    undecided : (Perturbation, Judgement) or None
        One that could not be judged, where none failed.
    holds_up_to : float or None
        The largest magnitude below which everything tried of the one family held; None where there is no one family.
    judged : int
        Perturbations judged.
    launches : int
        Batches evaluated one after the other.
    unconfirmed : tuple of Perturbation
        Failed once, and not when trained afresh.
    """

    minimal: Judged | None
    worst: Judged | None
    undecided: Judged | None
    holds_up_to: float | None
    judged: int
    launches: int
    unconfirmed: tuple[Perturbation, ...] = ()


def search(
    strategy: SearchStrategy[Perturbation],
    evaluate: Evaluate,
    confirm: Evaluate,
    *,
    examples: int = 100,
    random_seed: int = 0,
    resolution: float = 0.01,
    first: Iterable[Perturbation] = (),
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
        Perturbations that Hypothesis draws; 0 judges `first` alone, without shrinking.
    random_seed : int
        The plan of the search depends on `examples` and this alone.
    resolution : float in (0, 1)
        Relative resolution of the smallest failing magnitude.
    first : iterable of Perturbation
        Tried before any drawn one; what they lost on their way through a file is found again among the draws.
    """
    draws = drawn(strategy, max(1, examples), random_seed)
    known = [reattached(delta, draws) if _incomplete(delta) else delta for delta in first]
    state = _Search(evaluate, resolution)
    if examples == 0:
        state.judge(known)
        return state.outcome(confirm)
    state.judge([*known, IDENTITY, *_corners(draws), *draws])
    if state.failing():
        state.drop_components()
        state.descend()
    return state.outcome(confirm)


# ------------------------------------------------------------------------------------------------------------- drawing


def drawn(strategy: SearchStrategy[Perturbation], examples: int, random_seed: int) -> list[Perturbation]:
    """Return what Hypothesis draws, without repetition; the same for the same arguments.

    In a thread of its own, so that it works also inside a test that uses `@given` itself.

    Raises
    ------
    TypeError
        If `strategy` is no strategy, or yields something else than perturbations.
    """
    if not isinstance(strategy, SearchStrategy):
        raise TypeError(
            "expected a strategy of perturbations, such as pt.label_noise(max_rate=0.05); got "
            f"{type(strategy).__name__} {strategy!r:.60}. A single drawn perturbation is passed as delta="
        )
    values: dict[Perturbation, None] = {}

    @seed(random_seed)
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(delta: object) -> None:
        values[_checked(delta, strategy)] = None

    _in_thread(collect)
    return list(values)


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


def _incomplete(delta: Perturbation) -> bool:
    return any(part.payload is None for part in delta.parts)


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


def _at_limit(delta: Perturbation, negative: set[Kind]) -> Perturbation:
    """Return δ with every part at its limit, those of the given kinds at −limit."""
    return assembled([part.at((-1 if _kind(part) in negative else 1) * (part.limit or 0.0)) for part in delta.parts])


def _kind(part: Perturbation) -> Kind:
    return part.family, part.options


# ----------------------------------------------------------------------------------------------------------- shrinking


@dataclass
class _Line:
    """A failing perturbation, and how far each way of making it smaller has been tried.

    `low[move]` is the largest fraction of the present magnitude at which that move was seen to hold.
    """

    delta: Perturbation
    low: dict[int, float]

    @classmethod
    def at(cls, delta: Perturbation) -> _Line:
        moves = [i for i, part in enumerate(delta.parts) if part.continuous]
        return cls(delta, dict.fromkeys([*moves, -1] if len(moves) > 1 else moves, 0.0))

    def moved(self, move: int, fraction: float) -> Perturbation:
        """Return the perturbation with one part, or with −1 all parts, at a fraction of its magnitude."""
        parts = [
            part.at((part.magnitude or 0.0) * fraction) if part.continuous and move in (i, -1) else part
            for i, part in enumerate(self.delta.parts)
        ]
        return assembled(parts)

    def lowest(self) -> Perturbation:
        """Return a bound on where the line can still go: all parts at the largest fraction that was seen to hold."""
        return self.moved(-1, self.low.get(-1, min(self.low.values(), default=1.0)))

    def rungs(self, resolution: float) -> list[tuple[int, float]]:
        """Return the (move, fraction) pairs to try next; none once every move is resolved."""
        return [
            (move, low + (1 - low) * (rung / (RUNGS + 1)))
            for move, low in self.low.items()
            if 1 - low > resolution
            for rung in range(1, RUNGS + 1)
        ]


class _Search:
    """Everything judged so far, and what to judge next."""

    def __init__(self, evaluate: Evaluate, resolution: float) -> None:
        self.evaluate, self.resolution = evaluate, resolution
        self.known: dict[Perturbation, Judgement] = {}
        self.launches = 0

    def judge(self, deltas: Iterable[Perturbation]) -> None:
        """Judge what is not known yet, in one batch."""
        fresh = [delta for delta in dict.fromkeys(deltas) if delta not in self.known]
        if fresh:
            self.known.update(zip(fresh, self.evaluate(fresh), strict=True))
            self.launches += 1

    def failing(self) -> list[Perturbation]:
        """Return what failed, the smallest first: fewest parts, then least magnitude in units of the limits."""
        return sorted((d for d, j in self.known.items() if j.status is Status.FAIL), key=_order)

    def drop_components(self) -> None:
        """Try the proper subsets of the smallest failing compositions, all at once."""
        composed = [delta for delta in self.failing() if len(_active(delta)) > 1][:RIVALS]
        self.judge(assembled(list(subset)) for delta in composed for subset in _subsets(_active(delta)))
        self.judge(assembled(_active(delta)) for delta in self.failing())

    def descend(self) -> None:
        """Shrink the magnitudes of the smallest failing perturbations side by side, a ladder of each in a round."""
        lines = [_Line.at(delta) for delta in self._rivals()]
        for _ in range(ROUNDS):
            rungs = [(line, line.rungs(self.resolution)) for line in lines]
            if not any(tries for _, tries in rungs):
                break
            self.judge(line.moved(*one) for line, tries in rungs for one in tries)
            lines = self._worth_going_on([self._stepped(line, tries) for line, tries in rungs])

    def _rivals(self) -> list[Perturbation]:
        failing = self.failing()
        fewest = len(_active(failing[0]))
        lines = {_line(d): d for d in reversed(failing) if len(_active(d)) == fewest}
        return [assembled(_active(delta)) for delta in sorted(lines.values(), key=_order)[:RIVALS]]

    def _stepped(self, line: _Line, tries: list[tuple[int, float]]) -> _Line:
        """Return the line after its rungs were judged: moved to the smallest that failed, else better resolved."""
        fails = [(m, f) for m, f in tries if self.known[line.moved(m, f)].status is Status.FAIL]
        low = {move: max([low, *_held_below(tries, fails, move)]) for move, low in line.low.items()}
        if not fails:
            return _Line(line.delta, low)
        move, fraction = min(fails, key=lambda one: _order(line.moved(*one)))
        after = _Line.at(line.moved(move, fraction))
        return _Line(after.delta, {**after.low, move: low[move] / fraction}) if move in after.low else after

    def _worth_going_on(self, lines: list[_Line]) -> list[_Line]:
        """Drop the lines that cannot end below the smallest failure known."""
        best = _order(self.failing()[0])
        return [
            line
            for line in lines
            if _order(line.moved(-1, line.low.get(-1, min(line.low.values(), default=0)))) <= best
        ]

    def outcome(self, confirm: Evaluate) -> Searched:
        """Train the smallest and the worst failures afresh, and return what was found."""
        unconfirmed: list[Perturbation] = []
        failing = self.failing()
        while failing:
            worst = max(failing, key=lambda delta: (self.known[delta].severity, -delta.size))
            again = dict(zip((failing[0], worst), confirm([failing[0], worst]), strict=True))
            lost = [delta for delta, judgement in again.items() if judgement.status is not Status.FAIL]
            if not lost:
                return self._found((failing[0], again[failing[0]]), (worst, again[worst]), unconfirmed)
            unconfirmed += lost
            failing = [delta for delta in failing if delta not in lost]
        return self._found(None, None, unconfirmed)

    def _found(self, minimal: Judged | None, worst: Judged | None, unconfirmed: list[Perturbation]) -> Searched:
        undecided = next((pair for pair in self.known.items() if pair[1].status is Status.INCONCLUSIVE), None)
        held = self._holds_up_to(minimal[0] if minimal else None)
        return Searched(minimal, worst, undecided, held, len(self.known), self.launches, tuple(unconfirmed))

    def _holds_up_to(self, minimal: Perturbation | None) -> float | None:
        """Return the largest magnitude that held, below the smallest that failed, where one family was tried."""
        singles = {(d.family, d.options) for d in self.known if d != IDENTITY}
        if minimal is None and len(singles) != 1:
            return None
        which = next(iter(singles)) if minimal is None else (minimal.family, minimal.options)
        if which[0] in ("compose", "identity"):
            return None
        bound = float("inf") if minimal is None else abs(minimal.magnitude or 0.0)
        held = [
            abs(d.magnitude or 0.0)
            for d, judgement in self.known.items()
            if (d.family, d.options) == which and judgement.status is Status.PASS
        ]
        return max((magnitude for magnitude in held if magnitude < bound), default=0.0)


def _active(delta: Perturbation) -> list[Perturbation]:
    return [part for part in delta.parts if part.magnitude != 0]


def _order(delta: Perturbation) -> tuple[int, float]:
    return len(_active(delta)), delta.size


def _line(delta: Perturbation) -> tuple[object, ...]:
    """Return what stays the same while magnitudes change."""
    return tuple((p.family, p.options, p.seed, (p.magnitude or 0) > 0) for p in _active(delta))


def _subsets(parts: list[Perturbation]) -> list[tuple[Perturbation, ...]]:
    """Return the proper subsets: all of them while they are few, else the smallest and the largest."""
    sizes = range(1, len(parts)) if len(parts) <= 4 else (1, len(parts) - 1)
    return [subset for size in sizes for subset in combinations(parts, size)]


def _held_below(tries: list[tuple[int, float]], fails: list[tuple[int, float]], move: int) -> list[float]:
    """Return the fractions of one move that held, below the smallest of it that failed."""
    bound = min((f for m, f in fails if m == move), default=1.0)
    return [f for m, f in tries if m == move and f < bound]
