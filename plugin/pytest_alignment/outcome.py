"""What comes of a verdict: what is raised, what the terminal and the report say of it, and what the store keeps."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import pytest

from alignment_checks.findings import Finding
from alignment_checks.inference.judgement import Status
from alignment_checks.setups.fingerprints import setup_digest
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import AlignmentViolation, Inconclusive, Verdict
from pytest_alignment.envelope import LONGEST, NUMBERS, Envelope, identified
from pytest_alignment.judged import Judged
from pytest_alignment.ledger import Ledger
from pytest_alignment.portable import plain
from pytest_alignment.results import Key, Result, Stored

Outcome = Verdict | BaseException
"""What to return, or what to raise."""


@dataclass(frozen=True)
class Noted:
    """What one assertion came to.

    Attributes
    ----------
    ledger : Ledger
    key : Key
    setup : TrainingSetup
    verdict : Verdict
    violation : type
        Raised where the property does not hold.
    level : float
        At which it was told from chance.
    fixed, replayed : tuple of Stored
    changed : str
        As in `Result`.
    """

    ledger: Ledger
    key: Key
    setup: TrainingSetup
    verdict: Verdict
    violation: type[AlignmentViolation]
    level: float
    fixed: tuple[Stored, ...] = ()
    replayed: tuple[Stored, ...] = ()
    changed: str = ""

    def outcome(self) -> Outcome:
        """Remember the result, and return what to hand to the user; a dry pass leaves nothing behind."""
        options = [self._option(finding) for finding in self._found]
        test = self.ledger.shown(self.key.nodeid).replace("'", "'\"'\"'")  # within single quotes of a shell
        replay = f"pytest '{test}' {options[0]}" if options else None
        verdict = replace(self.verdict, replay=replay, replay_others=tuple(options[1:]))
        error, instead = self._error(verdict)
        if self.ledger.is_dry:
            return error or verdict
        self.ledger.note(self._judged(verdict, error, instead))
        if instead:
            self.ledger.pass_over(self.key, instead, str(Inconclusive(verdict)))
        return error or verdict

    def _judged(self, verdict: Verdict, error: BaseException | None, instead: str) -> Judged:
        return Judged(
            self._result(verdict, instead),
            error,
            (lambda: self._envelope(*self._found).to_dict()) if self._found else None,
            self._shown(verdict) if self.ledger.options.report else None,
            0.0 if verdict.nearest is None else verdict.nearest.severity,
        )

    @staticmethod
    def _shown(verdict: Verdict) -> Callable[[], dict[str, Any]]:
        """Return what gives a report the verdict. Its limit may take training: that is done now, within the test."""
        _ = verdict.outlook.lines
        return verdict.to_dict

    def _result(self, verdict: Verdict, instead: str) -> Result:
        failed = verdict.status is Status.FAIL
        chance = verdict.p_value if failed else None
        return Result(
            key=self.key,
            status=str(verdict.status),
            heading=verdict.denial if failed else verdict.statement,
            found=tuple(verdict.brief()) if failed else (),
            replay=verdict.replay,
            fixed=self.fixed,
            replayed=self.replayed,
            changed=self.changed,
            p_value=None if chance is None else min(1.0, chance / self.ledger.share),
            tests=self.ledger.tests,
            instead=instead,
        )

    def _error(self, verdict: Verdict) -> tuple[BaseException | None, str]:
        """Return what to raise, and what is done instead where it could not be judged and the options say so."""
        if verdict.status is not Status.INCONCLUSIVE:
            return (None if verdict.status is Status.PASS else self.violation(verdict)), ""
        forecast, wished = self.ledger.forecast, self.ledger.options.inconclusive
        if wished == "fail" or (forecast is not None and forecast.contradicted):
            return Inconclusive(verdict), ""
        if wished == "warn":
            return None, "warned"
        return (None if forecast is not None else pytest.skip.Exception(str(Inconclusive(verdict)))), "skipped"

    @property
    def _found(self) -> list[Finding]:
        """The failures, each of which is stored and can be replayed: the smallest first."""
        if self.verdict.status is not Status.FAIL or self.verdict.minimal is None:
            return []
        return [self.verdict.minimal, *self.verdict.others]

    def _option(self, finding: Finding) -> str:
        return f"--alignment-replay={identified(self.key, plain(finding.perturbation))}"

    def _envelope(self, finding: Finding, *others: Finding) -> Envelope:
        return Envelope(
            key=self.key,
            statement=self.verdict.statement[:LONGEST],
            setup=setup_digest(self.setup),
            perturbation=plain(finding.perturbation),
            numbers={name: value for name, value in finding.to_dict().items() if name in NUMBERS},
            versions=_versions(self.verdict),
            level=None if self.verdict.p_value is None else self.level,
            others=[plain(other.perturbation) for other in others],
            backend=finding.backend,
        )


def unjudged(key: Key, steps: int, note: str) -> Verdict:
    """Return the verdict where nothing was judged, and why."""
    asserted = f"{key.property}({key.call})"
    return Verdict(
        status=Status.INCONCLUSIVE,
        statement=f"{asserted} holds",
        denial=f"{asserted} does not hold",
        steps=steps,
        notes=(note,),
    )


def _versions(verdict: Verdict) -> dict[str, str]:
    packages = {name: metadata.version(name) for name in ("alignment-checks", "torch", "hypothesis")}
    return {**packages, "python": platform.python_version(), "platform": platform.platform(), "where": verdict.where}
