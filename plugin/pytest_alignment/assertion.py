"""One assertion of one test: which it is, what is stored of it, and what comes of it in a plain run and in a replay."""

from __future__ import annotations

import platform
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import metadata
from typing import Any

import pytest
from hypothesis.strategies import SearchStrategy

from alignment_checks.findings import Finding
from alignment_checks.judgement import Status
from alignment_checks.perturbations import Perturbation, reattached
from alignment_checks.realization import setup_digest
from alignment_checks.sameness import alike
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import AlignmentViolation, Inconclusive, Verdict
from pytest_alignment.envelope import Envelope, identified
from pytest_alignment.foresight import Unforeseeable, untimed
from pytest_alignment.journal import Crash
from pytest_alignment.ledger import AlignmentInconclusiveWarning, Judged, Ledger
from pytest_alignment.portable import plain, restored
from pytest_alignment.recovery import recovered
from pytest_alignment.results import Key, Result, Stored
from pytest_alignment.watching import Watching

Failure = tuple[Envelope, Perturbation]
"""A stored one."""
Outcome = Verdict | BaseException
"""What to return, or what to raise."""

TOLERANCES = frozenset({"rtol", "atol", "floor", "worst"})
EFFORT = frozenset({"examples", "resolution", "random_seed", "device", "backend", "first", "level"})
EFFORT |= {"max_time", "watch", "memory", "shrink"}


def called(arguments: Mapping[str, object]) -> str:
    """Return what is perturbed and how, by which an assertion is known again; not how much is tolerated."""
    kept = {name: value for name, value in arguments.items() if name not in TOLERANCES | EFFORT and value is not None}
    return ", ".join(f"{name}={_shown(value)}" for name, value in sorted(kept.items()))


def _shown(value: object) -> str:
    if isinstance(value, Perturbation):
        return "+".join(part.family for part in value.parts)
    if isinstance(value, (SearchStrategy, str, int, float, list, tuple)):
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))[:2000]
    return type(value).__name__


@dataclass(frozen=True)
class Assertion:
    """One assertion of the running test.

    Attributes
    ----------
    ledger : Ledger
    key : Key
    check : callable
        Judges the property.
    violation : type
        Raised where it does not hold.
    setup : TrainingSetup
    arguments : dict
        The keyword arguments that the user gave.
    """

    ledger: Ledger
    key: Key
    check: Callable[..., Verdict]
    violation: type[AlignmentViolation]
    setup: TrainingSetup
    arguments: dict[str, Any]

    def judged(self) -> Outcome:
        """Return the verdict, or what to raise: where the property does not hold, or where that could not be told."""
        forecast = self.ledger.forecast
        if forecast is not None and forecast.collecting and self.arguments.get("delta") is None:
            raise Unforeseeable
        with untimed() if forecast is not None else nullcontext(), self._watched():
            return self._searched() if self.ledger.options.replay is None else self._replayed()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Leave no trace of a search that ended, but of one that was interrupted what it had found."""
        try:
            yield
        except KeyboardInterrupt:
            if self.watching.found is not None:
                name = self.ledger.shown(self.key.nodeid)
                self.ledger.interrupted += [
                    f"INTERRUPTED {name}",
                    f"  smallest failing δ so far   {self.watching.found}",
                ]
            raise
        finally:
            self.watching.over()

    @cached_property
    def watching(self) -> Watching:
        """What sees the searches of this assertion."""
        ledger = self.ledger
        limit, also = self.arguments.get("max_time", ledger.options.max_time), self.arguments.get("watch")
        name, foreseen = ledger.shown(self.key.nodeid), ledger.forecast is not None
        return Watching(ledger.screen, ledger.journal, self.key, name, limit, also, foreseen=foreseen)

    # ----------------------------------------------------------------------------------------------------- a plain run

    def _searched(self) -> Outcome:
        if self.ledger.forecast is None or not self.ledger.forecast.collecting:
            name = self.ledger.shown(self.key.nodeid)
            for crash in self.ledger.crashes.pop(self.key, []):
                died = recovered(crash, name, partial(self._train_alone, crash), self.ledger.say)
                if died is not None:
                    return self._noted(self._unjudged(died))
        stored = self._known(self.ledger.stored)
        if (delta := self.arguments.get("delta")) is not None:
            verdict, tried = self._drawn(delta), [one for one in stored if one[1] == delta]
        else:
            verdict, tried = self._checked_after(stored)
        return self._noted(verdict, fixed=_named(tried) if verdict.status is Status.PASS else ())

    def _known(self, envelopes: list[Envelope]) -> list[Failure]:
        """Return what is stored of this assertion, with the perturbations."""
        found = []
        for envelope in envelopes:
            if envelope.key == self.key:
                try:
                    found.append((envelope, restored(envelope.perturbation)))
                except ValueError as error:
                    self.ledger.say(f"the stored failure {envelope.id} cannot be tried: {error}. Skipped")
        return found

    def _checked(self, **more: Any) -> Verdict:
        options = self.ledger.options
        defaults = {
            "random_seed": self.ledger.seed(self.key),
            "examples": options.examples,
            "device": options.device,
            "level": self.ledger.level,
            "max_time": options.max_time,
        }
        return self.check(self.setup, **{**defaults, **self.arguments, "watch": self.watching, **more})

    def _checked_after(self, stored: list[Failure]) -> tuple[Verdict, list[Failure]]:
        """Return the verdict with the stored failures tried first, and those that could be tried."""
        if not stored:
            return self._checked(), []
        try:
            return self._checked(first=(*(delta for _, delta in stored), *self.arguments.get("first", ()))), stored
        except ValueError as error:
            verdict = self._checked()  # raises the same, unless it is the stored ones that no longer fit
            self.ledger.say(f"stored failures of {self.key.nodeid} cannot be tried: {error}. Skipped")
            return verdict, []

    def _drawn(self, delta: Perturbation) -> Verdict:
        """Return the verdict on one perturbation among those that `@given` draws."""
        forecast = self.ledger.forecast
        if forecast is None:
            return self._alone(delta)
        others = {name: value for name, value in self.arguments.items() if name != "delta"}
        forecast.launching = self.watching.launching
        return forecast.judged(self._checked, delta, (self.key.property, forecast.known_as(self.setup), alike(others)))

    def _alone(self, delta: Perturbation, **level: float) -> Verdict:
        """Return the verdict on the one perturbation that a test drew by itself."""
        return self._checked(delta=delta, first=(delta,), examples=0, **level)

    def _train_alone(self, crash: Crash, delta: Perturbation) -> None:
        """Train a perturbation that was in flight when a process died."""
        self.watching.launching([delta])
        crash.forget()
        drawn = self.arguments.get("delta")
        if drawn is None:
            self._checked(first=(delta,), examples=0)
        else:
            self._alone(reattached(delta, [drawn]))

    # -------------------------------------------------------------------------------------------------------- a replay

    def _replayed(self) -> Outcome:
        outcomes = [self._again(envelope, delta) for envelope, delta in self._known(self.ledger.wanted)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, AlignmentViolation)]
        return next(iter(failed + outcomes), None) or self._unjudged(
            f"not judged: replaying {self.ledger.options.replay}"
        )

    def _again(self, envelope: Envelope, delta: Perturbation) -> Outcome:
        """Judge a stored failure by itself; once for all examples of `@given`, which calls what differs flaky."""
        drawn, known = self.arguments.get("delta"), self.ledger.replayed
        level = {} if envelope.level is None else {"level": envelope.level}
        if drawn is None:
            verdict = self._checked(first=(delta,), examples=0, **level)
        else:
            verdict = known.get(envelope.id) or self._alone(reattached(delta, [drawn]), **level)
            known[envelope.id] = verdict
        changed = envelope.setup != setup_digest(self.setup)
        notes = (*verdict.notes, *[f"the setup has changed since {envelope.id} was stored"] * changed)
        return self._noted(replace(verdict, notes=notes), replayed=_named([(envelope, delta)]), changed=changed)

    def _unjudged(self, note: str) -> Verdict:
        words = self.key.property.replace("_", " ")
        return Verdict(
            status=Status.INCONCLUSIVE,
            statement=f"{words} ({self.key.call})",
            denial=f"not {words} ({self.key.call})",
            minimal=None,
            worst=None,
            holds_up_to=None,
            runs=0,
            seconds=0.0,
            searched=0,
            steps=self.setup.steps,
            where="no device",
            notes=(note,),
        )

    # ------------------------------------------------------------------------------------------------- what comes of it

    def _noted(
        self,
        verdict: Verdict,
        *,
        fixed: tuple[Stored, ...] = (),
        replayed: tuple[Stored, ...] = (),
        changed: bool = False,
    ) -> Outcome:
        """Remember the result, and return what to hand to the user."""
        verdict = replace(verdict, replay=self._command(verdict))
        error, instead = self._error(verdict)
        chance = verdict.p_value if verdict.status is Status.FAIL else None
        result = Result(
            key=self.key,
            status=str(verdict.status),
            heading=verdict.denial if verdict.status is Status.FAIL else verdict.statement,
            minimal=None if verdict.minimal is None else verdict.minimal.perturbation.described(),
            worst=_worst(verdict),
            replay=verdict.replay,
            fixed=fixed,
            replayed=replayed,
            changed=changed,
            verdict=verdict.to_dict() if self.ledger.options.report else None,
            p_value=None if chance is None else min(1.0, chance / self.ledger.share),
            tests=self.ledger.tests,
            instead=instead,
        )
        self.ledger.note(Judged(result, error, self._enveloped(verdict)))
        if instead == "warned":
            warnings.warn(AlignmentInconclusiveWarning(str(Inconclusive(verdict))), stacklevel=6)
        return verdict if error is None else error

    def _error(self, verdict: Verdict) -> tuple[BaseException | None, str]:
        """Return what to raise, and what is done instead where it could not be judged and the options say so."""
        if verdict.status is not Status.INCONCLUSIVE:
            return (None if verdict.status is Status.PASS else self.violation(verdict)), ""
        error = Inconclusive(verdict)
        if self.ledger.options.inconclusive == "skip":
            return pytest.skip.Exception(str(error)), "skipped"
        if self.ledger.options.inconclusive == "warn":
            return None, "warned"
        return error, ""

    def _command(self, verdict: Verdict) -> str | None:
        if verdict.status is not Status.FAIL or verdict.minimal is None:
            return None
        quoted = self.ledger.shown(self.key.nodeid).replace("'", "'\"'\"'")
        return f"pytest '{quoted}' --alignment-replay={identified(self.key, plain(verdict.minimal.perturbation))}"

    def _enveloped(self, verdict: Verdict) -> Callable[[], dict[str, Any]] | None:
        finding = verdict.minimal
        if verdict.status is not Status.FAIL or finding is None:
            return None
        level = None if verdict.p_value is None else self.arguments.get("level", self.ledger.level)
        return lambda: self._envelope(verdict, finding, level).to_dict()

    def _envelope(self, verdict: Verdict, finding: Finding, level: float | None) -> Envelope:
        return Envelope(
            key=self.key,
            statement=verdict.statement,
            setup=setup_digest(self.setup),
            perturbation=plain(finding.perturbation),
            numbers={name: _plain(getattr(finding, name)) for name in ("reference", "value", "deviation", "allowed")},
            versions=_versions(verdict),
            level=level,
        )


def _named(failures: list[Failure]) -> tuple[Stored, ...]:
    return tuple(Stored(envelope.id, delta.described()) for envelope, delta in failures)


def _worst(verdict: Verdict) -> str | None:
    if verdict.worst is None or verdict.worst == verdict.minimal:
        return None
    return f"{verdict.worst.perturbation.described()}      {verdict.worst.off_by}"


def _plain(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)


def _versions(verdict: Verdict) -> dict[str, str]:
    packages = {name: metadata.version(name) for name in ("alignment-checks", "torch", "hypothesis")}
    return {**packages, "python": platform.python_version(), "platform": platform.platform(), "where": verdict.where}
