"""Memory that is freed at each step and asked for again at the next, kept by the process in between."""

from __future__ import annotations

from contextlib import suppress

import torch

LARGEST_KEPT = 31 * 2**20
"""Bytes of the largest block that is kept: glibc never keeps blocks of more than 32 MiB."""


def keep_freed(device: torch.device) -> None:
    """Have the C library keep the memory that is freed, instead of giving it back to the system each time.

    The system hands pages out again one by one, each cleared, which takes a fifth of the time of a step whose tensors
    have some megabytes. glibc learns by example: it keeps blocks as large as the largest that was freed, up to 32 MiB,
    and up to twice as much memory at the end of its heap (mallopt(3), `M_MMAP_THRESHOLD`). Elsewhere this does nothing.
    """
    if device.type == "cpu":
        with suppress(RuntimeError):  # there is no such block
            torch.empty(LARGEST_KEPT, dtype=torch.uint8)  # freed at once, and no page of it was ever touched
