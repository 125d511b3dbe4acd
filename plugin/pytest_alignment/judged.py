"""`Judged`: what the running test judged, until its report is made; of examples of `@given`, which is reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_alignment.results import Result

STATUSES = ("pass", "inconclusive", "fail")
"""The later one is told, of examples that differ."""


@dataclass
class Judged:
    """One result of the running test, until its report is made.

    Attributes
    ----------
    result : Result
    violation : BaseException or None
        What was raised.
    envelope, verdict : callable or None
        What the store is to keep, and what a report is to show, worked out if they are wanted.
    severity : float
        How near what passed came to failing, in units of what is allowed.
    place : hashable
        The line that made the assertion, and how often the example had come there: the same in all examples, whatever
        arguments they draw.
    again : bool
        Whether Hypothesis came back to an example that failed, to shrink, explain or report it: that is none more.
    """

    result: Result
    violation: BaseException | None = None
    envelope: Callable[[], dict[str, Any]] | None = None
    verdict: Callable[[], dict[str, Any]] | None = None
    severity: float = 0.0
    place: Hashable = None
    again: bool = False


def settled(judged: Sequence[Judged], failed: Collection[BaseException], *, keep: bool) -> list[Result]:
    """Return the results: what the test failed by, what the store is to keep if that is so, and what is to be reported.

    `failed` is what the test failed by. None is fixed where the same assertion did not pass under another example.
    """
    raised = [any(one.violation is error for error in failed) for one in judged]
    told = _told(judged, raised)
    doubtful = {one.result.key for one in judged if one.result.status != "pass"}
    found = []
    for index, one in enumerate(judged):
        result = replace(one.result, raised=raised[index])
        if raised[index] and keep and one.envelope is not None:
            result = replace(result, envelope=one.envelope())
        if index in told and one.verdict is not None:
            result = replace(result, verdict=one.verdict(), examples=told[index])
        found.append(replace(result, fixed=()) if result.key in doubtful else result)
    return found


def _told(judged: Sequence[Judged], raised: Sequence[bool]) -> dict[int, int]:
    """Return which are reported, and of how many examples each is the one.

    Each assertion is reported once, however many examples it was made in: by what the test failed by, else by its last
    failure, else by what came nearest to failing. What was replayed is reported one by one.
    """
    alike: dict[Hashable, list[int]] = {}
    for index, one in enumerate(judged):
        alike.setdefault(index if one.result.replayed else one.place or one.result.key, []).append(index)

    def weight(index: int) -> tuple[bool, int, float, int]:
        one = judged[index]
        return raised[index], STATUSES.index(one.result.status), one.severity, index

    def many(indices: Sequence[int]) -> int:
        return max(1, sum(not judged[index].again for index in indices))

    return {max(indices, key=weight): many(indices) for indices in alike.values()}
