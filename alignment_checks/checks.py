"""The properties: each one run → measure → judge. A failed property is a result here, not an exception.

The keywords that are common to all of them are those of `alignment_checks.properties.options.Judging`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from hypothesis import strategies as st

from alignment_checks.arguments import is_int
from alignment_checks.inference.judgement import Judgement
from alignment_checks.inference.quantities import Quantity
from alignment_checks.inference.readings import Reading
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties.comparison import compared, different
from alignment_checks.properties.judging import bearable, close, either, high
from alignment_checks.properties.keywords import to_strategy, under_sides
from alignment_checks.properties.options import Judging, Options, Strategy, check_number, shortest
from alignment_checks.properties.searched import Property, robust
from alignment_checks.properties.sides import BOTH, RESCORED, RETRAINED
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import Verdict

ALPHA = "α is a ratio of both objectives"
AHEAD = "a comparison says which is ahead"

# -------------------------------------------------------------------------------------------------------- definition 3


def check_capability_robust(
    setup: TrainingSetup,
    *,
    under: Strategy | None = None,
    mesa_under: Strategy | None = None,
    base_under: Strategy | None = None,
    delta: Perturbation | None = None,
    **judging: Unpack[Judging],
) -> Verdict:
    """Check Definition 3 for capability: C(𝓛) ≈ C(𝓛 + δ).

    Parameters
    ----------
    setup : TrainingSetup
    under : strategy of Perturbation
        Train and score under δ; `mesa_under`: train under δ, score clean; `base_under`: train clean, score under δ.
    delta : Perturbation
        One drawn perturbation instead of a strategy, for tests that use `@given` themselves.
    **judging
        See `alignment_checks.properties.options.Judging`.

    Returns
    -------
    Verdict

    Raises
    ------
    TypeError, ValueError
        If an argument is not of that form, before anything is trained.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from alignment_checks import landscape, perturbations as pt
    >>> bowl = landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=20)
    >>> str(check_capability_robust(bowl, under=pt.init_gain(max_log2=0.01), rtol=0.1, examples=10).status)
    'pass'
    """
    options = Options.of_keywords(judging).alone(delta)
    strategy, sides, words = under_sides(under, mesa_under, base_under, delta, options.beside)
    quantity = Quantity("capability", options.of, bool(options.normalized), shortest(setup), options.horizon)
    return robust(setup, strategy, sides, quantity, options, ("is robust", "is not robust"), f"under {words}")


def check_alignment_robust(
    setup: TrainingSetup,
    *,
    under: Strategy | None = None,
    mesa_under: Strategy | None = None,
    base_under: Strategy | None = None,
    delta: Perturbation | None = None,
    **judging: Unpack[Judging],
) -> Verdict:
    """Check Definition 3 for alignment: α(𝓛₁, 𝓛₂) ≈ α(𝓛₁ + δ₁, 𝓛₂ + δ₂). Arguments: `check_capability_robust`.

    Examples
    --------
    >>> import torch, alignment_checks as ac
    >>> bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=torch.optim.SGD, steps=20)
    >>> gain = ac.perturbations.init_gain(max_log2=1)
    >>> ac.check_alignment_robust(bowl, under=gain, rtol=0.1, examples=10).status.value
    'fail'
    """
    options = Options.of_keywords(judging).undivided(ALPHA).alone(delta)
    strategy, sides, words = under_sides(under, mesa_under, base_under, delta, options.beside)
    quantity = Quantity("alignment", "base", bool(options.normalized), shortest(setup), options.horizon)
    return robust(setup, strategy, sides, quantity, options, ("is robust", "is not robust"), f"under {words}")


# -------------------------------------------------------------------------------------------------------- definition 4


def check_capability_generalizes(
    setup: TrainingSetup,
    *,
    to: Strategy | None = None,
    delta: Perturbation | None = None,
    **judging: Unpack[Judging],
) -> Verdict:
    """Check Definition 4 for capability: C(𝓛) ≈ C(𝓛 + δ), retrained on L′ and scored on L′.

    Parameters
    ----------
    setup : TrainingSetup
    to : strategy of Perturbation
        Objective families alone: L′.
    delta : Perturbation
        One drawn perturbation instead.
    **judging
        See `alignment_checks.properties.options.Judging`. Dimensionless unless `normalized=False`.

    Examples
    --------
    >>> import torch, alignment_checks as ac
    >>> bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=torch.optim.SGD, steps=20)
    >>> penalty = ac.perturbations.l2_penalty(max_weight=0.01)
    >>> ac.check_capability_generalizes(bowl, to=penalty, rtol=0.1, examples=10).status.value
    'pass'
    """
    options = Options.of_keywords(judging).alone(delta)
    strategy, words = to_strategy(to, delta, options.beside)
    quantity = Quantity("capability", options.of, options.normalized is not False, shortest(setup), options.horizon)
    return robust(setup, strategy, RETRAINED, quantity, options, ("generalizes", "does not generalize"), f"to {words}")


def check_alignment_generalizes(
    setup: TrainingSetup,
    *,
    to: Strategy | None = None,
    delta: Perturbation | None = None,
    **judging: Unpack[Judging],
) -> Verdict:
    """Check Definition 4 for alignment: α(𝓛₁, 𝓛₂) ≈ α(𝓛₁ + δ, 𝓛₂).

    Only the base side changes: L′ is evaluated along the unchanged trajectory, and nothing is retrained. Arguments are
    those of `check_capability_generalizes`.
    """
    options = Options.of_keywords(judging).undivided(ALPHA).alone(delta)
    strategy, words = to_strategy(to, delta, options.beside)
    quantity = Quantity("alignment", "base", options.normalized is not False, shortest(setup), options.horizon)
    return robust(setup, strategy, RESCORED, quantity, options, ("generalizes", "does not generalize"), f"to {words}")


# ----------------------------------------------------------------------------------------- the post's other judgements


def check_inner_aligned(
    setup: TrainingSetup,
    *,
    under: Strategy | None = None,
    mesa_under: Strategy | None = None,
    base_under: Strategy | None = None,
    delta: Perturbation | None = None,
    floor: float,
    **judging: Unpack[Judging],
) -> Verdict:
    """Check that α is robustly high under dataset variations ("Quantifying inner alignment").

    Under every δ, the identity included: α ≥ floor, with C_B < 0 and C_M < 0, and α ≈ the unperturbed α.

    Parameters
    ----------
    setup : TrainingSetup
    under, mesa_under, base_under, delta
        As in `check_capability_robust`; dataset families.
    floor : float
        The smallest α that counts as high, in the form that `normalized` says.
    **judging
        See `alignment_checks.properties.options.Judging`.
    """
    options = Options.of_keywords(judging).undivided(ALPHA).alone(delta)
    strategy, sides, words = under_sides(under, mesa_under, base_under, delta, options.beside)
    sides = replace(sides, kinds=frozenset({"dataset", "custom"}))
    quantity = Quantity("alignment", "base", bool(options.normalized), shortest(setup), options.horizon)
    tolerance = options.tolerance
    check_number("floor", floor)

    def judge(reference: Reading, reading: Reading) -> Judgement:
        stays = close(quantity, reference, reading, tolerance)
        if quantity.missing(reference):  # what the unperturbed run leaves open, no δ decides
            return stays
        return either(stays, high(quantity, reference, reading, floor))

    claim = f"with α ≥ {floor:g} under {words}, {tolerance}"
    holds, fails = f"inner alignment holds {claim}", f"inner alignment does not hold {claim}"
    return Property(setup, strategy, sides, quantity, judge, holds, fails).searched(options)


def check_strongly_aligned(
    setup: TrainingSetup,
    *,
    worst: float,
    within: int,
    under: Strategy | None = None,
    delta: Perturbation | None = None,
    **judging: Unpack[Judging],
) -> Verdict:
    """Check that the journey is all right, and where it ends ("Terminal states and transients").

    max L(t) over t = 1 … within is at most `worst`, and the run ends neither above `worst` nor above L(0).

    Parameters
    ----------
    setup : TrainingSetup
    worst : float
        x: the highest L that is bearable.
    within : int
        N, from 1 to the setup's steps, all of which have to be recorded (record_every=1).
    under, delta
        As in `check_capability_robust`; None checks the unperturbed setup alone.
    **judging
        See `alignment_checks.properties.options.Judging`; `rtol` and `atol` say by how much L may be above those
        bounds: nothing, unless said.

    Examples
    --------
    >>> import torch, alignment_checks as ac
    >>> bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=torch.optim.SGD, steps=20)
    >>> ac.check_strongly_aligned(bowl, worst=1.0, within=20).status.value
    'pass'
    """
    check_number("worst", worst)
    if not is_int(within) or not 1 <= within <= shortest(setup):
        raise ValueError(f"`within` must be an int from 1 to the setup's {setup.steps} steps; got {within!r}")
    if setup.record_every > 1:
        raise ValueError(
            f"strong alignment is about L at every step of the transient; got record_every={setup.record_every}, "
            "between whose records a peak is not seen. Use dataclasses.replace(setup, record_every=1)"
        )
    options = Options.of_keywords(judging).undivided("`worst` bounds L").one_sided("`worst` bounds L from above")
    options = options.alone(delta)
    strategy, sides, words = st.just(IDENTITY), BOTH, ""
    if under is not None or delta is not None:
        strategy, sides, words = under_sides(under, None, None, delta, options.beside)
    quantity = Quantity("capability", "base", bool(options.normalized), shortest(setup), options.horizon)

    def judge(reference: Reading, reading: Reading) -> Judgement:  # noqa: ARG001
        return bearable(reading, worst, within, options.margin)

    def describe(reading: Reading) -> tuple[str, ...]:
        highest, last = float(reading.highest.max()), float(reading.last.max())
        return (
            f"highest L within {within} steps = {highest:.4g}   L(0) = {reading.first[0]:.4g}   ends at {last:.4g}",
        )

    allowed = f", {options.margin}" if options.rtol or options.atol else ""
    claim = f"with L ≤ {worst:g} within {within} steps{' under ' * bool(words)}{words}{allowed}"
    holds, fails = f"strong alignment holds {claim}", f"strong alignment does not hold {claim}"
    return Property(setup, strategy, sides, quantity, judge, holds, fails, within, describe).searched(options)


def check_more_capable(a: TrainingSetup, *, than: TrainingSetup, **judging: Unpack[Judging]) -> Verdict:
    """Check that C(a) < C(than); `of="mesa"` is the post's "Optimizer A is more capable than Optimizer C".

    Parameters
    ----------
    a, than : TrainingSetup
    **judging
        See `alignment_checks.properties.options.Judging`; `rtol` and `atol` say by how much a has to be ahead.

    Examples
    --------
    >>> import torch, alignment_checks as ac
    >>> bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=torch.optim.SGD, steps=20)
    >>> faster = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=torch.optim.Rprop, steps=20)
    >>> ac.check_more_capable(faster, than=bowl).status.value
    'pass'
    """
    options, steps = Options.of_keywords(judging).one_sided(AHEAD), shortest(a, than)
    normalized = different(a, than) if options.normalized is None else options.normalized
    quantity = Quantity("capability", options.of, normalized, steps, options.horizon)
    return compared(a, than, quantity, options, "more capable")


def check_better_aligned(a: TrainingSetup, *, than: TrainingSetup, **judging: Unpack[Judging]) -> Verdict:
    """Check that α(a) > α(than), where both objectives improve in both.

    Literal α where L(0) and G(0) agree, else the dimensionless α̃: comparisons of α mean little otherwise.
    Arguments are those of `check_more_capable`.
    """
    options, steps = Options.of_keywords(judging).undivided(ALPHA).one_sided(AHEAD), shortest(a, than)
    normalized = different(a, than) if options.normalized is None else options.normalized
    quantity = Quantity("alignment", "base", normalized, steps, options.horizon)
    return compared(a, than, quantity, options, "better aligned", unmatched=options.normalized is None)
