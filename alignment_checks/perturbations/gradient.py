"""Perturbations of the gradient that a step is given: noise on it, the examples it is of, the dtype it is taken in.

Each family's strategy and its effect on a run stand together.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from hypothesis.strategies import SearchStrategy

from alignment_checks.perturbations.family import LARGEST_LOG2, Family, as_asked, up_to
from alignment_checks.perturbations.value import Perturbation
from alignment_checks.setups.realization import GradientNoise, Realization

# ------------------------------------------------------------------------------------------------------ gradient noise


def gradient_noise(max_scale: float) -> SearchStrategy[Perturbation]:
    """Add Gaussian noise of standard deviation `scale` to each element of each step's gradient (annealing).

    The noise of each step is drawn once and scaled. G stays the clean gradient's (Neelakantan et al., *Adding gradient
    noise improves learning for very deep networks*, 2015).

    Parameters
    ----------
    max_scale : float above 0
        In units of the gradient.
    """
    return up_to(GRADIENT_NOISE, "max_scale", max_scale)


def _disturb(run: Realization, delta: Perturbation) -> Realization:
    return replace(run, noise=(*run.noise, GradientNoise(float(delta.magnitude or 0.0), delta.seed)))


GRADIENT_NOISE = Family("gradient_noise", "optimizer", "scale", _disturb, as_asked, seeded=True)


# ---------------------------------------------------------------------------------------------------------- batch size


def batch_size(max_log2: float) -> SearchStrategy[Perturbation]:
    """Multiply the batch size by 2^m, m in [−max_log2, max_log2], rounded, and at least 1 and at most all N examples.

    Full batch is a batch of all N: it can only become smaller.

    Parameters
    ----------
    max_log2 : float in (0, 1023]
    """
    return up_to(BATCH_SIZE, "max_log2", max_log2)


def _resize(run: Realization, delta: Perturbation) -> Realization:
    if run.data is None:
        raise ValueError("batch_size needs a dataset; this setup has none (data=None)")
    before = _size(run)
    after = max(1, round(min(before * 2.0 ** float(delta.magnitude or 0.0), run.examples)))
    return run if after == before else replace(run, batch_size=after)


def _resized(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    return math.log2(_size(after) / _size(before))


def _size(run: Realization) -> int:
    """Return how many examples a step sees; fewer than its batch size where data were left out."""
    return run.examples if run.batch_size is None else min(run.batch_size, run.examples)


BATCH_SIZE = Family("batch_size", "optimizer", "log2", _resize, _resized, most=LARGEST_LOG2, signed=True)


# ----------------------------------------------------------------------------------------------------------- precision

CHAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Dtypes to train in, of 53, 24, 11 and 8 significand bits."""


def precision(max_bits: float) -> SearchStrategy[Perturbation]:
    """Train in a lower dtype: the widest of float64, float32, float16, bfloat16 that gives up at least so many bits.

    A bit is one of the significand, relative to what the setup trains in: from float32, up to 13 bits are float16 and
    up to 16 bfloat16; from float64, up to 29 are float32. What lies beyond bfloat16 is bfloat16. L and G are still
    taken in the setup's own dtype, at the θ(t) that the lower one leads to.

    Parameters
    ----------
    max_bits : float above 0
    """
    return up_to(PRECISION, "max_bits", max_bits)


def _bits(dtype: torch.dtype) -> int:
    return 1 - round(math.log2(torch.finfo(dtype).eps))


def _trained_in(run: Realization) -> torch.dtype:
    return run.dtype or next(iter(run.parameters.values())).dtype


def _lower(run: Realization, delta: Perturbation) -> Realization:
    own = _bits(_trained_in(run))
    lower = [dtype for dtype in CHAIN if own - _bits(dtype) >= (delta.magnitude or 0.0)]
    chosen = lower[0] if lower else CHAIN[-1]
    return run if _bits(chosen) >= own else replace(run, dtype=chosen)


def _given_up(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    return float(_bits(_trained_in(before)) - _bits(_trained_in(after)))


PRECISION = Family("precision", "optimizer", "bits", _lower, _given_up, vanishes=False)


FAMILIES = (GRADIENT_NOISE, BATCH_SIZE, PRECISION)
