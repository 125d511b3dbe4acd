"""Decorators above `@given`: they copy what it left on its function, where Hypothesis never reads it."""

from __future__ import annotations

from typing import Any


def innermost(test: Any) -> Any:
    """Return the function that `@given` made, below the decorators that wrap it as `functools.wraps` does."""
    handle = getattr(test, "hypothesis", None)
    while handle is not None and getattr(getattr(test, "__wrapped__", None), "hypothesis", None) is handle:
        test = test.__wrapped__
    return test
