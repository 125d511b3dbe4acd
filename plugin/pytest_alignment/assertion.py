"""One assertion of one test: which it is, what is stored of it, and what comes of it in a plain run and in a replay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from hypothesis.control import currently_in_test_context
from hypothesis.strategies import SearchStrategy

from alignment_checks.backends.stepping.refusal import NoLanesError
from alignment_checks.heartbeat import listening
from alignment_checks.inference.judgement import Status
from alignment_checks.perturbations import Perturbation, reattached
from alignment_checks.setups.fingerprints import setup_digest
from alignment_checks.setups.sameness import alike
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import AlignmentViolation, Verdict
from pytest_alignment.course import Unforeseeable
from pytest_alignment.envelope import Envelope
from pytest_alignment.examples import explains, reject
from pytest_alignment.journal import Crash
from pytest_alignment.ledger import Ledger
from pytest_alignment.outcome import Noted, Outcome, unjudged
from pytest_alignment.portable import restored
from pytest_alignment.recovery import recovered
from pytest_alignment.results import Key, Stored
from pytest_alignment.watching import Watching

Failure = tuple[Envelope, Perturbation]
"""A stored one."""

TOLERANCES = frozenset({"rtol", "atol", "floor", "worst"})
EFFORT = frozenset({"examples", "resolution", "random_seed", "device", "backend", "first", "level"})
EFFORT |= {"max_time", "watch", "memory", "shrink", "drawn_from"}


def called(arguments: Mapping[str, object]) -> str:
    """Return what is perturbed and how, by which an assertion is known again; not how much is tolerated."""
    kept = {name: value for name, value in arguments.items() if name not in TOLERANCES | EFFORT and value is not None}
    return ", ".join(f"{name}={_shown(value)}" for name, value in sorted(kept.items()))


def _shown(value: object) -> str:
    if isinstance(value, Perturbation):
        return "+".join(part.family for part in value.parts)
    if isinstance(value, (SearchStrategy, str, int, float, list, tuple)):
        return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(value).splitlines()))[:2000]
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
        if self.ledger.is_dry and self.arguments.get("delta") is None:
            raise Unforeseeable
        if self.arguments.get("delta") is None and explains():
            # a search, or a comparison, for each value that might fail as well
            reject("not trained: it is tried only to explain a failure")
        with self._watched():
            return self._searched() if self.ledger.options.replay is None else self._replayed()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Leave no trace of a search that ended, but of one that was interrupted what it had found."""
        try:
            with listening(self.watching.beat):
                yield
        except KeyboardInterrupt:
            if self.watching.found is not None:
                name = self.ledger.shown(self.key.nodeid)
                self.ledger.interrupted += [f"INTERRUPTED {name}", f"  {self.watching.found}"]
            raise
        finally:
            self.watching.over()

    @cached_property
    def watching(self) -> Watching:
        """What sees the searches of this assertion."""
        ledger = self.ledger
        limit, also = self.arguments.get("max_time", ledger.options.max_time), self.arguments.get("watch")
        name, foreseen = ledger.shown(self.key.nodeid), ledger.forecast is not None
        return Watching(ledger.screen, ledger.archive.journal, self.key, name, limit, also, foreseen=foreseen)

    # ----------------------------------------------------------------------------------------------------- a plain run

    def _searched(self) -> Outcome:
        if not self.ledger.is_dry:
            name = self.ledger.shown(self.key.nodeid)
            for crash in self.ledger.archive.crashes.pop(self.key, []):
                died = recovered(crash, name, partial(self._train_alone, crash), self.ledger.say)
                if died is not None:
                    self.ledger.died[self.key] = died
            if self.key in self.ledger.died:
                return self._noted(unjudged(self.key, self.setup.steps, self.ledger.died[self.key]))
        archive = self.ledger.archive
        if (delta := self.arguments.get("delta")) is not None:
            verdict, tried = self._drawn(delta), [one for one in self._known(archive.kept) if one[1] == delta]
        else:
            verdict, tried = self._checked_after(self._known(archive.stored))
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
            why = str(error)
        verdict = self._checked()  # raises the same, unless it is the stored ones that no longer fit
        self.ledger.say(f"stored failures of {self.key.nodeid} cannot be tried: {why}. Skipped")
        return verdict, []

    def _drawn(self, delta: Perturbation) -> Verdict:
        """Return the verdict on one perturbation among those that `@given` draws.

        Raises
        ------
        ValueError
            If others are to be tried first: `@given` says what is tried.
        """
        forecast = self.ledger.forecast
        if forecast is None or not currently_in_test_context():  # as in a thread that the body of an example started
            return self._checked()
        if self.arguments.get("first"):
            raise ValueError(
                "first= goes with under=; beside delta= it would be tried in no example. Write each one that is to be "
                "tried first as an example of the test: @example(delta=…)"
            )
        others = {name: value for name, value in self.arguments.items() if name != "delta"}
        forecast.course.launching = self.watching.launching
        line, max_time = (self.key.property, alike(others)), others.get("max_time", self.ledger.options.max_time)
        return forecast.judged(self._checked, delta, self.setup, line, max_time)

    def _alone(self, delta: Perturbation, **as_found: Any) -> Verdict:
        """Return the verdict on the one perturbation that a test drew by itself."""
        return self._checked(delta=delta, first=(delta,), examples=0, **as_found)

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
        outcomes = [self._again(envelope, delta) for envelope, delta in self._known(self.ledger.archive.wanted)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, AlignmentViolation)]
        note = f"not judged: replaying {self.ledger.options.replay}"
        return (failed + outcomes)[0] if outcomes else unjudged(self.key, self.setup.steps, note)

    def _again(self, envelope: Envelope, delta: Perturbation) -> Outcome:
        """Judge a stored failure by itself; under `@given` once, lest Hypothesis call it flaky.

        That is under the setup that failed, if an example draws it before another setup fails.
        """
        known, changed = self.ledger.replayed, self._changed(envelope)
        verdict, before = known.get(envelope.id, (None, ""))
        passed = verdict is not None and verdict.status is not Status.FAIL
        if self.arguments.get("delta") is None or verdict is None or (passed and before and not changed):
            known[envelope.id] = self._repeated(envelope, delta, same=not changed), changed
        elif changed and not before:
            return unjudged(self.key, self.setup.steps, f"not judged: {envelope.id} failed under another setup")
        verdict, changed = known[envelope.id]
        notes = (*verdict.notes, *[f"{changed} since {envelope.id} was stored"] * bool(changed))
        return self._noted(replace(verdict, notes=notes), replayed=_named([(envelope, delta)]), changed=changed)

    def _repeated(self, envelope: Envelope, delta: Perturbation, *, same: bool) -> Verdict:
        """Return the verdict on a stored failure, at its level; by what trained it where the setup is the same."""
        level: dict[str, Any] = {} if envelope.level is None else {"level": envelope.level}
        if (drawn := self.arguments.get("delta")) is None:
            judge = partial(self._checked, first=(delta,), examples=0, **level)
        else:
            judge = partial(self._alone, reattached(delta, [drawn]), **level)
        return _lanes_first(judge) if same and self._is_of_lanes(envelope) else judge()

    def _changed(self, envelope: Envelope) -> str:
        """Return what is to be said of the setup where it is not the one that failed: another may have been drawn."""
        if envelope.setup == setup_digest(self.setup):
            return ""
        return "the setup has changed" + ", or another was drawn," * (self.arguments.get("delta") is not None)

    def _is_of_lanes(self, envelope: Envelope) -> bool:
        """Return whether lanes trained it, and are to train it by itself, too: so few runs would go to the loop."""
        return envelope.backend == "lanes" and "backend" not in self.arguments

    def _noted(self, verdict: Verdict, **more: Any) -> Outcome:
        """Remember the result, and return what to hand to the user."""
        level = self.arguments.get("level", self.ledger.level)
        return Noted(self.ledger, self.key, self.setup, verdict, self.violation, level, **more).outcome()


def _lanes_first(judge: Callable[..., Verdict]) -> Verdict:
    """Return the verdict on what lanes have found, by the loop where they cannot train it now."""
    try:
        return judge(backend="lanes")
    except NoLanesError as error:
        verdict, why = judge(), f"it was found in lanes, which cannot train it now: {error.args[0]}"
        return replace(verdict, notes=(*verdict.notes, why))


def _named(failures: list[Failure]) -> tuple[Stored, ...]:
    return tuple(Stored(envelope.id, delta.described()) for envelope, delta in failures)
