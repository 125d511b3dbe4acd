"""How a reading under δ is judged, and the verdict that a search of judgements ends in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from alignment_checks.descent import pursues_gradient
from alignment_checks.experiment import Experiment, Memory, Sides
from alignment_checks.judgement import Judgement, Status, Tolerance, approximately, beyond, bounded, undecided
from alignment_checks.measures import Reading, Side
from alignment_checks.options import Options, Strategy
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.plan import FRUGAL, WIDE
from alignment_checks.progress import Budget, Judged, Watch
from alignment_checks.quantities import Quantity, number, off_by, padded
from alignment_checks.realization import checked, start
from alignment_checks.search import search
from alignment_checks.shrinking import Searched
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import Finding, Point, Verdict

Judge = Callable[[Reading, Reading], Judgement]
Describe = Callable[[Reading], tuple[str, ...]]


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
    room = max(0.0, x - floor)
    if not reading.improves:
        return Judgement(Status.FAIL, x, alpha, alpha - x, room, math.inf, "C_B and C_M are not both negative")
    above = bounded(-alpha, -floor)
    note = "" if above.status is Status.PASS else f"α is below the floor, {floor:g}"
    return Judgement(above.status, x, alpha, alpha - x, room, above.severity, note)


def bearable(reading: Reading, worst: float, within: int) -> Judgement:
    """Judge the highest L of the transient and the last, over all seeds."""
    if reading.diverged:
        return beyond(worst, 0.0, reading.outcome)
    highest, ends = float(reading.highest.max()), zip(reading.last.tolist(), reading.first.tolist(), strict=True)
    transient = bounded(highest, worst, f"the highest L within {within} steps is {highest:.4g}, allowed {worst:.4g}")
    last = [
        bounded(at, min(worst, began), f"L ends at {at:.4g}, allowed {min(worst, began):.4g}") for at, began in ends
    ]
    return max([transient, *last], key=lambda judgement: judgement.severity)


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
    describe: Describe = _nothing,
) -> Verdict:
    """Search the strategy for what `judge` fails, and return the verdict; `describe` adds lines about a reading."""
    budget = Budget(options.max_time)
    check_normalizable(quantity, setup)
    experiment = (options.memory or Memory()).experiment(
        setup, sides, options.seeds_of(setup), device=options.device, backend=options.backend, within=within
    )
    before = experiment.runs

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
        budget=budget,
        shrink=options.shrink,
        watch=_counting(options.watch, experiment, before),
        plan=FRUGAL if experiment.device_type == "cpu" else WIDE,
    )
    return replace(_verdict(experiment, quantity, result, says, describe, budget.spent), runs=experiment.runs - before)


def _counting(watch: Watch | None, experiment: Experiment, before: int) -> Watch | None:
    """Return `watch` told also of the runs trained, which only the experiment knows."""
    return None if watch is None else lambda progress: watch(replace(progress, runs=experiment.runs - before))


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
    quantity: Quantity,
    result: Searched,
    says: tuple[str, str],
    describe: Describe,
    seconds: float,
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
        minimal=_finding(experiment, quantity, describe, result.minimal) if result.minimal else None,
        worst=_finding(experiment, quantity, describe, result.worst) if result.worst else None,
        others=tuple(_finding(experiment, quantity, describe, one) for one in result.others),
        curve=tuple(Point(magnitude, at.deviation, at.allowed, str(at.status)) for magnitude, at in result.curve),
        holds_up_to=result.holds_up_to,
        runs=experiment.runs,
        seconds=seconds,
        searched=result.judged,
        steps=experiment.setup.steps,
        where=experiment.where,
        numbers=() if result.minimal else _unperturbed(experiment, quantity, describe),
        notes=(*_doubts(result, status), *caveats(experiment.setup)),
        stopped_early=result.stopped,
        nearest=_finding(experiment, quantity, describe, result.nearest) if result.nearest else None,
    )


def _finding(experiment: Experiment, quantity: Quantity, describe: Describe, judged: Judged) -> Finding:
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
        details=(*describe(reading), *_details(experiment.sides, quantity, judgement, reference, reading)),
    )


# -------------------------------------------------------------------------------------------------- numbers for people


def _details(sides: Sides, quantity: Quantity, judgement: Judgement, reference: Reading, reading: Reading) -> list[str]:
    lines = [_pair(sides, form, reference, reading) for form in (quantity, quantity.other_form)]
    lines[0] += f", allowed {_allowed(judgement)}" if _is_judged(quantity, judgement, reading) else ""
    if quantity.name == "alignment":
        lines += [_pair(sides, Quantity("capability", of, False, quantity.steps), reference, reading) for of in SIDES]
    lines += [judgement.note] * bool(judgement.note)
    return [*lines, _placed(sides)]


def _placed(sides: Sides) -> str:
    return f"trained on L{'+δ' * sides.mesa}, scored on L{'+δ' * sides.base}"


SIDES: tuple[Side, Side] = ("base", "mesa")


def _is_judged(quantity: Quantity, judgement: Judgement, reading: Reading) -> bool:
    """Return whether it is the quantity itself that was judged, and not a bound on something else."""
    return math.isfinite(judgement.deviation) and quantity.read(reading).value == judgement.value


def _pair(sides: Sides, quantity: Quantity, reference: Reading, reading: Reading) -> str:
    base, mesa = "L" + "+δ" * sides.base, "G" + "+δ" * sides.mesa
    x, y = quantity.read(reference).value, quantity.read(reading).value
    left = padded(f"{quantity.symbol()} = {shown(quantity, reference)}", 24)
    right = padded(f"{quantity.symbol(base, mesa)} = {shown(quantity, reading)}", 28)
    return f"{left}  {right}  {'' if reading.diverged else off_by(x, y)}".rstrip()


def shown(quantity: Quantity, reading: Reading) -> str:
    """Return a reading's quantity for people, a divergence by its name."""
    return reading.outcome if reading.diverged else number(quantity.read(reading).value)


def _allowed(judgement: Judgement) -> str:
    if judgement.reference != 0:
        return f"{100 * judgement.allowed / abs(judgement.reference):.4g} %"
    return number(judgement.allowed)


def _unperturbed(experiment: Experiment, quantity: Quantity, describe: Describe) -> tuple[str, ...]:
    (reading,) = experiment.readings([IDENTITY])
    forms = (quantity, quantity.other_form)
    values = "   ".join(f"{form.symbol()} = {shown(form, reading)}" for form in forms)
    return (*describe(reading), values, _placed(experiment.sides))


def _doubts(result: Searched, status: Status) -> list[str]:
    notes = _shortened(result)
    notes += [f"failed once, and not when trained afresh: {delta.described()}" for delta in result.unconfirmed]
    if result.undecided is not None and status is not Status.FAIL:
        delta, judgement = result.undecided
        notes.append(
            f"not judged under {delta.described()}: {judgement.note or 'its interval straddles the tolerance'}"
        )
    return notes


def _shortened(result: Searched) -> list[str]:
    """Return what a search that ran out of time left undone."""
    if not result.stopped:
        return []
    tried = f"stopped early: the time ran out after {result.judged} perturbations"
    if result.minimal is None:
        return [f"stopped early: {result.judged} of {result.planned} planned perturbations were tried"]
    return [tried] + ["what failed was not trained afresh"] * (not result.confirmed)


def caveats(setup: TrainingSetup) -> list[str]:
    """Return what has to be known to read G of this setup."""
    if pursues_gradient(checked(setup)):
        return []
    return [f"{setup.mesa.name} is not this optimizer's own objective (G); ac.step_l1 is, for any optimizer"]
