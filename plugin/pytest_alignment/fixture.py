"""The `alignment` fixture's value: one `assert_*` for every `check_*`. Loaded, torch with it, when a test asks."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec

import pytest

from alignment_checks import checks, verdict
from alignment_checks.verdict import AlignmentViolation, Verdict
from pytest_alignment.assertion import Assertion, called
from pytest_alignment.examples import unnoticed
from pytest_alignment.ledger import LEDGER, Ledger
from pytest_alignment.outcome import Outcome
from pytest_alignment.threads import limited

P = ParamSpec("P")
JUDGING = "judging"
"""What a check calls the keywords that all of them share."""


@contextmanager
def opened(config: pytest.Config) -> Iterator[Alignment]:
    """Yield the fixture's value, with torch kept to this process's share of the cores."""
    with limited(config):
        yield Alignment(config.stash[LEDGER])


def _asserting(
    check: Callable[P, Verdict], violation: type[AlignmentViolation]
) -> Callable[Concatenate[Alignment, P], Verdict]:
    """Return the method that raises where `check` does not pass; its arguments are those of `check`."""
    name, signature = check.__name__.replace("check_", "assert_"), inspect.signature(check)

    @functools.wraps(check)
    def assertion(self: Alignment, /, *args: P.args, **kwargs: P.kwargs) -> Verdict:
        __tracebackhide__ = True
        given, caller = _bound(name, signature, args, kwargs), sys._getframe(1)
        with unnoticed():
            outcome = self._judged(check, violation, given, (caller.f_code.co_filename, caller.f_lineno))
            if isinstance(outcome, BaseException):
                raise outcome
        return outcome

    assertion.__name__, assertion.__qualname__ = name, f"Alignment.{name}"
    owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    setattr(assertion, "__signature__", signature.replace(parameters=[owner, *signature.parameters.values()]))  # noqa: B010
    return assertion


def _bound(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments by name, the setup first; raise TypeError where the check does not take them."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        setup, *others = signature.parameters
        named = ", ".join(f"{other}=" for other in others if other != JUDGING)
        raise TypeError(f"{name}: {error}. Pass `{setup}` first, and all else by name: {named}, …") from None
    judging = bound.arguments.pop(JUDGING, {})
    return {**bound.arguments, **judging}


class Alignment:
    """Assertions on training runs: each takes what its `alignment_checks.check_*` takes, and raises where that fails.

    Everything after the setup is keyword-only. The draws depend on the test, the assertion and --hypothesis-seed alone,
    unless `random_seed=` is given; `examples=` and `device=` come from the options, unless given.

    Returns
    -------
    Verdict
        Of a property that holds.

    Raises
    ------
    AlignmentViolation
        The property's own subclass where it does not hold; `Inconclusive` where that could not be told, unless
        `alignment_inconclusive` says otherwise.
    TypeError, ValueError
        As the check, before anything is trained.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __repr__(self) -> str:
        return "alignment"

    assert_capability_robust = _asserting(checks.check_capability_robust, verdict.CapabilityNotRobust)
    assert_alignment_robust = _asserting(checks.check_alignment_robust, verdict.AlignmentNotRobust)
    assert_capability_generalizes = _asserting(checks.check_capability_generalizes, verdict.CapabilityDoesNotGeneralize)
    assert_alignment_generalizes = _asserting(checks.check_alignment_generalizes, verdict.AlignmentDoesNotGeneralize)
    assert_inner_aligned = _asserting(checks.check_inner_aligned, verdict.NotInnerAligned)
    assert_strongly_aligned = _asserting(checks.check_strongly_aligned, verdict.NotStronglyAligned)
    assert_more_capable = _asserting(checks.check_more_capable, verdict.NotMoreCapable)
    assert_better_aligned = _asserting(checks.check_better_aligned, verdict.NotBetterAligned)

    def _judged(
        self,
        check: Callable[..., Verdict],
        violation: type[AlignmentViolation],
        given: dict[str, Any],
        line: tuple[str, int],
    ) -> Outcome:
        setup, *_ = given.values()
        kwargs = {name: given[name] for name in list(given)[1:]}
        key = self._ledger.key(check.__name__.removeprefix("check_"), called(kwargs), line)
        return Assertion(self._ledger, key, check, violation, setup, kwargs).judged()
