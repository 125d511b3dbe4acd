"""`Forecast`: the memory of one `@given` test, whose examples are judged by batches, and shrunk in our own domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields, replace
from types import TracebackType
from typing import Any

from hypothesis import Phase, settings
from hypothesis.control import current_build_context

from alignment_checks.exploration.confirmation import LOOKS
from alignment_checks.exploration.sampling import kind_of
from alignment_checks.exploration.shrinking import subsets
from alignment_checks.inference.judgement import Status
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import active, assembled
from alignment_checks.properties.experiment import Experiment
from alignment_checks.properties.memory import Memory
from alignment_checks.properties.sides import Sides
from alignment_checks.search import check_names
from alignment_checks.setups.sameness import alike
from alignment_checks.training import TrainingSetup, writes
from alignment_checks.verdict import Verdict
from pytest_alignment.course import Course
from pytest_alignment.examples import is_final
from pytest_alignment.foresight import Foreseeing

Check = Callable[..., Verdict]
_STEPPING = ("optimizer", "scheduler", "batch_size", "objective_infimum", "seed")
_IDLE = 1e-3
"""What of its limit a part may be at and be as good as 0: a hundred draws of Hypothesis have such parts."""
_REST = tuple(field.name for field in fields(TrainingSetup) if field.name not in _STEPPING)


class Forecast(Memory):
    """The memory of one `@given` test.

    Attributes
    ----------
    course : Course
        Where the test stands.
    contradicted : bool
        Whether the last verdict takes back a failure that Hypothesis is reporting: it waits for an exception.
    unjudged : str or None
        Why the test is to be skipped, if nothing fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.course = Course()
        self.contradicted = False
        self.unjudged: str | None = None
        self._last: Foreseeing | None = None
        self._setups: dict[Hashable, tuple[Hashable, Hashable]] = {}
        self._firsts: dict[Hashable, tuple[TrainingSetup, Hashable]] = {}
        self._verdicts: dict[Hashable, tuple[Verdict, Foreseeing | None]] = {}
        self._pursued_at: set[Hashable] = set()
        self._raised: dict[Hashable, tuple[Exception, TracebackType | None]] = {}
        self._looks: Counter[Hashable] = Counter()
        self._functions: dict[Hashable, object] = {}
        self._asked: dict[Hashable, dict[Perturbation, None]] = {}

    def experiment(self, setup: TrainingSetup, sides: Sides, seeds: Sequence[int], **how: Any) -> Experiment:
        """Return the experiment of these arguments, and remember that it is the one that is asked now."""
        found = super().experiment(setup, sides, seeds, **how)
        self._last = found if isinstance(found, Foreseeing) else None
        return found

    def known_as(self, setup: TrainingSetup) -> Hashable:
        """Return what stands for a setup, and for those like it; what is alike of two is the very same from then on."""
        return self._known(setup)

    def _known(self, setup: TrainingSetup) -> tuple[Hashable, Hashable]:
        """Return what stands for the parts of a setup that do not step, and for those that do."""
        now = setup, writes(setup)
        if now not in self._setups:
            rest, stepping = (tuple(alike(getattr(setup, name)) for name in names) for names in (_REST, _STEPPING))
            self._setups[now] = rest, stepping
        return self._setups[now]

    def begun(self, setup: TrainingSetup, sides: Sides, seeds: Sequence[int], **how: Any) -> Experiment:
        """Return a new experiment that trains ahead: the setup's optimizer, with the rest of the first so built.

        Setups that differ in how they step alone then share batches (see `alignment_checks.runs.company`). What has
        been written into since is no longer the first.
        """
        rest, _ = self._known(setup)
        first, written = self._firsts.get(rest, (setup, writes(setup)))
        first = first if writes(first) == written else setup
        self._firsts[rest] = first, writes(first)
        same = replace(first, **{name: getattr(setup, name) for name in _STEPPING})
        return Foreseeing(self.course, same, sides, seeds, **how)

    def judged(
        self,
        check: Check,
        delta: Perturbation,
        setup: TrainingSetup,
        line: Hashable,
        max_time: float | None = None,
    ) -> Verdict:
        """Return the verdict on the δ of one example.

        Parameters
        ----------
        check : callable
            Takes the keywords of a check that say what is tried.
        delta : Perturbation
        setup : TrainingSetup
        line : hashable
            Stands for the assertion, with its other arguments.
        max_time : float, optional
            Seconds that the assertion may take, to within one batch: examples that are left then are not judged.

        Notes
        -----
        Until Hypothesis reports an example for good, it is judged by what was trained once. Then the failing δ is
        shrunk and trained afresh. What fails first is shrunk at once, so that Hypothesis's own attempts are known. The
        verdict on one δ stays what it is: where chance has a part in a failure, that is confirmed when it is first met.
        """
        self.course.enter(current_build_context())
        check_names([delta], self._functions)
        self.course.allot(max_time)
        key = (line, self.known_as(setup), delta)
        asked = self._asked.setdefault((*key[:2], self.course.depth), {})
        asked[delta] = None
        final = is_final() and not self.course.collecting
        before, failing = self._verdicts.get(key) or self._first(check, delta, line)
        verdict = before
        if before.status is Status.FAIL and failing is not None and not self.course.collecting:
            others = [one for one in failing.drawn if one in asked]
            verdict = self._pursued(check, (delta, *others), before, failing, line, final=final)
        self.contradicted = final and before.status is Status.FAIL and verdict.status is not Status.FAIL
        if not self.course.collecting or before.status is Status.PASS:
            self._verdicts[key] = before, failing
        self.course.depth += 1
        return verdict

    def _first(self, check: Check, delta: Perturbation, line: Hashable) -> tuple[Verdict, Foreseeing | None]:
        """Return the verdict on a δ that was not judged before, and the experiment that it rests on."""
        verdict = check(delta=delta, first=(delta,), examples=0, memory=self)
        failing = self._last
        by_chance = verdict.status is Status.FAIL and verdict.p_value is not None
        if not self.course.collecting and (by_chance or self._looks_again(verdict, failing, line)):
            with self.course.search(confirming=True), self.course.timed():
                verdict = check(delta=delta, first=(delta,), examples=0, memory=self)
        return verdict, failing

    def _looks_again(self, verdict: Verdict, of: Foreseeing | None, line: Hashable) -> bool:
        """Return whether other seeds are asked about what the first left open; a few times for each assertion."""
        several = verdict.status is Status.INCONCLUSIVE and of is not None and len(of.seeds) > 1
        open_ = several and self.course.has_time(self.course.depth)
        self._looks[line] += open_
        return open_ and self._looks[line] <= LOOKS

    def _pursued(
        self,
        check: Check,
        deltas: Sequence[Perturbation],
        before: Verdict,
        failing: Foreseeing,
        line: Hashable,
        *,
        final: bool,
    ) -> Verdict:
        """Shrink the first of `deltas`, which fails, among those that this assertion of this setup was made with.

        That is what is reported, and what fails first; another setup's is left until it is reported. What a user's own
        code raises meanwhile is raised for whatever fails from then on: the test is not flaky.
        """
        if line in self._raised:
            error, where = self._raised[line]
            raise error.with_traceback(where)
        known, failing.failing = failing.failing or line in self._pursued_at, True
        if not final and known:
            return before
        self._pursued_at.add(line)
        try:
            found = self._shrunk(check, deltas, confirming=final)
        except Exception as error:
            self._raised[line] = error, error.__traceback__
            raise
        if not final or (found.status is not Status.FAIL and before.p_value is not None):
            return before
        return replace(found, runs=max(found.runs, failing.runs), seconds=max(found.seconds, failing.seconds))

    def _shrunk(self, check: Check, deltas: Sequence[Perturbation], *, confirming: bool) -> Verdict:
        shrink, drawn_from = Phase.shrink in settings().phases, self.course.drawn_from.get(deltas[0], ())
        first = (*deltas, *self._parts(deltas)) if shrink else deltas[:1]
        with self.course.search(confirming=confirming):
            return check(delta=deltas[0], first=first, examples=0, shrink=shrink, memory=self, drawn_from=drawn_from)

    def _parts(self, deltas: Sequence[Perturbation]) -> list[Perturbation]:
        """Return what is left of a failing composition, the first of `deltas`, when parts of it are dropped.

        That is known to be in the domain of its strategy where that was neither filtered nor mapped, where no example
        was assumed away, and where each part that is dropped was as good as 0 in one of `deltas`: those that this
        assertion was made with, the others' arguments being the same.
        """
        delta, course = deltas[0], self.course
        if not course.is_whole(delta) or course.assumes:
            return []
        idle = {
            kind_of(part)
            for one in deltas
            for part in one.parts
            if abs(part.magnitude or 0.0) <= _IDLE * (part.limit or 0.0)
        }
        return [
            assembled(list(left))
            for left in subsets(active(delta))
            if all(kind_of(part) in idle for part in delta.parts if part not in left)
        ]
