"""What a verdict says, as lines for people: findings with their numbers, doubts, and where the limit is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from alignment_checks.exploration.confirmation import Curve, Searched
from alignment_checks.exploration.progress import Judged
from alignment_checks.findings import Finding, Point
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.inference.quantities import Quantity, number, off_by, padded
from alignment_checks.inference.readings import Reading
from alignment_checks.inference.settling import outlook_line
from alignment_checks.measures import SIDES
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.composition import acting
from alignment_checks.properties.experiment import Experiment
from alignment_checks.properties.sides import Sides
from alignment_checks.setups.descent import pursues_gradient
from alignment_checks.setups.trainable import checked
from alignment_checks.training import TrainingSetup

Describe = Callable[[Reading], tuple[str, ...]]

UNPERTURBED = "trained and scored on L"
MOST = 5
"""Of what was not confirmed, so many are named."""


def one_run(asked: int) -> str:
    """Return the note of a setup that does not depend on its seed."""
    return f"one run is enough: {asked} seeds were asked for, but training does not depend on the seed"


def points(curve: Curve) -> tuple[Point, ...]:
    """Return a degradation curve as it is reported."""
    return tuple(Point(magnitude, at.deviation, at.allowed, str(at.status)) for magnitude, at in curve)


def settling(experiment: Experiment, quantity: Quantity, delta: Perturbation | None) -> tuple[str, ...]:
    """Return whether the limit has settled, of the unperturbed runs and of those under δ; else what it would take."""
    lines = [limit_line(experiment, quantity, IDENTITY, f"{'limit':<15}")]
    if delta is not None and delta != IDENTITY:
        lines.append(limit_line(experiment, quantity, delta, f"{'limit under δ':<15}"))
    return tuple(filter(None, lines))


def limit_line(experiment: Experiment, quantity: Quantity, delta: Perturbation, head: str) -> str:
    """Return `head` and whether the limit under δ has settled; "" where its runs were not kept."""
    excerpt = experiment.excerpt(delta)
    if excerpt is None:
        return ""
    (reading,) = experiment.readings([delta])
    return head + outlook_line(quantity, reading, excerpt)


def finding(experiment: Experiment, quantity: Quantity, describe: Describe, judged: Judged) -> Finding:
    """Return what is reported of a perturbation that failed when it was trained afresh."""
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
        seeds=tuple(experiment.seeds),
        p_value=judgement.p_value,
        details=(*describe(reading), *_details(experiment.sides, quantity, judgement, reference, reading)),
        backend="lanes" if experiment.key(delta) in experiment.in_lanes else "loop",
    )


# -------------------------------------------------------------------------------------------------- numbers for people


def _details(sides: Sides, quantity: Quantity, judgement: Judgement, reference: Reading, reading: Reading) -> list[str]:
    forms = [quantity, quantity.other_form]
    if quantity.name == "alignment":
        forms += [replace(quantity, name="capability", of=of, normalized=False) for of in SIDES]
    if reading is reference:  # the unperturbed run itself: there is nothing that it could be off by
        lines = [f"{form.symbol()} = {shown(form, reading)}" for form in forms]
    else:
        judged = _is_judged(quantity, judgement, reference, reading)
        most = [judgement.allowed if judged and form is quantity else math.nan for form in forms]
        lines = [_pair(sides, *one, reference, reading) for one in zip(forms, most, strict=True)]
        lines[0] += f", allowed {_allowed(judgement)}" if judged else ""
    lines += [judgement.note] * bool(judgement.note)
    return [
        *lines,
        *_chance(judgement, reading),
        _placed(sides) if reading is not reference else UNPERTURBED,
    ]


def _chance(judgement: Judgement, reading: Reading) -> list[str]:
    if judgement.p_value is None:
        return []
    seeds = len(reading.base)
    if seeds > 1:
        return [f"p = {judgement.p_value:.2g}, on {seeds} seeds that took no part in finding it"]
    return [f"p = {judgement.p_value:.2g}, of limits estimated from one run each, corrected for the number searched"]


def _placed(sides: Sides) -> str:
    return f"trained on L{'+δ' * sides.mesa}, scored on L{'+δ' * sides.base}"


def _is_judged(quantity: Quantity, judgement: Judgement, reference: Reading, reading: Reading) -> bool:
    """Return whether it is the quantity itself that was judged against the unperturbed run, and not against a bound."""
    pair = quantity.read(reference).value, quantity.read(reading).value
    return math.isfinite(judgement.deviation) and pair == (judgement.reference, judgement.value)


def _pair(sides: Sides, quantity: Quantity, allowed: float, reference: Reading, reading: Reading) -> str:
    base, mesa = "L" + "+δ" * sides.base, "G" + "+δ" * sides.mesa
    x, y = quantity.read(reference).value, quantity.read(reading).value
    left = padded(f"{quantity.symbol()} = {shown(quantity, reference)}", 24)
    right = padded(f"{quantity.symbol(base, mesa)} = {shown(quantity, reading)}", 28)
    return f"{left}  {right}  {'' if reading.diverged else off_by(x, y, allowed)}".rstrip()


def shown(quantity: Quantity, reading: Reading, digits: int = 4) -> str:
    """Return a reading's quantity for people: a divergence by its name, a limit with its interval."""
    ratio = quantity.read(reading)
    if reading.diverged or ratio.low == ratio.high or math.isnan(ratio.value):
        return reading.outcome if reading.diverged else number(ratio.value, digits)
    return f"{number(ratio.value, digits)} [{number(ratio.low, digits)}, {number(ratio.high, digits)}]"


def _allowed(judgement: Judgement) -> str:
    if judgement.reference != 0:
        return f"{100 * judgement.allowed / abs(judgement.reference):.4g} %"
    return number(judgement.allowed)


def unperturbed(experiment: Experiment, quantity: Quantity, describe: Describe, result: Searched) -> tuple[str, ...]:
    """Return what the unperturbed runs measure, and where δ was applied if any was tried."""
    (reading,) = experiment.readings([IDENTITY])
    forms = (quantity, quantity.other_form)
    values = "   ".join(f"{form.symbol()} = {shown(form, reading)}" for form in forms)
    return (*describe(reading), values, _placed(experiment.sides) if result.perturbed else UNPERTURBED)


def doubts(result: Searched, status: Status) -> list[str]:
    """Return what could not be decided, and what would decide it."""
    notes = _shortened(result)
    for delta, judgement in result.unconfirmed[:MOST]:
        why = f"; {judgement.needs}" if judgement.needs and status is not Status.FAIL else ""
        notes.append(f"failed once, but not when trained afresh: {acting(delta).described()}{why}")
    notes += _looked_again(result.looked_again)
    if result.undecided is not None and status is not Status.FAIL:
        delta, judgement = result.undecided
        doubtful = judgement.p_value is not None  # its interval is outside, but one of so many may be by chance
        why = judgement.note or ("it may be chance" if doubtful else "its interval straddles the tolerance")
        others = f"{result.open - 1} {'more is' if result.open == 2 else 'more are'} undecided" * (result.open > 1)
        under = "unperturbed" if delta.is_identity else f"under {acting(delta).described()}"
        told = f"not judged {under}: {why}", judgement.needs, others
        if judgement.baseless:  # nor is any other
            told = "nothing to compare with", why, judgement.needs
        notes.append("; ".join(filter(None, told)))
    return notes


def _looked_again(looked: Sequence[Judged]) -> list[str]:
    """Return what became of what its seeds left open, and others were asked about: a line for each outcome."""
    names = {status: [acting(d).described() for d, j in looked if j.status is status] for status in _AGAIN}
    return [f"{words}: {', '.join(names[status])}" for status, words in _AGAIN.items() if names[status]]


_AGAIN = {
    Status.FAIL: "undecided on the seeds of the search, fails on others (not shrunk)",
    Status.PASS: "undecided on the seeds of the search, holds on others",
    Status.INCONCLUSIVE: "undecided on the seeds of the search, and on others too",
}


def _shortened(result: Searched) -> list[str]:
    """Return what a search that ran out of time left undone."""
    if not result.stopped:
        return []
    many = f"{result.judged} {'perturbation' if result.judged == 1 else 'perturbations'}"
    tried = f"stopped early: the time ran out after {many}"
    if result.minimal is None and result.judged < result.planned:
        return [f"stopped early: {result.judged} of {result.planned} planned perturbations were tried"]
    return [tried] + ["what failed was not trained afresh"] * (not result.confirmed)


def caveats(setup: TrainingSetup) -> list[str]:
    """Return what has to be known to read L and G of this setup."""
    notes = []
    if setup.record_every > 1:
        notes.append(f"L and G are recorded every {setup.record_every} steps, and assumed linear in between")
    if not pursues_gradient(checked(setup)):
        notes.append(f"{setup.mesa.name} is not this optimizer's own objective (G); ac.step_l1 is, for any optimizer")
    return notes
