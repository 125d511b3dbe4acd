"""Which lanes of a batch have diverged: nothing that follows can change what is recorded of them.

A lower bound of L would prove some failures before the last step as well: L ≥ 0 does of a third to a half of the runs
in the searches of `tests/benchmarks/counterexample.py`. But a call ends only with all of its lanes, and shrinking looks
where they hardly fail: of their steps that would spare 0 to 4 %. Of runs that the loop trains it would spare 13 to 35
%, and leave each without the severity by which it is shrunk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from torch import Tensor

from alignment_checks.backends.job import Job
from alignment_checks.trajectory import Series, is_beyond

LOOKED = 16
"""Steps between two looks, each of which reads a few numbers back from the device."""

Scored = Sequence[tuple[Sequence[tuple[int, int]], Tensor]]
"""Records of scores, each with the (lane, score) that its columns belong to."""


class Lost:
    """The lanes that nobody asks for any more.

    Parameters
    ----------
    jobs : sequence of Job
        One for each lane.
    idle : collection of int
        Lanes that nobody has asked for.
    """

    def __init__(self, jobs: Sequence[Job], idle: Collection[int] = ()) -> None:
        self.lanes, self._due = frozenset(idle), LOOKED
        self._plain = np.array([None in job.scores for job in jobs])

    @property
    def all(self) -> bool:
        """Whether no lane is left."""
        return len(self.lanes) == len(self._plain)

    def look(self, t: int, at: int, losses: Tensor, pursued: Tensor, scored: Scored) -> bool:
        """Look at the records, each of shape (records, lanes), if it is time to; return whether more lanes are lost.

        A lane is lost where G has diverged, or L under every score: as the loop has it, which ends there.
        """
        if t < self._due:
            return False
        self._due = t + LOOKED
        goes_on = self._plain & ~_beyond(losses, at)
        for where, record in scored:
            np.logical_or.at(goes_on, [lane for lane, _ in where], ~_beyond(record, at))
        goes_on &= ~_beyond(pursued, at)
        before, self.lanes = self.lanes, self.lanes.union(np.flatnonzero(~goes_on).tolist())
        return len(self.lanes) > len(before)


def _beyond(record: Tensor, at: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    first, here = (_row(record, row) for row in (0, at))
    return is_beyond(here, first)


def _row(record: Tensor, at: int) -> Series:
    return np.asarray(record[at].cpu().double().numpy())
