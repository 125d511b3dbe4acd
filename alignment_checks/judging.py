"""What the properties share: keywords, where δ is applied, how a reading is judged, and the resulting verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from alignment_checks.descent import pursues_gradient
from alignment_checks.experiment import Experiment, Sides
from alignment_checks.measures import Reading, Side, decomposition, matched
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.quantities import Quantity, number, off_by
from alignment_checks.realization import checked, start
from alignment_checks.search import Judged, Searched, search
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import (
    Direction,
    Finding,
    Judgement,
    Status,
    Tolerance,
    Verdict,
    approximately,
    better,
    beyond,
    bounded,
    undecided,
)

Strategy = SearchStrategy[Perturbation]
Judge = Callable[[Reading, Reading], Judgement]
Describe = Callable[[Reading, Reading], tuple[str, ...]]


class Judging(TypedDict, total=False):
    """The keywords common to all checks: see the module's docstring."""

    rtol: float
    atol: float
    side: Direction
    normalized: bool | None
    of: Side
    examples: int
    seeds: int | Sequence[int]
    resolution: float
    random_seed: int
    device: str
    backend: str
    first: Sequence[Perturbation]


@dataclass(frozen=True)
class Options:
    """`Judging`, with its defaults, checked once."""

    rtol: float | None = None
    atol: float = 0.0
    side: Direction = "both"
    normalized: bool | None = None
    of: Side = "base"
    examples: int = 100
    seeds: int | Sequence[int] = 1
    resolution: float = 0.01
    random_seed: int = 0
    device: str = "auto"
    backend: str = "auto"
    first: Sequence[Perturbation] = ()

    def __post_init__(self) -> None:
        if self.of not in ("base", "mesa"):
            raise ValueError(f"`of` must be 'base' (the designer's L) or 'mesa' (the process's own G); got {self.of!r}")
        if isinstance(self.examples, bool) or not isinstance(self.examples, int) or self.examples < 0:
            raise ValueError(f"`examples` must be an int, at least 0; got {self.examples!r}")
        if not isinstance(self.resolution, (int, float)) or not 0 < self.resolution < 1:
            raise ValueError(f"`resolution` must be a number between 0 and 1; got {self.resolution!r}")
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ValueError(f"`seeds` must be at least 1, or a sequence of seeds; got {self.seeds!r}")

    @property
    def tolerance(self) -> Tolerance:
        """When x′ ≈ x."""
        if self.rtol is None and self.atol == 0:
            raise ValueError("say how close counts as ≈: pass rtol= (such as rtol=0.1), atol=, or both")
        return Tolerance(self.rtol or 0.0, self.atol, self.side)

    @property
    def margin(self) -> Tolerance:
        """By how much one setup has to beat another: nothing, unless said."""
        return Tolerance(self.rtol or 0.0, self.atol)

    def seeds_of(self, setup: TrainingSetup) -> list[int]:
        """Return the seeds to run: the setup's own and those that follow it, or those given."""
        return [setup.seed + i for i in range(self.seeds)] if isinstance(self.seeds, int) else list(self.seeds)


BOTH = Sides(mesa=True, base=True)
MESA = Sides(mesa=True, base=False)
BASE = Sides(mesa=False, base=True, kinds=frozenset({"dataset", "objective", "custom"}))
RETRAINED = Sides(mesa=True, base=True, kinds=frozenset({"objective", "custom"}))
RESCORED = Sides(mesa=False, base=True, kinds=frozenset({"objective", "custom"}))


def under_sides(
    under: Strategy | None, mesa_under: Strategy | None, base_under: Strategy | None, delta: Perturbation | None
) -> tuple[Strategy, Sides, str]:
    """Return the one strategy that was given, where its δ is applied, and what the statement calls it."""
    given = {"under": (under, BOTH, ""), "mesa_under": (mesa_under, MESA, " in training alone")}
    given["base_under"] = (base_under, BASE, " in scoring alone")
    given["delta"] = (None if delta is None else _just(delta), BOTH, "")
    chosen = [(strategy, sides, words) for strategy, sides, words in given.values() if strategy is not None]
    if len(chosen) != 1:
        names = [name for name, (strategy, _, _) in given.items() if strategy is not None]
        raise TypeError(
            f"expected exactly one of under=, mesa_under=, base_under= (strategies) and delta= (one perturbation); got "
            f"{', '.join(names) or 'none'}"
        )
    strategy, sides, words = chosen[0]
    return strategy, sides, f"{_named(strategy, delta)}{words}"


def to_sides(to: Strategy | None, delta: Perturbation | None, sides: Sides) -> tuple[Strategy, Sides, str]:
    """Return the strategy of L′, where it is applied, and what the statement calls it."""
    if (to is None) == (delta is None):
        raise TypeError("expected exactly one of to= (a strategy of objectives) and delta= (one perturbation)")
    strategy = to if delta is None else _just(delta)
    assert strategy is not None, "one of the two was given"  # noqa: S101
    return strategy, sides, _named(strategy, delta)


def _just(delta: Perturbation) -> Strategy:
    if not isinstance(delta, Perturbation):
        raise TypeError(
            f"delta= expects one Perturbation; got {type(delta).__name__}. A strategy goes to under= or to="
        )
    return st.just(delta)


def _named(strategy: Strategy, delta: Perturbation | None) -> str:
    return repr(strategy) if delta is None else delta.described()


# ------------------------------------------------------------------------------------------------------- the judgement


def close(quantity: Quantity, reference: Reading, reading: Reading, tolerance: Tolerance) -> Judgement:
    """Judge that a quantity stays ≈, with names for what is not a number."""
    x, y = quantity.read(reference), quantity.read(reading)
    if missing := quantity.missing(reference):
        return undecided(x.value, y.value, f"the unperturbed run: {missing}")
    if reading.diverged:
        return beyond(x.value, tolerance.allowed(x.value), reading.outcome)
    if missing := quantity.missing(reading):
        return undecided(x.value, y.value, missing)
    return approximately(x, y, tolerance, worse=quantity.worse)


def high(quantity: Quantity, reading: Reading, floor: float) -> Judgement:
    """Judge that α is at least `floor`, where both objectives improve: α is positive also where both get worse."""
    alpha, improving = quantity.read(reading).value, bool(reading.base.sum() < 0 and reading.mesa.sum() < 0)
    note = "" if improving else "C_B and C_M are not both negative"
    below = bounded(-alpha, -floor if improving else -math.inf, note)
    return Judgement(below.status, floor, alpha, alpha - floor, 0.0, below.severity, note)


def bearable(reading: Reading, worst: float, within: int) -> Judgement:
    """Judge the highest L of the transient and the last, over all seeds."""
    if reading.diverged:
        return beyond(worst, 0.0, reading.outcome)
    transient = bounded(float(reading.highest.max()), worst, f"the highest L within {within} steps")
    pairs = zip(reading.last.tolist(), reading.first.tolist(), strict=True)
    ends = [bounded(last, min(worst, first), "L(T)") for last, first in pairs]
    return max([transient, *ends], key=lambda judgement: judgement.severity)


def different(a: TrainingSetup, b: TrainingSetup) -> bool:
    """Return whether two setups differ in size, objective or mesa-objective, so that their units differ."""
    sizes = [[tuple(value.shape) for value in checked(setup).parameters.values()] for setup in (a, b)]
    return sizes[0] != sizes[1] or a.objective != b.objective or a.mesa != b.mesa


# ------------------------------------------------------------------------------------------- properties under a search


def robust(
    setup: TrainingSetup,
    strategy: Strategy,
    sides: Sides,
    quantity: Quantity,
    options: Options,
    says: tuple[str, str],
    what: str,
) -> Verdict:
    """Return the verdict on "quantity ≈ under every δ"; `says` is the verb, affirmed and denied."""
    tolerance = options.tolerance
    holds, fails = (f"{quantity} {verb} {what}, {tolerance}" for verb in says)

    def judge(reference: Reading, reading: Reading) -> Judgement:
        return close(quantity, reference, reading, tolerance)

    return searched(setup, strategy, sides, quantity, options, judge, (holds, fails))


def searched(
    setup: TrainingSetup,
    strategy: Strategy,
    sides: Sides,
    quantity: Quantity,
    options: Options,
    judge: Judge,
    says: tuple[str, str],
    *,
    within: int | None = None,
) -> Verdict:
    """Search the strategy for what `judge` fails, and return the verdict."""
    began = time.perf_counter()
    if quantity.normalized:
        _check_normalizable(setup)
    experiment = Experiment(
        setup, sides, options.seeds_of(setup), device=options.device, backend=options.backend, within=within
    )

    def judged(measure: Callable[[Sequence[Perturbation]], list[Reading]]) -> Callable[..., list[Judgement]]:
        def evaluate(deltas: Sequence[Perturbation]) -> list[Judgement]:
            reference, *found = measure([IDENTITY, *deltas])
            return [judge(reference, reading) for reading in found]

        return evaluate

    result = search(
        strategy,
        judged(experiment.readings),
        judged(experiment.fresh),
        examples=options.examples,
        random_seed=options.random_seed,
        resolution=options.resolution,
        first=options.first,
    )
    return _verdict(experiment, quantity, result, says, time.perf_counter() - began)


def _check_normalizable(setup: TrainingSetup) -> None:
    infimum, first = setup.objective_infimum, start(checked(setup))
    if infimum is None or first <= infimum:
        came = "objective_infimum=None" if infimum is None else f"L(0) = {first:g} and L* = {infimum:g}"
        raise ValueError(
            f"the dimensionless form needs L(0) above a stated infimum L* of the objective; got {came}. State "
            "objective_infimum=, or judge the literal form: normalized=False"
        )


def _verdict(
    experiment: Experiment, quantity: Quantity, result: Searched, says: tuple[str, str], seconds: float
) -> Verdict:
    status = Status.PASS
    if result.minimal is not None:
        status = Status.FAIL
    elif result.undecided is not None or result.unconfirmed:
        status = Status.INCONCLUSIVE
    return Verdict(
        status=status,
        statement=says[0],
        denial=says[1],
        minimal=_finding(experiment, quantity, result.minimal),
        worst=_finding(experiment, quantity, result.worst),
        holds_up_to=result.holds_up_to,
        runs=experiment.runs,
        seconds=seconds,
        searched=result.judged,
        steps=experiment.setup.steps,
        where=experiment.where,
        numbers=() if result.minimal else _unperturbed(experiment, quantity),
        notes=(*_doubts(result, status), *_caveats(experiment.setup)),
    )


def _finding(experiment: Experiment, quantity: Quantity, judged: Judged | None) -> Finding | None:
    if judged is None:
        return None
    delta, judgement = judged
    mesa, base = experiment.sides.placed(delta)
    reference, reading = experiment.readings([IDENTITY, delta])
    return Finding(
        perturbation=delta,
        base=base,
        mesa=mesa,
        reference=judgement.reference,
        value=judgement.value,
        deviation=judgement.deviation,
        allowed=judgement.allowed,
        achieved=delta.achieved(experiment.setup),
        details=tuple(_details(experiment.sides, quantity, judgement, reference, reading)),
    )


# -------------------------------------------------------------------------------------------------- numbers for people


def _details(sides: Sides, quantity: Quantity, judgement: Judgement, reference: Reading, reading: Reading) -> list[str]:
    lines = [_pair(sides, form, reference, reading) for form in (quantity, quantity.other_form)]
    lines[0] += f", allowed {_allowed(judgement)}" if _is_judged(quantity, judgement, reading) else ""
    if quantity.name == "alignment":
        lines += [_pair(sides, Quantity("capability", of, False, quantity.steps), reference, reading) for of in _SIDES]
    if judgement.note:
        lines.append(f"{judgement.note}: {_said(judgement)}")
    return [*lines, f"trained on L{'+δ' * sides.mesa}, scored on L{'+δ' * sides.base}"]


_SIDES: tuple[Side, Side] = ("base", "mesa")


def _is_judged(quantity: Quantity, judgement: Judgement, reading: Reading) -> bool:
    """Return whether it is the quantity itself that was judged, and not a bound on something else."""
    return not judgement.note and quantity.read(reading).value == judgement.value


def _said(judgement: Judgement) -> str:
    if math.isinf(judgement.deviation):
        return "the unperturbed run does not"
    return f"{number(judgement.value)}, allowed {number(judgement.reference)}"


def _pair(sides: Sides, quantity: Quantity, reference: Reading, reading: Reading) -> str:
    base, mesa = "L" + "+δ" * sides.base, "G" + "+δ" * sides.mesa
    x, y = quantity.read(reference).value, quantity.read(reading).value
    left, right = f"{quantity.symbol()} = {_value(quantity, reference)}", _value(quantity, reading)
    return f"{left:<26}{quantity.symbol(base, mesa)} = {right}      {off_by(x, y)}"


def _value(quantity: Quantity, reading: Reading) -> str:
    return reading.outcome if reading.diverged else number(quantity.read(reading).value)


def _allowed(judgement: Judgement) -> str:
    if judgement.reference != 0:
        return f"{100 * judgement.allowed / abs(judgement.reference):.4g} %"
    return number(judgement.allowed)


def _unperturbed(experiment: Experiment, quantity: Quantity) -> tuple[str, ...]:
    (reading,) = experiment.readings([IDENTITY])
    forms = (quantity, quantity.other_form)
    return ("   ".join(f"{form.symbol()} = {_value(form, reading)}" for form in forms),)


def _doubts(result: Searched, status: Status) -> list[str]:
    notes = [f"failed once, and not when trained afresh: {delta.described()}" for delta in result.unconfirmed]
    if result.undecided is not None and status is not Status.FAIL:
        delta, judgement = result.undecided
        notes.append(
            f"not judged under {delta.described()}: {judgement.note or 'its interval straddles the tolerance'}"
        )
    return notes


def _caveats(setup: TrainingSetup) -> list[str]:
    if pursues_gradient(checked(setup)):
        return []
    return [f"{setup.mesa.name} is not this optimizer's own objective (G); ac.step_l1 is, for any optimizer"]


# ------------------------------------------------------------------------------------------------- one against another


def compared(
    a: TrainingSetup,
    b: TrainingSetup,
    quantity: Quantity,
    options: Options,
    word: str,
    *,
    unmatched: bool = False,
) -> Verdict:
    """Return the verdict on "a is better than b", with what the difference comes from."""
    began = time.perf_counter()
    seeds = options.seeds_of(a)
    both = [Experiment(s, BOTH, seeds, device=options.device, backend=options.backend) for s in (a, b)]
    left, right = (experiment.readings([IDENTITY])[0] for experiment in both)
    if unmatched and not _matched(left, right):
        quantity = Quantity(quantity.name, quantity.of, True, quantity.steps)
    for setup in (a, b) if quantity.normalized else ():
        _check_normalizable(setup)
    judgement = _ahead(quantity, left, right, options.margin)
    claim = f"{word} than the other{' of=' + repr(quantity.of) if quantity.of != 'base' else ''}"
    form = " in dimensionless form" if quantity.normalized else ""
    return Verdict(
        status=judgement.status,
        statement=f"the setup is {claim}{form}",
        denial=f"the setup is not {claim}{form}",
        minimal=None,
        worst=None,
        holds_up_to=None,
        runs=sum(experiment.runs for experiment in both),
        seconds=time.perf_counter() - began,
        searched=0,
        steps=a.steps,
        where=both[0].where,
        numbers=tuple(_side_by_side(quantity, left, right)),
        notes=tuple([judgement.note] * bool(judgement.note) + list(dict.fromkeys(_caveats(a) + _caveats(b)))),
    )


def _matched(left: Reading, right: Reading) -> bool:
    """Return whether L(0) and G(0) agree, so that literal factors may be compared."""
    return matched(left.first, right.first, 1e-6) and matched(left.mesa_first, right.mesa_first, 1e-6)


def _ahead(quantity: Quantity, left: Reading, right: Reading, margin: Tolerance) -> Judgement:
    for name, reading in (("the setup", left), ("the other", right)):
        if missing := quantity.missing(reading):
            return undecided(math.nan, math.nan, f"{name}: {missing}")
        if quantity.name == "alignment" and not (reading.base.sum() < 0 and reading.mesa.sum() < 0):
            return undecided(math.nan, math.nan, f"{name}: α counts only where C_B < 0 and C_M < 0")
    return better(quantity.read(right), quantity.read(left), margin, worse=quantity.worse)


def _side_by_side(quantity: Quantity, left: Reading, right: Reading) -> list[str]:
    steps, forms = quantity.steps, (False, True)
    shown = [Quantity("capability", of, n, steps) for of in _SIDES for n in forms]
    shown += [Quantity("alignment", "base", n, steps) for n in forms]
    lines = [f"{q.symbol():<16}{_value(q, left):>12}   the other {_value(q, right):>12}" for q in shown]
    for name, a, b in (("L(T)", left.last, right.last), ("G(T)", left.mesa_last, right.mesa_last)):
        lines.append(f"{name:<16}{number(float(a.mean())):>12}   the other {number(float(b.mean())):>12}")
    return [*lines, _decomposed(left, right, normalized=quantity.normalized)]


def _decomposed(left: Reading, right: Reading, *, normalized: bool) -> str:
    found = decomposition(left, right, normalized=normalized)
    if found.refusal:
        return f"no decomposition: {found.refusal}"
    terms = f"Δlog|C_B| {found.base:+.4g} = Δlog|α| {found.alignment:+.4g} + Δlog|C_M| {found.mesa:+.4g}"
    return f"{terms}: the one behind is {found.cause}"
