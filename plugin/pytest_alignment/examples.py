"""What Hypothesis is doing with the example that runs now."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis.control import current_build_context, currently_in_test_context


def is_final() -> bool:
    """Return whether Hypothesis runs this example to report it: an explicit one, or the one that it ended with."""
    return currently_in_test_context() and bool(getattr(current_build_context(), "is_final", False))


@contextmanager
def unnoticed() -> Iterator[None]:
    """Keep what is done here out of Hypothesis's deadline, as the time that draws take, and out of its explanations.

    To explain a failure it traces which lines run, which makes Python several times slower before 3.12.
    """
    began, tracer = time.perf_counter(), sys.gettrace()
    its_own = type(getattr(tracer, "__self__", None)).__module__ == "hypothesis.internal.scrutineer"
    if its_own:
        sys.settrace(None)
    try:
        yield
    finally:
        if its_own:
            sys.settrace(tracer)
        times = getattr(current_build_context().data, "_stateful_run_times", None)
        if times is not None:
            times["alignment"] += time.perf_counter() - began
