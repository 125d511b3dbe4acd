"""What Hypothesis is doing with the example that runs now."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

from hypothesis.control import current_build_context, currently_in_test_context
from hypothesis.errors import UnsatisfiedAssumption

Method = tuple[str, str, frozenset[str]]
"""A module, a class, and the names that a method of it has had."""
ENGINE, SHRINKER = (f"hypothesis.internal.conjecture.{name}" for name in ("engine", "shrinker"))
SHRINKING: Method = (
    ENGINE,
    "ConjectureRunner",
    frozenset({"shrink_interesting_test_cases", "shrink_interesting_examples"}),
)
"""What runs the shrink phase, the explain phase with it."""
EXPLAINING: Method = (SHRINKER, "Shrinker", frozenset({"explain"}))
"""What runs the explain phase."""
TOOLS = 6
"""How many tools `sys.monitoring` knows."""


def is_final() -> bool:
    """Return whether Hypothesis runs this example to report it: an explicit one, or the one that it ended with."""
    return currently_in_test_context() and bool(getattr(current_build_context(), "is_final", False))


def explains() -> bool:
    """Return whether Hypothesis varies the arguments of a failure, to say which of them do not matter.

    That is its explain phase, of which only the stack tells; where it does not, it is taken for shrinking.
    """
    return _is_within(EXPLAINING)


def shrinks() -> bool:
    """Return whether Hypothesis tries to shrink or explain a failure; where the stack does not tell, False."""
    return _is_within(SHRINKING)


def shows_phases() -> bool:
    """Return whether the methods of this Hypothesis that the stack is searched for have the names that they had."""
    try:
        return all(_has(method) for method in (SHRINKING, EXPLAINING))
    except (ImportError, AttributeError):
        return False


def _has(method: Method) -> bool:
    module, owner, names = method
    return any(hasattr(getattr(import_module(module), owner), name) for name in names)


def _is_within(method: Method) -> bool:
    module, _, names = method
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name in names and frame.f_globals.get("__name__") == module:
            return True
        frame = frame.f_back
    return False


def reject(why: str) -> NoReturn:
    """End an example as `hypothesis.reject` does, whose statistics would name a function of ours instead of `why`."""
    raise UnsatisfiedAssumption(why)


@contextmanager
def unnoticed() -> Iterator[None]:
    """Keep what is done here out of Hypothesis's deadline, as the time that draws take, and out of its explanations.

    Those would name the line of ours that raises, as the only one that only failing examples run.
    """
    if not currently_in_test_context():
        yield
        return
    began = time.perf_counter()
    try:
        with _untraced():
            yield
    finally:
        times = getattr(current_build_context().data, "_stateful_run_times", None)
        if times is not None:
            times["alignment"] += time.perf_counter() - began


@contextmanager
def _untraced() -> Iterator[None]:
    """Hide which lines run from Hypothesis, which makes Python several times slower to see them before 3.12."""
    tracer, monitoring = sys.gettrace(), getattr(sys, "monitoring", None)
    if type(getattr(tracer, "__self__", None)).__module__ == "hypothesis.internal.scrutineer":
        sys.settrace(None)
        try:
            yield
        finally:
            sys.settrace(tracer)
    elif monitoring is not None:
        with _unmonitored(monitoring):
            yield
    else:
        yield


@contextmanager
def _unmonitored(monitoring: Any) -> Iterator[None]:
    """Do the same where Python has `sys.monitoring`: no event of Hypothesis's tool."""
    seen = {tool: monitoring.get_events(tool) for tool in range(TOOLS) if monitoring.get_tool(tool) == "scrutineer"}
    for tool in seen:
        monitoring.set_events(tool, 0)
    try:
        yield
    finally:
        for tool, events in seen.items():
            monitoring.set_events(tool, events)
