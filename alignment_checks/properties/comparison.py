"""One setup against another: which is more capable, which is better aligned, and what the difference comes from."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from alignment_checks.inference.chance import corrected
from alignment_checks.inference.judgement import Judgement, Status, Tolerance, better, undecided
from alignment_checks.inference.quantities import Quantity, number, padded, telling
from alignment_checks.inference.readings import Reading
from alignment_checks.measures import SIDES
from alignment_checks.perturbations import IDENTITY
from alignment_checks.properties.experiment import Experiment, needed
from alignment_checks.properties.judging import check_normalizable, improving
from alignment_checks.properties.options import Options
from alignment_checks.properties.sides import BOTH
from alignment_checks.properties.wording import caveats, limit_line, shown
from alignment_checks.setups.trainable import checked
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import Outlook, Verdict

ROUNDED = 7
"""What takes more digits than these to be told apart is shown alike: training in float32 knows no more."""


def different(a: TrainingSetup, b: TrainingSetup) -> bool:
    """Return whether two setups differ in size, objective or mesa-objective, so that their units differ."""
    sizes = [[tuple(value.shape) for value in checked(setup).parameters.values()] for setup in (a, b)]
    return sizes[0] != sizes[1] or a.objective != b.objective or a.mesa != b.mesa


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
    check_normalizable(quantity, a, b)
    both = [
        Experiment(s, BOTH, seeds, options.device, options.backend, steps=quantity.steps, horizon=options.horizon)
        for s, seeds in zip((a, b), _seeds(options, a, b), strict=True)
    ]
    left, right = (experiment.readings([IDENTITY])[0] for experiment in both)
    if unmatched and not _matched(left, right):
        quantity = replace(quantity, normalized=True)
        check_normalizable(quantity, a, b)
    more = "more seeds" if len(left.base) > 1 else "more steps"  # other seeds would not change a deterministic run
    (judgement,) = corrected([_ahead(quantity, left, right, options.margin)], options.level, more=more)
    doubt = [judgement.note, judgement.needs and f"what would decide it: {judgement.needs}"]
    remarks = [_matched_steps(a, b)] * (a.steps != b.steps and options.horizon == "finite")
    claim = f"{word} than the other{', of=' + repr(quantity.of) if quantity.of != 'base' else ''}"
    form = " in dimensionless form" if quantity.normalized else ""
    return Verdict(
        status=judgement.status,
        statement=f"the setup is {claim}{form}",
        denial=f"the setup is not {claim}{form}",
        runs=sum(experiment.runs for experiment in both),
        seconds=time.perf_counter() - began,
        steps=max(a.steps, b.steps),
        where=both[0].where,
        numbers=tuple(_side_by_side(quantity, left, right)),
        notes=(*filter(None, doubt), *remarks, *dict.fromkeys(caveats(a) + caveats(b))),
        p_value=judgement.p_value,
        outlook=Outlook(partial(_outlooks, quantity, *both)),
    )


def _seeds(options: Options, a: TrainingSetup, b: TrainingSetup) -> tuple[list[int], list[int]]:
    """Return the seeds of each, paired; one of each where neither depends on its seed."""
    left, right = options.seeds_of(a), options.seeds_of(b)
    if len(needed(left, a)) == len(needed(right, b)) == 1:
        return left[:1], right[:1]
    return left, right


def _matched_steps(a: TrainingSetup, b: TrainingSetup) -> str:
    """Return the remark on setups of different length: C_T is a mean over t = 1 … T, so T has to be the same."""
    short, long = sorted((a.steps, b.steps))
    return f"judged at T = {short}, where the shorter run ends: the other goes on to {long}"


def _outlooks(quantity: Quantity, a: Experiment, b: Experiment) -> tuple[str, ...]:
    """Return whether the limits of both have settled."""
    lines = (limit_line(one, quantity, IDENTITY, f"limit{words:<15}") for words, one in (("", a), (" of the other", b)))
    return tuple(filter(None, lines))


def _matched(left: Reading, right: Reading) -> bool:
    """Return whether L(0) and G(0) agree, so that literal factors may be compared."""
    pairs = ((left.first, right.first), (left.mesa_first, right.mesa_first))
    return all(np.allclose(a, b, rtol=1e-6, atol=0.0) for a, b in pairs)


def _ahead(quantity: Quantity, left: Reading, right: Reading, margin: Tolerance) -> Judgement:
    for name, reading in (("the setup", left), ("the other", right)):
        if missing := quantity.missing(reading):
            return undecided(math.nan, math.nan, f"{name}: {missing}")
        if quantity.name == "alignment" and improving(reading).status is not Status.PASS:
            return undecided(math.nan, math.nan, f"{name}: α counts only where C_B < 0 and C_M < 0")
    return better(quantity.read(right), quantity.read(left), margin, worse=quantity.worse)


def _side_by_side(quantity: Quantity, left: Reading, right: Reading) -> list[str]:
    forms = (False, True)
    rows = [replace(quantity, name="capability", of=of, normalized=n) for of in SIDES for n in forms]
    rows += [replace(quantity, name="alignment", of="base", normalized=n) for n in forms]
    lines = [_beside(q, left, right) for q in rows]
    for name, a, b in (("L(T)", left.last, right.last), ("G(T)", left.mesa_last, right.mesa_last)):
        lines.append(f"{name:<16}{number(float(a.mean())):>12}   the other {number(float(b.mean())):>12}")
    return [*lines, _decomposed(left, right, normalized=quantity.normalized)]


def _beside(quantity: Quantity, left: Reading, right: Reading) -> str:
    """Return a quantity of both, with as many digits as tell them apart, if those are more than rounding."""
    digits = telling(*(quantity.read(one).value for one in (left, right)))
    a, b = (shown(quantity, one, digits if digits <= ROUNDED else 4) for one in (left, right))
    return f"{padded(quantity.symbol(), 16)}{a:>12}   the other {b:>12}"


def _decomposed(left: Reading, right: Reading, *, normalized: bool) -> str:
    found = decomposition(left, right, normalized=normalized)
    if found.refusal:
        return f"no decomposition: {found.refusal}"
    terms = f"Δlog|C_B| {found.base:+.4g} = Δlog|α| {found.alignment:+.4g} + Δlog|C_M| {found.mesa:+.4g}"
    cause = {"both": "both capability-limited and less aligned"}.get(found.cause, found.cause)
    return f"{terms}: {f'the one behind is {cause}' if cause else 'neither is behind'}"


# ------------------------------------------------------------------------------- Δlog|C_B| = Δlog|α| + Δlog|C_M|


@dataclass(frozen=True)
class Decomposition:
    """Δlog|C_B| = Δlog|α| + Δlog|C_M| of one setup against another, or why there is none.

    Attributes
    ----------
    base, alignment, mesa : float
        The three terms; NaN where refused.
    cause : str
        "capability-limited", "less aligned" or "both": what the difference in C_B comes from. Empty where refused, and
        where there is no difference.
    refusal : str or None
    """

    base: float
    alignment: float
    mesa: float
    cause: str
    refusal: str | None = None


def decomposition(a: Reading, b: Reading, *, normalized: bool) -> Decomposition:
    """Return how the difference between the base capabilities of a and b comes about (Harris 2020, "Two examples")."""
    values = [r.capability(of, normalized=normalized).value for r in (a, b) for of in ("base", "mesa")]
    if not (a.improves and b.improves and all(value < 0 for value in values)):
        signs = ", ".join(f"{name} {_sign(v)}" for name, v in zip(_NAMES, values, strict=True))
        return Decomposition(
            math.nan, math.nan, math.nan, "", f"not all capabilities are clear of 0 and negative: {signs}"
        )
    base_a, mesa_a, base_b, mesa_b = (math.log(-value) for value in values)
    base, mesa = base_a - base_b, mesa_a - mesa_b
    return Decomposition(base, base - mesa, mesa, _cause(base, base - mesa, mesa))


_NAMES = ("C_B(a)", "C_M(a)", "C_B(b)", "C_M(b)")


_SHARE = 0.01
"""A smaller part of a difference is not called its cause: no two runs agree to the last digit."""


def _cause(base: float, alignment: float, mesa: float) -> str:
    by_mesa, by_alignment = (term * base > 0 and abs(term) > _SHARE * abs(base) for term in (mesa, alignment))
    if by_mesa and by_alignment:
        return "both"
    return "capability-limited" if by_mesa else "less aligned" if by_alignment else ""


def _sign(value: float) -> str:
    return "undefined" if math.isnan(value) else "negative" if value < 0 else "positive" if value > 0 else "0"
