"""Tasks shared out to processes, one for each core.

vmap in two Python threads crashes, and a setup's functions (lambdas, closures) do not pickle: so the workers are
forked, where forking is safe, and send back what they found.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

T = TypeVar("T")
Task = Callable[[], T]


def shared_out(tasks: Sequence[Task[T]], processes: int) -> list[T]:
    """Return what each task gives, in order; computed by as many processes, this one among them.

    Raises
    ------
    RuntimeError
        If a worker dies.
    """
    count = max(1, min(processes, len(tasks)) if _may_fork() else 1)
    shares = [range(first, len(tasks), count) for first in range(count)]
    workers = [_Worker(tasks, share) for share in shares[1:]]
    try:
        found = {index: tasks[index]() for index in shares[0]}
        for worker in workers:
            found.update(worker.found())
    finally:
        for worker in workers:
            worker.end()
    return [found[index] if index in found else tasks[index]() for index in range(len(tasks))]


def _may_fork() -> bool:
    """Return whether a fork of this process can go on training.

    Not with another Python thread, which may hold a lock at that moment, nor with an accelerator, whose state and
    whose autograd threads a fork does not have.
    """
    alone = threading.active_count() == 1 and threading.current_thread() is threading.main_thread()
    return "fork" in multiprocessing.get_all_start_methods() and alone and not torch.accelerator.is_available()


class _Worker:
    """A forked process that computes its share of the tasks."""

    def __init__(self, tasks: Sequence[Task[T]], share: Sequence[int]) -> None:
        context = multiprocessing.get_context("fork")
        self.receiving, sending = context.Pipe(duplex=False)
        self.process = context.Process(target=_compute, args=(tasks, share, sending), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's idle threads; see `_may_fork`
            self.process.start()
        sending.close()

    def found(self) -> dict[int, T]:
        """Return what the tasks gave, without those that raised: they are computed again, where it can be seen."""
        try:
            return dict(pickle.loads(self.receiving.recv_bytes()))  # noqa: S301 - from our own child
        except EOFError:
            self.process.join()
            raise RuntimeError(
                f"a worker process that was training runs died (exit code {self.process.exitcode}; −9 is often a lack "
                "of memory). torch.set_num_threads(1) keeps all training in one process"
            ) from None

    def end(self) -> None:
        """End the process, whether or not it is done."""
        self.process.terminate()
        self.process.join()
        self.receiving.close()


def _compute(tasks: Sequence[Task[T]], share: Sequence[int], sending: Connection) -> None:
    found = {}
    try:
        for index in share:
            try:
                found[index] = tasks[index]()
            except Exception:  # noqa: S112 - raised again in the process that can report it
                continue
        sending.send_bytes(pickle.dumps(found))
    finally:
        os._exit(0 if found else 1)  # nothing of the parent's is to be cleaned up twice, nor an interrupt printed
