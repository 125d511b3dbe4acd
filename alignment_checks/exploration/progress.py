"""How far a search has come, told while it goes on, and how long it may go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from alignment_checks.inference.judgement import Judgement
from alignment_checks.perturbations import Perturbation

Judged = tuple[Perturbation, Judgement]


@dataclass(frozen=True)
class Progress:
    """Where a search stands: told before each batch trains, and again once it is judged.

    Attributes
    ----------
    in_flight : tuple of Perturbation
        The batch about to be trained; empty once it has been judged.
    confirming : bool
        Whether that batch is the one that trains the failures afresh.
    rounds : int
        Batches judged.
    judged, planned : int
        Perturbations judged, and how many are meant to be as long as nothing fails. Rounds toward the worst seen raise
        it one by one, and shrinking a failure goes beyond.
    runs : int
        Runs trained; fewer than `judged` where several perturbations come to the same run.
    failures : int
        Failing perturbations so far.
    smallest, first : (Perturbation, Judgement) or None
        The smallest failure so far, and the first one as it was found: unshrunk, not yet trained afresh.
    seconds : float
        Since the search began.
    """

    in_flight: tuple[Perturbation, ...]
    confirming: bool
    rounds: int
    judged: int
    planned: int
    runs: int
    failures: int
    smallest: Judged | None
    first: Judged | None
    seconds: float


Watch = Callable[[Progress], None]
"""What is told. It is called in the search's own thread; what it raises ends the search and reaches the caller."""


class OutOfTimeError(Exception):
    """The time ended before the next batch began: what is known by then is the result."""


class Budget:
    """The seconds that a search may take, looked at before each batch: it is exceeded by one batch at most.

    Parameters
    ----------
    seconds : float or None
        None is without end.
    now : callable
        The clock, in seconds.
    """

    def __init__(self, seconds: float | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.now = math.inf if seconds is None else seconds, now
        self.began = now()
        self.longest = 0.0

    @property
    def spent(self) -> float:
        """Seconds since the search began."""
        return self.now() - self.began

    @property
    def left(self) -> float:
        """Seconds left; below 0 where the time is over."""
        return self.limit - self.spent

    def affords(self, batches: int = 1) -> bool:
        """Return whether so many batches can begin in time, if each takes as long as the longest so far."""
        return self.left > self.longest * (batches - 1)

    def timed(self, work: Callable[[], None]) -> None:
        """Do one batch, and remember how long the longest took."""
        before = self.spent
        work()
        self.longest = max(self.longest, self.spent - before)
