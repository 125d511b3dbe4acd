"""How many lanes make a batch, from how many runs on a batch pays, and whether compiling does.

All of it is a function of the setup, the device and the number of runs, and of no clock, so that the same runs are
trained alike everywhere. The constants were measured on one core (`tests/benchmarks/throughput.py`).
"""

from __future__ import annotations

from typing import NamedTuple

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

STEPPING = 1.2
"""Milliseconds of Python for each step of a batch, beside its calls."""
CALLING = 0.2
"""The same for each call of the batched function."""
LOOPED = 0.37
"""The same for each step of one run in the loop."""
TRAFFIC = 0.72e6
"""Bytes of a footprint that a core goes through in a millisecond."""
CONVOLVED = 1.7
"""How many times as long it takes where it convolves."""
BESIDE = 0.3
"""What of the time for its bytes a run takes in a call."""
SPILLED = 0.9
"""What of it a run takes besides, times the square of the share of the cache that the call takes."""
UNTRACED = 1.5
"""Milliseconds of a call that `vmap` and `grad` take, and a graph of what they came to does not."""
TRACING = 70
"""Milliseconds that it takes to trace a graph."""
COMPILED = 0.38
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


class Beside(NamedTuple):
    """What batches cost beside what they compute, in milliseconds of each step: of a run, and of a call.

    That is finding out about them, of which each planned run bears its share, and tracing, or going without.
    """

    run: float = 0.0
    call: float = 0.0

    @classmethod
    def of(cls, need: Footprint, device: torch.device, lanes: int, steps: int, planned: int) -> Beside:
        """Return what it comes to where nothing is found out yet; looking whether slots matter takes two batches."""
        calls = -(-lanes // (chunk(need, device, lanes) or lanes))
        looked = 2 * (_batches(need, device, lanes, lanes) + UNTRACED * calls)
        if pays_to_trace(planned, lanes, steps):
            return cls((looked + TRACING) / (steps * planned))
        return cls(looked / (steps * planned), UNTRACED)


NOTHING = Beside()
"""What batches cost beside what they compute once all is found out and traced."""


def batched(need: Footprint, device: torch.device, lanes: int, runs: int, beside: Beside = NOTHING) -> int:
    """Return how many runs cost less in batches of `lanes` than in the loop: all, those that fill calls, or none."""
    full = chunk(need, device, lanes) or lanes

    def cost(some: int) -> float:
        begun = runs * beside.run * (some > 0) + -(-some // full) * _calls(need) * beside.call
        return begun + _batches(need, device, lanes, some) + (runs - some) * _alone(need, device)

    return min((0, runs // full * full, runs), key=cost)


def milliseconds(need: Footprint, device: torch.device, lanes: int, runs: int, steps: int) -> float:
    """Return about how long one core takes to train as many runs in batches of `lanes`; one lane is the loop."""
    return steps * (_batches(need, device, lanes, runs) if lanes > 1 else runs * _alone(need, device))


def pays_to_trace(runs: int, lanes: int, steps: int) -> bool:
    """Return whether tracing saves more than it takes."""
    return UNTRACED * steps * -(-runs // lanes) > TRACING


def pays_to_compile(need: Footprint, device: torch.device, lanes: int, runs: int, steps: int) -> bool:
    """Return whether compiling saves more than it takes, of what would be done without it."""
    calls = _batches(need, device, lanes, runs)
    without = min(calls, runs * _alone(need, device))
    return device.type == "cpu" and (without - (1 - COMPILED) * calls) * steps >= COMPILING


def _batches(need: Footprint, device: torch.device, lanes: int, runs: int) -> float:
    """Return the milliseconds of a step of as many runs in batches of `lanes`."""
    full = chunk(need, device, lanes) or lanes
    share = full * need.bytes / CHUNK
    call = _calls(need) * CALLING
    call += full * _traffic(need) * (BESIDE + SPILLED * share**2) if device.type == "cpu" else 0
    return -(-runs // lanes) * STEPPING + -(-runs // full) * call


def _alone(need: Footprint, device: torch.device) -> float:
    """Return the milliseconds of a step in the loop."""
    python = _calls(need) * LOOPED
    return python + (_traffic(need) * (CONVOLVED if need.convolves else 1) if device.type == "cpu" else 0)


def _calls(need: Footprint) -> int:
    """Return how many gradients a step takes: one that is measured, and one of a minibatch."""
    return 1 + (need.minibatch > 0)


def _traffic(need: Footprint) -> float:
    """Return the milliseconds that a core takes to go through what a step of a run takes."""
    return need.bytes * (1 + need.minibatch) / TRAFFIC


def _memory(device: torch.device) -> int:
    """Return the accelerator's memory in bytes, or a careful guess where it does not say."""
    try:
        return int(torch.accelerator.get_memory_info(device)[1])
    except (AttributeError, NotImplementedError, RuntimeError):
        return 4 * 2**30
