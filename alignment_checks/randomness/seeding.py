"""Randomness that is explicit, seeded, and leaves the user's own as it was found."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch


def derive(*parts: object) -> int:
    """Return a seed in [0, 2⁶³) that depends on every part and on nothing else.

    >>> derive("init", 0) == derive("init", 0), derive("init", 0) == derive("init", 1)
    (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """Return a CPU generator seeded by `parts`: the same draws on every device."""
    return torch.Generator().manual_seed(derive(*parts))


@contextmanager
def isolated(seed: int, *, starts_over: bool = False) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python, and put them back on leaving.

    For code that draws from global state and cannot be told otherwise: a user's model factory, a dropout layer. Within
    one that `starts_over`, others put them back to where that one began, which takes a tenth of the time of keeping
    where they stand, and does not depend on how many others there were.
    """
    around = _AROUND.get()
    token = _AROUND.set(seed if starts_over else None)
    try:
        with _kept() if around is None else _seeded_again(around):
            _seed(seed)
            yield
    finally:
        _AROUND.reset(token)


_AROUND: ContextVar[int | None] = ContextVar("alignment_checks.randomness.seeding", default=None)
"""The seed of the context around, where that starts over."""


def moved_from(seed: int) -> bool:
    """Return whether anything has drawn from the global generators since `seed` was put into them.

    What they draw next tells, which takes a tenth of the time of looking where they stand; they are moved by it.

    Examples
    --------
    >>> with isolated(1):
    ...     moved_from(1), moved_from(1)
    (False, True)
    """
    found = _next()
    _seed(seed)
    return found != _next()


def states() -> tuple[object, ...]:
    """Return where the global generators of torch for the CPU, of NumPy and of Python stand.

    Examples
    --------
    >>> before = states()
    >>> states() == before, random.random() < 1, states() == before
    (True, True, False)
    """
    of_numpy: Any = np.random.get_state(legacy=False)
    inner = {name: one.tobytes() if isinstance(one, np.ndarray) else one for name, one in of_numpy["state"].items()}
    return torch.get_rng_state().numpy().tobytes(), {**of_numpy, "state": inner}, random.getstate()


def _next() -> tuple[float, ...]:
    of_torch = torch.randint(2**62, (), device="cpu")  # wherever a user has tensors made
    return of_torch.item(), np.random.random(), random.random()  # noqa: S311


@contextmanager
def _kept() -> Iterator[None]:
    """Put the global generators back on leaving."""
    before_python, before_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(**_generators()):
        try:
            yield
        finally:
            random.setstate(before_python)
            np.random.set_state(before_numpy)


@contextmanager
def _seeded_again(seed: int) -> Iterator[None]:
    """Seed the global generators on leaving."""
    try:
        yield
    finally:
        _seed(seed)


def _seed(seed: int) -> None:
    """Seed the global generators.

    Not by `torch.manual_seed`: it also has each accelerator that is not in use yet seeded when it first is, and that is
    after the user's state was put back.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.accelerator.is_available():
        module = torch.get_device_module()
        getattr(module, "manual_seed_all", module.manual_seed)(seed)


def _generators() -> dict[str, Any]:
    """Return the arguments with which `fork_rng` keeps the generators of the CPU and of every accelerator."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return {"devices": []}
    return {"devices": list(range(torch.accelerator.device_count())), "device_type": accelerator.type}
