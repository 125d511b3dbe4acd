"""What lanes cannot do, said so that a slower way can be taken and the reason reported."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818
    """What lanes cannot train, with the reason; the loop can."""
