"""Perturbations of dataset, init, objective, optimizer and gradient: functions that return Hypothesis strategies of δ.

>>> from alignment_checks import perturbations as pt
>>> pt.label_noise(max_rate=0.05)
label_noise(max_rate=0.05)
"""

from alignment_checks.perturbations.composition import compose, custom
from alignment_checks.perturbations.dataset import (
    feature_noise,
    label_noise,
    label_permutation,
    redraw,
    subsample,
)
from alignment_checks.perturbations.gradient import batch_size, gradient_noise, precision
from alignment_checks.perturbations.init import init_gain, init_interpolation, init_jitter, init_seed
from alignment_checks.perturbations.objective import l2_penalty, label_smoothing, objective_mix
from alignment_checks.perturbations.optimizer import learning_rate, lr_decay, momentum
from alignment_checks.perturbations.value import IDENTITY, Perturbation, reattached

__all__ = [
    "IDENTITY",
    "Perturbation",
    "batch_size",
    "compose",
    "custom",
    "feature_noise",
    "gradient_noise",
    "init_gain",
    "init_interpolation",
    "init_jitter",
    "init_seed",
    "l2_penalty",
    "label_noise",
    "label_permutation",
    "label_smoothing",
    "learning_rate",
    "lr_decay",
    "momentum",
    "objective_mix",
    "precision",
    "reattached",
    "redraw",
    "subsample",
]
