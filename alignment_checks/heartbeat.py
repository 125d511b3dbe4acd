"""A sign of life from within a batch: what trains says how far it is, to whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int], None]
"""Told a step t and T. It is called once for each step of a batch, or of a run of the loop: it has to be quick."""

_LISTENER: ContextVar[Listener | None] = ContextVar("alignment_checks.heartbeat", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a listener told of each step that is trained within, in this thread and in processes that it forks.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from alignment_checks import landscape, run
    >>> bowl = landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=2)
    >>> with listening(print):
    ...     _ = run(bowl, backend="loop")
    0 2
    1 2
    2 2
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def beat(step: int, steps: int) -> None:
    """Tell whoever listens, if anyone does."""
    if (listener := _LISTENER.get()) is not None:
        listener(step, steps)
