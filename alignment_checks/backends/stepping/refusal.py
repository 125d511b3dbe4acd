"""What lanes cannot do, said so that a slower way can be taken and the reason reported."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818
    """What lanes cannot train, with the reason; the loop can."""


class StepRefused(Refused):
    """What one way of stepping cannot do, with the reason; a slower way may."""


def first_line(message: object) -> str:
    """Return the first line of a message, shortened: what fits into a reason."""
    return (str(message).strip() or type(message).__name__).split("\n", 1)[0][:200]
