"""Which lanes of a batch have diverged: nothing that follows can change what is recorded of them.

A failure may be proven before the last step as well, but no run is ended for that: it would spare too little, as
`tests/benchmarks/early_stopping.py` prints. C is too high whatever follows once even L = L* from then on would leave it
so. A call of lanes ends only with all of its lanes, and shrinking looks where they hardly fail: 0 to 4 % of their steps
would be spared. In the loop, where a run may end by itself, it would be 4 % of all steps from nothing to a verdict that
fails (median of ten problems, 8 seeds each), and none of a pass: 0 to 8 % of digits, a transformer, convolutions and a
regression, 20 and 33 % of two landscapes. A tenth to a half of the runs would end early, but late in their course: by
little, as most fail, or far above L*, as most settle. And the degradation curve trains some of them again, to the end.

That is if the severity of such a run, by which it is shrunk, were known all the same. With what is proven of it alone,
the smallest δ is twice as large under label noise; with L taken to stay where it is, up to 2.9 times; with L taken to
stay as far from the unperturbed L as it is, up to 1.3 times.

That L was above strong alignment's bound is proven at once: 5, 20 and 36 % of the loop's steps in three searches over
learning rates. It is one assertion's failures, in what lanes cannot train.
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
