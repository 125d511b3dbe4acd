"""`Trajectory`: what training runs left behind. Frozen; everything that is measured is measured on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from alignment_checks.arguments import described
from alignment_checks.perturbations import Perturbation
from alignment_checks.training import TrainingSetup

Series = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

GROWTH = 1e8
"""A run has diverged where |L| or |G| passes this many times max(1, its value at t = 0)."""


@dataclass(frozen=True)
class Outcome:
    """How a run went: to its last step, or diverged at a step (NaN, ±inf or unbounded growth of L or G there)."""

    diverged_at: int | None = None

    def __str__(self) -> str:
        return "finished" if self.diverged_at is None else f"diverged at step {self.diverged_at}"


@dataclass(frozen=True)
class Run:
    """One row of a trajectory.

    Attributes
    ----------
    perturbation : Perturbation
        What it was trained under.
    base : Perturbation
        What it was scored under.
    seed : int
    backend : str
        "lanes" or "loop".
    reason : str or None
        Why the run did not go through lanes, or what slowed it there.
    outcome : Outcome
    infimum : float or None
        A lower bound of the objective that it was scored by.
    """

    perturbation: Perturbation
    base: Perturbation
    seed: int
    backend: str
    reason: str | None
    outcome: Outcome
    infimum: float | None


@dataclass(frozen=True, eq=False)
class End:
    """Where a run ended: θ(T), its last step θ(T) − θ(T−1), and the learning rate of each parameter group after it.

    The tensors of a run that diverged are NaN.
    """

    parameters: Mapping[str, Tensor]
    step: Mapping[str, Tensor]
    learning_rate: tuple[float, ...]


def _every_step() -> Steps:
    """Return what stands for 0 … T, whatever T is."""
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Runs of one setup, perturbation-major, at the steps that were recorded: 0, k, 2k, … and T (`record_every` is k).

    Attributes
    ----------
    setup : TrainingSetup
    base : ndarray of float64, shape (runs, records)
        L(t): the base objective over the whole dataset at θ(t). NaN after the step at which a run diverged.
    mesa : ndarray of float64, shape (runs, records)
        G(t): the mesa-objective at the same θ(t).
    runs : tuple of Run
    resolution : float
        Machine epsilon of the dtype in which L and G were computed.
    t : ndarray of int64, shape (records,)
        The recorded steps: 0 … T where `record_every` is 1.
    """

    setup: TrainingSetup
    base: Series
    mesa: Series
    runs: tuple[Run, ...]
    resolution: float
    ends: Callable[[], tuple[End, ...]]
    t: Steps = field(default_factory=_every_step)

    def __post_init__(self) -> None:
        if not self.t.size:
            object.__setattr__(self, "t", np.arange(self.base.shape[1]))
        for values in (self.base, self.mesa, self.t):
            values.flags.writeable = False

    @cached_property
    def end(self) -> tuple[End, ...]:
        """Where each run ended. Kept while small; beyond that, trained again when asked for."""
        return self.ends()

    def until(self, steps: int) -> Trajectory:
        """Return the same runs read up to t = `steps`, linear between records; their ends stay where they are."""
        if steps >= self.t[-1]:
            return self
        t = np.append(self.t[self.t < steps], steps)
        base, mesa = (np.array([np.interp(t, self.t, row) for row in side]) for side in (self.base, self.mesa))
        return replace(self, base=base, mesa=mesa, t=t)


def check_trajectory(trajectory: object) -> None:
    """Raise TypeError if it is no trajectory."""
    if not isinstance(trajectory, Trajectory):
        raise TypeError(f"expected a Trajectory; got {described(trajectory)}. Train one: ac.run(setup)")


def settled(base: Series, mesa: Series, t: Steps) -> tuple[Series, Series, tuple[Outcome, ...]]:
    """Return the series with NaN after each divergence, and the outcome of each run.

    Parameters
    ----------
    base, mesa : ndarray of float64, shape (runs, records)
    t : ndarray of int64, shape (records,)
        The recorded steps.
    """
    outcomes = []
    for row in range(len(base)):
        at = divergence(base[row], mesa[row])
        outcomes.append(Outcome(None if at is None else int(t[at])))
        if at is not None:
            base[row, at + 1 :] = mesa[row, at + 1 :] = np.nan
    return base, mesa, tuple(outcomes)


def divergence(*series: Series) -> int | None:
    """Return the first record at which a series is not finite or has grown beyond all bounds, or None."""
    beyond = np.logical_or.reduce([is_beyond(values, values[0]) for values in series])
    return int(beyond.argmax()) if beyond.any() else None


def is_beyond(value: Series | float, first: Series | float) -> npt.NDArray[np.bool_]:
    """Return whether values that were `first` at t = 0 have diverged: elementwise, True for NaN and ±inf."""
    with np.errstate(invalid="ignore"):
        return np.asarray(~(np.abs(value) <= bound(first)))


def bound(first: Series | float) -> Series:
    """Return the magnitude beyond which values that were `first` at t = 0 have diverged, 0 where that is not finite."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(first), GROWTH * np.maximum(1.0, np.abs(first)), 0.0)
