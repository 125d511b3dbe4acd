"""What lanes cannot do, said so that a slower way can be taken and the reason reported."""

from __future__ import annotations

import re

import torch


class Refused(Exception):  # noqa: N818
    """What lanes cannot train, with the reason; the loop can."""


class NoLanesError(RuntimeError):
    """What lanes cannot train though they were asked for; its argument is the reason."""

    def __str__(self) -> str:
        return f"backend='lanes' cannot train this setup: {self.args[0]}. backend='auto' takes the loop instead"


class StepRefused(Refused):
    """What one way of stepping cannot do, with the reason; a slower way may."""


def first_line(message: object) -> str:
    """Return the first sentence of a message's first line, shortened: what fits into a reason."""
    line = (str(message).strip() or type(message).__name__).split("\n", 1)[0]
    return re.split(r"(?<=\w)\. (?=[A-Z])", line)[0][:200]


def is_out_of_memory(error: Exception) -> bool:
    """Return whether torch, or Python, says that memory is full; so may the libraries that torch calls."""
    full = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return full or (isinstance(error, RuntimeError) and bool(_FULL.search(str(error))))


_FULL = re.compile("allocate memory|out of memory|STATUS_ALLOC_FAILED", re.IGNORECASE)


def is_broken(error: Exception) -> bool:
    """Return whether an accelerator failed, in a way that it does not recover from: nothing else can be tried there."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
