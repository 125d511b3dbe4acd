"""How many lanes make a batch, from how many runs on a batch pays, and whether compiling does.

All of it is a function of the setup, the device and the number of runs, and of no clock, so that the same runs are
trained alike everywhere. The constants were measured on one core (`tests/benchmarks/throughput.py`).
"""

from __future__ import annotations

import math

import torch

from alignment_checks.backends.footprint import Footprint

CACHE = 16 * 2**20
"""Bytes that a batch may take on a CPU, lest it fall out of the cache that a core has a share of."""
WIDEST_ON_CPU = 16
"""Beyond it a run costs hardly less, and a round of a search, padded to the width, costs more."""
CHUNK = 4 * 2**20
"""Bytes that the lanes of one call may take on a CPU: they are to stay in the cache that a core has for itself."""
ROWS = 2**20
"""Bytes of parameters of all lanes that a core steps at once: what it reads again is to be in its cache still."""
WIDEST_LOAD = 4
"""Batches that are stepped together. More would spare little, and leave other cores without work."""
WIDTHS = (64, 512, 4096)
"""Widths of a batch on an accelerator, where a launch costs the same for one run and for hundreds."""

LAUNCHES = 1.0
"""Milliseconds of Python for each step of a batch."""
LOOPED = 0.45
"""The same for one run in the loop."""
TRAFFIC = 0.72e6
"""Bytes of a footprint that a core goes through in a millisecond."""
BESIDE = 0.65
"""What of that time a run takes in a batch, and as much more as the batch takes of the cache."""
UNTRACED = 1.5
"""Milliseconds of a step of a batch that `vmap` and `grad` take, and a graph of what they came to does not."""
TRACING = 100
"""Milliseconds that it takes to trace a graph."""
COMPILED = 0.3
"""What compiled code saves of a batch's time."""
COMPILING = 5_000
"""Milliseconds that it takes to compile."""
FORKING = 2_000
"""Milliseconds of work from which on it is shared out to other processes."""


def width(need: Footprint, device: torch.device, runs: int) -> int:
    """Return how many lanes make a batch; those that no run fills are filled up.

    On a CPU it depends on the setup alone. On an accelerator it is the least of `WIDTHS` that holds all runs and fits.
    """
    one = max(1, need.bytes)
    if device.type == "cpu":
        most = max(1, min(WIDEST_ON_CPU, CACHE // one))
        evaluated = min(WIDEST_ON_CPU, 1 << (max(1, CHUNK // one).bit_length() - 1))
        return most - most % evaluated  # whole calls of some lanes each: a convolution of one alone is slow
    most = max(1, _memory(device) // (2 * one))
    return min(most, next((size for size in WIDTHS if size >= runs), WIDTHS[-1]))


def chunk(need: Footprint, device: torch.device, lanes: int) -> int | None:
    """Return how many lanes of a batch one call evaluates, a divisor of them; None is all."""
    if device.type != "cpu":
        return None
    return max(size for size in range(1, lanes + 1) if lanes % size == 0 and (size == 1 or size * need.bytes <= CHUNK))


def load(row: int, device: torch.device, lanes: int, batches: int, processes: int) -> int:
    """Return how many batches of `lanes`, of `row` bytes of parameters each, are stepped together."""
    if device.type != "cpu":
        return 1
    return max(1, min(WIDEST_LOAD, -(-batches // processes), ROWS // max(1, lanes * row)))


def fewest(need: Footprint, device: torch.device, lanes: int) -> int:
    """Return from how many runs on a batch of `lanes` costs less than as many runs of the loop; it may be never."""
    if device.type != "cpu":
        return round(LAUNCHES / LOOPED)
    return math.ceil(_batch(need, lanes) / _alone(need))


def milliseconds(need: Footprint, lanes: int, runs: int, steps: int) -> float:
    """Return about how long one core takes to train as many runs in batches of `lanes`; one lane is the loop."""
    return runs * steps * (_batch(need, lanes) / lanes if lanes > 1 else _alone(need))


def pays_to_trace(runs: int, lanes: int, steps: int) -> bool:
    """Return whether tracing saves more than it takes."""
    return UNTRACED * steps * -(-runs // lanes) > TRACING


def pays_to_compile(need: Footprint, device: torch.device, lanes: int, runs: int, steps: int) -> bool:
    """Return whether compiling saves at least twice what it takes, of what would be done without it."""
    batch = _batch(need, lanes)
    saved = min(batch, lanes * _alone(need)) - (1 - COMPILED) * batch
    return device.type == "cpu" and saved * steps * runs / lanes >= 2 * COMPILING


def _batch(need: Footprint, lanes: int) -> float:
    """Return the milliseconds of a step of a batch."""
    return LAUNCHES + lanes * need.bytes / TRAFFIC * (BESIDE + lanes * need.bytes / CACHE)


def _alone(need: Footprint) -> float:
    """Return the milliseconds of a step in the loop."""
    return LOOPED + need.bytes / TRAFFIC


def _memory(device: torch.device) -> int:
    """Return the accelerator's memory in bytes, or a careful guess where it does not say."""
    try:
        return int(torch.accelerator.get_memory_info(device)[1])
    except (AttributeError, NotImplementedError, RuntimeError):
        return 4 * 2**30
