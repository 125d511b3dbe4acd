"""The dry pass of a `@given` test: its examples are drawn and its body run, to see what it will ask for."""

from __future__ import annotations

import functools
import inspect
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.database import ReadOnlyDatabase
from hypothesis.errors import StopTest, UnsatisfiedAssumption
from hypothesis.reporting import with_reporter

from pytest_alignment.course import Course, Foreseen, LeftOut, Unforeseeable
from pytest_alignment.decorated import innermost
from pytest_alignment.examples import shows_phases

SETTINGS, SEED, GENERATED = (f"_hypothesis_internal_use_{name}" for name in ("settings", "seed", "generated_seed"))
"""What `@settings` and `@seed` leave on a test, and the seed that Hypothesis chose where there was none."""

STRATEGIES = "_given_kwargs"
"""Where the handle of a test has the strategies that it draws from, by its arguments."""

_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
MOST = 16
"""Dry passes at most: a body of more assertions trains the others when they are made."""


class TimedOut(BaseException):
    """Carries pytest-timeout's failure, which comes once, past Hypothesis, which would try the example again."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Hidden(BaseException):
    """Ends the first dry pass, where the test does not run under the settings that were left on it."""


@contextmanager
def foreseen(item: pytest.Function, course: Course, say: Callable[[str], None]) -> Iterator[None]:
    """Run the test dry, once for each assertion of its body and once more; then it is run with the same draws."""
    test = innermost(getattr(item.obj, "__func__", item.obj))
    handle = getattr(test, "hypothesis", None)
    shown = hasattr(handle, "inner_test") and all(hasattr(test, name) for name in (SETTINGS, SEED))
    if course.collecting and not shown:
        course.collecting = False
        say(
            f"Hypothesis {hypothesis.__version__} does not let its draws be seen in advance: under @given, each "
            "example is trained by itself"
        )
    if not course.collecting:
        yield
        return
    for what in _not_shown(handle):
        say(f"Hypothesis {hypothesis.__version__} does not show {what}")
    seed = getattr(test, SEED)
    try:
        _look_ahead(item, test, course, say)
        with _ended_in_time(test, course):
            yield
    finally:
        setattr(test, SEED, seed)


def _not_shown(handle: Any) -> Iterator[str]:
    """Yield what this Hypothesis does not show, and what comes of that."""
    if not hasattr(handle, STRATEGIES):
        yield (
            "what it draws from: under @given, a component of a failing δ is dropped only where an example was drawn "
            "without it"
        )
    if not shows_phases():
        yield (
            "when it shrinks or explains a failure: under @given, what it tries for that may be trained one by one, "
            "and is counted among the examples"
        )


@contextmanager
def _ended_in_time(test: Any, course: Course) -> Iterator[None]:
    """Let the test end an example for which there is no time, as one that passes."""
    inner, strategies = test.hypothesis.inner_test, _strategies(test.hypothesis)
    if inspect.iscoroutinefunction(inner):
        yield
        return

    @functools.wraps(inner)
    def body(*args: object, **kwargs: object) -> object:
        returned = None
        course.drew(kwargs, strategies)
        with suppress(LeftOut):
            returned = inner(*args, **kwargs)
        return returned

    test.hypothesis.inner_test, course.ends = body, True
    try:
        yield
    finally:
        test.hypothesis.inner_test, course.ends = inner, False


def _look_ahead(item: pytest.Function, test: Any, course: Course, say: Callable[[str], None]) -> None:
    """Run the test dry until a pass has met nothing new; say what keeps its examples from being trained together."""
    try:
        for _ in range(MOST):
            course.begin_pass()
            _run_dry(item, test, course)
            if getattr(test, SEED) is None:
                setattr(test, SEED, getattr(test, GENERATED, None))
            if not course.end_pass():
                break
    except Hidden:
        say(
            f"a decorator above @given hides from {item.name} what @given left on it: each example is trained by itself"
        )
    course.begin_run()
    if not course.recognized:
        say(
            f"{item.name} seems to build a different setup at each call, so each example is trained by itself. Build "
            "it once, in a fixture; or from functions, plain data and tensors"
        )


def _run_dry(item: pytest.Function, test: Any, course: Course) -> None:
    """Run the test with nothing asserted, reported or stored; what is wrong with it will show when it is run."""
    before, inner, strategies = getattr(test, SETTINGS), test.hypothesis.inner_test, _strategies(test.hypothesis)
    phases = [phase for phase in before.phases if phase in _PHASES]
    if inspect.iscoroutinefunction(inner) or not phases:
        return
    arguments = {name: item.funcargs[name] for name in inspect.signature(item.obj).parameters if name in item.funcargs}
    try:
        setattr(test, SETTINGS, quiet := _quiet(before, phases))
        test.hypothesis.inner_test = _unasserted(_watched(inner, course, strategies), course, quiet)
        with with_reporter(_ignore):
            item.obj(**arguments)
    except TimedOut as stopped:
        raise stopped.error from None
    except (Exception, SystemExit, GeneratorExit, Unforeseeable, pytest.skip.Exception):
        return
    finally:
        setattr(test, SETTINGS, before)
        test.hypothesis.inner_test = inner
        for name in ("hypothesis_statistics", "_hypothesis_failing_examples"):
            vars(item).pop(name, None)


def _quiet(before: hypothesis.settings, phases: list[Phase]) -> hypothesis.settings:
    return hypothesis.settings(
        before,
        phases=phases,
        database=None if before.database is None else ReadOnlyDatabase(before.database),
        deadline=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )


def _strategies(handle: Any) -> dict[str, Any]:
    """Return the strategies of a test by its arguments; none where Hypothesis does not show them."""
    return dict(getattr(handle, STRATEGIES, None) or {})


def _watched(inner: Callable[..., object], course: Course, strategies: dict[str, Any]) -> Callable[..., object]:
    """Return a test that takes note of what it was given, and of whether that was assumed away."""

    @functools.wraps(inner)
    def body(*args: object, **kwargs: object) -> object:
        course.drew(kwargs, strategies)
        try:
            return inner(*args, **kwargs)
        except UnsatisfiedAssumption:
            course.assumes = True
            raise

    return body


def _unasserted(inner: Callable[..., object], course: Course, quiet: hypothesis.settings) -> Callable[..., None]:
    """Return a test that does not fail. It has the same source and signature, from which Hypothesis draws a seed."""

    @functools.wraps(inner)
    def body(*args: object, **kwargs: object) -> None:
        if hypothesis.settings.default is not quiet:
            raise Hidden
        try:
            inner(*args, **kwargs)
        except (StopTest, UnsatisfiedAssumption, pytest.skip.Exception, unittest.SkipTest):
            raise
        except Foreseen:
            return
        except (Exception, SystemExit, GeneratorExit):  # as Hypothesis catches them
            course.failed = True
        except pytest.fail.Exception as error:
            if _is_timeout(error):
                raise TimedOut(error) from None
            course.failed = True

    return body


def _is_timeout(error: BaseException) -> bool:
    """Return whether pytest-timeout raised it, which comes once."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == "pytest_timeout":
            return True
        traceback = traceback.tb_next
    return False


def _ignore(message: object) -> None:
    """Report nothing."""
