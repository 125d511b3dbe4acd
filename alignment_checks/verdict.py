"""The verdict on one property: status, findings, margin, and its text and JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import zip_longest
from typing import Any, NoReturn

from alignment_checks.findings import Finding, Point, sparkline
from alignment_checks.inference.judgement import Status
from alignment_checks.inference.quantities import telling
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import acting


@dataclass(frozen=True, eq=False)
class Outlook:
    """Lines about the limit, worked out once, when they are first read: an assertion that holds never needs them."""

    work: Callable[[], tuple[str, ...]] = tuple

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The lines, for people."""
        return tuple(self.work())

    def __reduce__(self) -> tuple[Any, ...]:
        return Outlook, (partial(tuple, self.lines),)


@dataclass(frozen=True)
class Verdict:
    """The judgement of one property of one setup. `str()` is the text for people.

    Attributes
    ----------
    status : {"pass", "fail", "inconclusive"}
    statement : str
        The property that was judged.
    denial : str
        Its negation, the heading of a failure.
    minimal, worst : Finding or None
        The smallest failing perturbation and the worst seen.
    holds_up_to : float or None
        The magnitude up to which the property was seen to hold.
    runs : int
        Runs trained.
    seconds : float
        Wall time.
    searched : int
        Perturbations judged.
    steps : int
        T of each run.
    where : str
        Device and backends.
    numbers, notes : tuple of str
        Lines for people: what was measured, and what has to be known to read it.
    others : tuple of Finding
        The smallest failure of every other kind: of other families, or to the other side.
    curve : tuple of Point
        The deviation against the magnitude, at the seed of the smallest failure; empty where that has several parts.
    curve_others : tuple of tuple of Point
        The same for each of `others`.
    replay : str or None
        The command that replays the smallest failure.
    replay_others : tuple of str
        For each of `others`, what stands in that command instead of its last word.
    stopped_early : bool
        Whether the time ran out (`max_time`) before the search was through; the notes say what is missing.
    nearest : Finding or None
        Where nothing failed: the perturbation under which the property came nearest to failing.
    p_value : float or None
        Of a failure over several seeds, corrected for the number confirmed; of a limit estimated from one run,
        corrected for the number searched; None where nothing was left to chance.
    outlook : Outlook
        Whether the limit has settled, and if not, how many more steps that would take; worked out when it is read.
    """

    status: Status
    statement: str
    denial: str
    minimal: Finding | None = None
    worst: Finding | None = None
    holds_up_to: float | None = None
    runs: int = 0
    seconds: float = 0.0
    searched: int = 0
    steps: int = 0
    where: str = "no device"
    numbers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    others: tuple[Finding, ...] = ()
    curve: tuple[Point, ...] = ()
    curve_others: tuple[tuple[Point, ...], ...] = ()
    replay: str | None = None
    replay_others: tuple[str, ...] = ()
    stopped_early: bool = False
    nearest: Finding | None = None
    p_value: float | None = None
    outlook: Outlook = field(default_factory=Outlook, compare=False)

    def __str__(self) -> str:
        heading = {
            Status.FAIL: f"AlignmentViolation: {self.denial}",
            Status.INCONCLUSIVE: f"inconclusive: whether {self.statement}",
            Status.PASS: self.statement,
        }[self.status]
        return "\n".join([heading, "", *self.lines()])

    def __bool__(self) -> NoReturn:
        """Raise TypeError: a verdict has three values, and `assert ac.check_…` would hold of what fails."""
        raise TypeError(
            "a Verdict is neither true nor false: it is a pass, a failure or inconclusive. Compare its status: assert "
            "verdict.status == 'pass', str(verdict). In pytest, alignment.assert_… raises by itself, without assert"
        )

    def lines(self) -> list[str]:
        """Return the text below the heading."""
        found = self.brief()
        details = [] if self.minimal is None else [f"      {line}" for line in self.minimal.details]
        lines = [*found[:1], *details, *found[1:]]
        lines += [f"  {line}" for line in (*self.numbers, *self.outlook.lines, *self.notes)]
        lines.append(f"  {self._cost()}")
        return [*lines, f"  replay   {self.replay}"] if self.replay else lines

    def brief(self) -> list[str]:
        """Return what was found, a line each: the smallest failure first, or what came nearest to failing."""
        if self.minimal is None:
            return [] if self.nearest is None else [_line("nearest to failing", self.nearest)]
        digits, smallest = self._digits(), acting(self.minimal.perturbation)
        named = f"smallest failing δ   {smallest.described(digits=digits)}"
        lines = ["  fails unperturbed" if smallest.is_identity else f"  {named}"]
        if self.worst is not None and self.worst != self.minimal:
            lines.append(_line("worst δ found", self.worst))
        if self._held is not None:
            lines.append(f"  holds up to          {self._held.described(seed=False, digits=digits)}")
        drawn = [line for curve in (self.curve, *self.curve_others) for line in _drawn(curve)]
        legend = "│ more than is allowed" + ", × no number" * any("×" in line for line in drawn)
        lines += [f"{line}      {legend}" for line in drawn[: len(self.curve) > 0]]
        return [*lines, *self._others()]

    @property
    def _held(self) -> Perturbation | None:
        """The smallest failure where it was still seen to hold; None where that is not told."""
        if self.minimal is None or self.holds_up_to is None:
            return None
        return self.minimal.perturbation.at(math.copysign(self.holds_up_to, self.minimal.perturbation.magnitude or 0.0))

    def _digits(self) -> int:
        """Return how many digits tell the smallest failure from what held: four, if that is enough."""
        if self.minimal is None or self._held is None:
            return 4
        return telling(self.minimal.perturbation.magnitude or 0.0, self._held.magnitude or 0.0)

    def _others(self) -> list[str]:
        """Return the other failures, a line each and one for the curve of each that has one of its own."""
        lines: list[str] = []
        for one, replay, curve in zip_longest(self.others, self.replay_others, self.curve_others):
            lines.append(_line("fails too at", one) + (f"      {replay}" if replay else ""))
            lines += _drawn(curve) if curve and curve != self.curve else []
        return lines

    def _cost(self) -> str:
        many = "perturbation" if self.searched == 1 else "perturbations"
        runs = f"{self.runs} {'run' if self.runs == 1 else 'runs'} of {self.steps} steps"
        judged = f"searched {self.searched} {many}, {runs}" if self.searched else f"trained {runs}"
        return f"{judged} in {self.seconds:.1f} s on {self.where}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data: everything here, ready for JSON (non-finite numbers as strings)."""
        return {
            "status": str(self.status),
            "statement": self.statement,
            "denial": self.denial,
            "minimal": None if self.minimal is None else self.minimal.to_dict(),
            "worst": None if self.worst is None else self.worst.to_dict(),
            "others": [finding.to_dict() for finding in self.others],
            "curve": [point.to_dict() for point in self.curve],
            "curve_others": [[point.to_dict() for point in curve] for curve in self.curve_others],
            "holds_up_to": self.holds_up_to,
            "runs": self.runs,
            "seconds": self.seconds,
            "searched": self.searched,
            "steps": self.steps,
            "where": self.where,
            "numbers": list(self.numbers),
            "notes": list(self.notes),
            "replay": self.replay,
            "replay_others": list(self.replay_others),
            "stopped_early": self.stopped_early,
            "nearest": None if self.nearest is None else self.nearest.to_dict(),
            "p_value": self.p_value,
            "outlook": list(self.outlook.lines),
            "text": str(self),
        }


def _line(what: str, finding: Finding) -> str:
    return f"  {what:<20} {acting(finding.perturbation).described()}      {finding.off_by}"


def _drawn(curve: Sequence[Point]) -> list[str]:
    return [f"  off by, up to {curve[-1].magnitude:<6.3g} {sparkline(curve)}"] if curve else []


# ---------------------------------------------------------------------------------------------------------- violations


class AlignmentViolation(AssertionError):  # noqa: N818
    """A property that does not hold, or could not be judged. Carries its `verdict`; one subclass for each property."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict).removeprefix("AlignmentViolation: "))
        self.verdict = verdict


class Inconclusive(AlignmentViolation):
    """Whether the property holds could not be told: the text says what would decide it."""


class CapabilityNotRobust(AlignmentViolation):
    """Definition 3: capability changes under δ."""


class AlignmentNotRobust(AlignmentViolation):
    """Definition 3: alignment changes under δ."""


class CapabilityDoesNotGeneralize(AlignmentViolation):
    """Definition 4: capability changes when retrained on L′."""


class AlignmentDoesNotGeneralize(AlignmentViolation):
    """Definition 4: alignment changes when the unchanged trajectory is scored by L′."""


class NotInnerAligned(AlignmentViolation):
    """Alignment is not robustly high under dataset variations."""


class NotStronglyAligned(AlignmentViolation):
    """The transient, or the end, is worse than the bound."""


class NotMoreCapable(AlignmentViolation):
    """One setup is not more capable than another."""


class NotBetterAligned(AlignmentViolation):
    """One setup is not better aligned than another."""
