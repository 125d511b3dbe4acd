"""Gradient descent on a quadratic, and trajectories that are made up."""

from functools import partial

import numpy as np
import torch

import alignment_checks as ac
from alignment_checks.perturbations import IDENTITY
from alignment_checks.trajectory import Run, Trajectory, settled

EXACT = 1e-9


def half_square(curvature):
    return lambda x: 0.5 * curvature * x.square().sum()


def bowl(curvature=1.0, start=1.0, lr=0.1, steps=50, **more):
    """Return gradient descent on ½λθ²."""
    return ac.landscape(half_square(curvature), [start], optimizer=partial(torch.optim.SGD, lr=lr), steps=steps, **more)


SETUP = bowl()


def recorded(base, mesa, infimum=0.0, resolution=2.0**-52):
    """Return a trajectory that records these series, shape (runs, T + 1)."""
    base, mesa = (np.array(series, dtype=float) for series in (base, mesa))
    base, mesa, outcomes = settled(base, mesa, np.arange(base.shape[1]))
    runs = tuple(Run(IDENTITY, IDENTITY, row, "loop", None, outcome, infimum) for row, outcome in enumerate(outcomes))
    return Trajectory(SETUP, base, mesa, runs, resolution, tuple)
