"""What arguments are checked by, and how an error names what came instead."""

from __future__ import annotations

from typing import TypeGuard


def is_int(value: object) -> TypeGuard[int]:
    """Return whether a value is an int; a bool does not count as one.

    Examples
    --------
    >>> is_int(1), is_int(True), is_int(1.0)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is an int or a float, NaN and infinities included; a bool does not count."""
    return is_int(value) or isinstance(value, float)


def described(value: object) -> str:
    """Return the type and the beginning of the repr of what came, on one line.

    Examples
    --------
    >>> described([1, 2])
    'list [1, 2]'
    """
    return f"{type(value).__name__} {' '.join(repr(value).split()):.60}"
