"""How many threads torch may use: the cores, shared among the workers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def is_worker(config: pytest.Config) -> bool:
    """Return whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def allotted(config: pytest.Config) -> int:
    """Return the threads that one process of this run may use; OMP_NUM_THREADS lowers it."""
    share = max(1, _cores() // workers(config))
    wished = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(wished)) if re.fullmatch("[1-9][0-9]{0,5}", wished) else share


def workers(config: pytest.Config) -> int:
    """Return how many processes run tests: 1 without pytest-xdist."""
    if is_worker(config):
        return max(1, int(getattr(config, "workerinput")["workercount"]))  # noqa: B009
    specs = config.getoption("tx", default=None) or []
    distributed = config.getoption("dist", default="no") != "no"
    return max(1, sum(map(_processes, specs))) if distributed else 1


def _processes(spec: str) -> int:
    """Return how many processes an execution environment of pytest-xdist means: "popen" is one, "3*popen" three."""
    count, star, _ = spec.partition("*")
    return int(count) if star and re.fullmatch("[0-9]{1,6}", count) else 1


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def limited(config: pytest.Config) -> Iterator[None]:
    """Keep torch, in a worker, to its share of the cores: two that each take all of them are many times slower."""
    import torch

    before = torch.get_num_threads()
    if is_worker(config):
        torch.set_num_threads(min(before, allotted(config)))
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
