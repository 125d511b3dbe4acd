"""How a reading under δ is judged, and the verdict that a search of judgements ends in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from alignment_checks.confirmation import Searched
from alignment_checks.evidence import least_level
from alignment_checks.experiment import Experiment, Sides, needed
from alignment_checks.intervals import Interval
from alignment_checks.judgement import (
    Judgement,
    Status,
    Tolerance,
    allowance,
    approximately,
    at_least,
    beyond,
    bounded,
    undecided,
)
from alignment_checks.measures import SIDES
from alignment_checks.memory import Memory
from alignment_checks.options import Options, Strategy
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.progress import Budget, Watch
from alignment_checks.quantities import Quantity
from alignment_checks.readings import Reading
from alignment_checks.realization import realize, start
from alignment_checks.rounds import FRUGAL, WIDE
from alignment_checks.search import drawn, search
from alignment_checks.trainable import checked
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import Outlook, Verdict
from alignment_checks.wording import Describe, caveats, doubts, finding, one_run, points, settling, unperturbed

Judge = Callable[[Reading, Reading], Judgement]


def _nothing(reading: Reading) -> tuple[str, ...]:  # noqa: ARG001
    return ()


# ------------------------------------------------------------------------------------------------------- the judgement


def close(quantity: Quantity, reference: Reading, reading: Reading, tolerance: Tolerance) -> Judgement:
    """Judge that a quantity stays ≈, with names for what is not a number."""
    x, y = quantity.read(reference), quantity.read(reading)
    if missing := quantity.missing(reference):
        return undecided(x.value, y.value, f"the unperturbed run: {missing}")
    if reading.diverged:
        return beyond(x.value, tolerance.allowed(x.value), f"{reading.outcome}; the unperturbed run did not")
    if missing := quantity.missing(reading):
        return undecided(x.value, y.value, missing)
    return approximately(x, y, tolerance, worse=quantity.worse)


def high(quantity: Quantity, reference: Reading, reading: Reading, floor: float) -> Judgement:
    """Judge that α is at least `floor`, where both objectives improve: α is positive also where both get worse."""
    x, alpha = quantity.read(reference).value, quantity.read(reading).value
    if (improves := improving(reading)).status is not Status.PASS:
        return replace(improves, reference=x, value=alpha, deviation=alpha - x, allowed=max(0.0, x - floor))
    above = at_least(quantity.read(reading), floor)
    note = "" if above.status is Status.PASS else f"α is {_BELOW[above.status]} the floor, {floor:g}"
    if not x > floor:  # the unperturbed run is no better: how far α is off the floor says it, not how far off that run
        return replace(above, note=note)
    return replace(above, reference=x, deviation=alpha - x, allowed=x - floor, note=note)


_BELOW = {Status.FAIL: "below", Status.INCONCLUSIVE: "not clearly above"}


def either(first: Judgement, second: Judgement) -> Judgement:
    """Return the judgement of two demands: what fails one of them fails, chance having had two to choose from."""
    chosen = max((first, second), key=lambda judgement: _RANK.index(judgement.status))
    chosen = replace(chosen, severity=max(first.severity, second.severity))
    return chosen if chosen.p_value is None else replace(chosen, p_value=min(1.0, 2 * chosen.p_value))


def improving(reading: Reading) -> Judgement:
    """Judge that C_B and C_M are both negative, beyond their scatter over seeds and their limits' intervals."""
    whole = undecided(math.nan, math.nan, "C_B and C_M are not both negative")
    if reading.improves and len(reading.base) == 1:
        return replace(whole, status=Status.PASS, note="")
    both = [at_least(reading.capability(of, normalized=False).negated, 0.0) for of in SIDES]
    if reading.improves and all(one.status is Status.PASS for one in both):
        return replace(whole, status=Status.PASS, note="")
    failed = [one for one in both if one.status is Status.FAIL]
    level = len(reading.base) == 1 and all(one.status is Status.PASS for one in both)  # no lower than rounding alone
    if failed or level:
        known = [one.p_value for one in failed if one.p_value is not None]
        chance = min(1.0, len(both) * min(known)) if known else None  # chance had two to choose from
        return replace(whole, status=Status.FAIL, severity=math.inf, p_value=chance)
    unsettled = next(filter(None, (reading.unsettled("capability", of) for of in SIDES)), "")
    note = unsettled or "C_B and C_M are not both clearly negative"
    return replace(whole, note=note, needs=next((one.needs for one in both if one.needs), ""))


def bearable(reading: Reading, worst: float, within: int, margin: Tolerance) -> Judgement:
    """Judge the highest L of the transient and the last, over all seeds: one run that is beyond is an example of it."""
    if reading.diverged:
        return beyond(worst, 0.0, reading.outcome)
    highest, ends = float(reading.highest.max()), reading.ends()
    note = f"the highest L within {within} steps is {highest:.4g}, allowed {_most(worst, margin):.4g}"
    last = [
        _ends(end, min(worst, began), margin, len(ends), reading.unsettled("capability", "base"))
        for end, began in zip(ends, reading.first.tolist(), strict=True)
    ]
    judged = [bounded(highest, worst, note, margin), *last]
    return max(judged, key=lambda one: (_RANK.index(one.status), one.p_value is None, one.severity))


_RANK = [Status.PASS, Status.INCONCLUSIVE, Status.FAIL]


def _most(bound: float, margin: Tolerance) -> float:
    return bound + allowance(bound, margin)


def _ends(end: Interval, bound: float, margin: Tolerance, seeds: int, unsettled: str = "") -> Judgement:
    """Judge where L ends, one of so many seeds: at a number, between two, or where nothing tells, and why."""
    most = _most(bound, margin)
    if end.low <= most < end.high:
        between = f"between {end.low:.4g} and {end.high:.4g}" if math.isfinite(end.high) else f"anywhere ({unsettled})"
        return replace(undecided(bound, math.nan, f"L ends {between}, allowed {most:.4g}"), needs="more steps")
    at = end.high if end.high <= most else end.low
    found = bounded(at, bound, f"L ends at {at:.4g}, allowed {most:.4g}", margin)
    chance = least_level([low > most for low, _ in end.stricter]) if found.status is Status.FAIL else None
    return found if chance is None else replace(found, p_value=min(1.0, seeds * chance))


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


SAMPLE = 24
"""Draws by which a strategy is asked whether it makes training random."""


def _randomizes(strategy: Strategy, setup: TrainingSetup, sides: Sides, options: Options) -> bool:
    """Return whether what is tried makes a run depend on its seed: by noise, or by minibatches."""
    plain = realize(setup, setup.seed)
    given = () if options.examples else tuple(options.first)
    for delta in given if given and all(one.is_whole for one in given) else drawn(strategy, SAMPLE, 0):
        sides.check(delta)
        run = delta.applied(plain)
        if run.noise or run.batch_size is not None:
            return True
    return False


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
    describe: Describe = _nothing,
) -> Verdict:
    """Search the strategy for what `judge` fails, and return the verdict; `describe` adds lines about a reading."""
    budget = Budget(options.max_time)
    check_normalizable(quantity, setup)
    asked = options.seeds_of(setup)
    seeds = (
        asked
        if len(asked) > 1 and sides.mesa and _randomizes(strategy, setup, sides, options)
        else needed(asked, setup)
    )
    memory = options.memory or Memory()
    experiment = memory.experiment(
        setup,
        sides,
        seeds,
        device=options.device,
        backend=options.backend,
        within=within,
        horizon=options.horizon,
        planned=options.examples,
    )
    again, before = experiment.afresh(), experiment.runs

    def trained() -> int:
        return experiment.runs - before + (again.runs if again is not experiment else 0)

    def judged(measure: Callable[[Sequence[Perturbation]], list[Reading]]) -> Callable[..., list[Judgement]]:
        def evaluate(deltas: Sequence[Perturbation]) -> list[Judgement]:
            reference, *found = measure([IDENTITY, *deltas])
            return [judge(reference, reading) for reading in found]

        return evaluate

    result = search(
        strategy,
        judged(experiment.readings),
        judged(again.fresh),
        examples=options.examples,
        random_seed=options.random_seed,
        resolution=options.resolution,
        first=options.first,
        budget=budget,
        shrink=options.shrink,
        plan=FRUGAL if experiment.device_type == "cpu" else WIDE,
        watch=_counting(options.watch, trained),
        level=options.level,
        same=experiment.key,
        same_seeds=again is experiment,
    )
    open_ = result.undecided[0] if result.undecided and not result.minimal else IDENTITY
    if options.horizon == "limit" and not result.stopped and experiment.excerpt(open_) is None:
        experiment.fresh([open_])  # so that it can be said how many more steps its limit would take
    both = (experiment, again if result.confirmed else experiment)
    verdict = _verdict(*both, quantity, result, says, describe)
    notes = [one_run(len(asked))] * (len(seeds) < len(asked)) + list(verdict.notes)
    return replace(verdict, notes=tuple(notes), runs=trained(), seconds=budget.spent)


def _counting(watch: Watch | None, trained: Callable[[], int]) -> Watch | None:
    """Return `watch` told also of the runs trained, which only the experiments know."""
    return None if watch is None else lambda progress: watch(replace(progress, runs=trained()))


def check_normalizable(quantity: Quantity, *setups: TrainingSetup) -> None:
    """Raise ValueError where a dimensionless form of L is asked for, and a setup has none; G has a zero of its own."""
    for setup in setups if quantity.normalized and quantity.of == "base" else ():
        infimum, first = setup.objective_infimum, start(checked(setup))
        if infimum is None or first <= infimum:
            came = "objective_infimum=None" if infimum is None else f"L(0) = {first:g} and L* = {infimum:g}"
            raise ValueError(
                f"the dimensionless form needs L(0) above a stated infimum L* of the objective; got {came}. State "
                "objective_infimum=, or judge the literal form: normalized=False"
            )


def _verdict(
    experiment: Experiment,
    again: Experiment,
    quantity: Quantity,
    result: Searched,
    says: tuple[str, str],
    describe: Describe,
) -> Verdict:
    status = Status.PASS
    if result.minimal is not None:
        status = Status.FAIL
    elif result.undecided is not None or result.unconfirmed:
        status = Status.INCONCLUSIVE
    told = again if result.minimal else experiment
    shown = result.minimal or result.undecided
    minimal, worst, *others = (
        None if one is None else finding(again, quantity, describe, one)
        for one in (result.minimal, result.worst, *result.others)
    )
    return Verdict(
        status=status,
        statement=says[0],
        denial=says[1],
        minimal=minimal,
        worst=worst,
        others=tuple(one for one in others if one is not None),
        curve=points(result.curve),
        curve_others=tuple(map(points, result.curve_others)),
        holds_up_to=result.holds_up_to,
        runs=0,
        seconds=0.0,
        searched=result.judged,
        steps=experiment.setup.steps,
        where=experiment.where,
        numbers=() if minimal else unperturbed(experiment, quantity, describe),
        notes=(*doubts(result, status), *caveats(experiment.setup)),
        stopped_early=result.stopped,
        nearest=finding(experiment, quantity, describe, result.nearest) if result.nearest else None,
        p_value=None if worst is None else worst.p_value,
        outlook=Outlook(partial(settling, told, quantity, None if shown is None else shown[0])),
    )
