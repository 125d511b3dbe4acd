"""What lanes cannot do, said so that a slower way can be taken and the reason reported."""

from __future__ import annotations

import re


class Refused(Exception):  # noqa: N818
    """What lanes cannot train, with the reason; the loop can."""


class StepRefused(Refused):
    """What one way of stepping cannot do, with the reason; a slower way may."""


def first_line(message: object) -> str:
    """Return the first sentence of a message's first line, shortened: what fits into a reason."""
    line = (str(message).strip() or type(message).__name__).split("\n", 1)[0]
    return re.split(r"(?<=\w)\. (?=[A-Z])", line)[0][:200]
