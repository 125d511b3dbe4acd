"""Perturbations of the init θ(0). Each family's strategy and its effect on a run stand together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from alignment_checks.arguments import is_int
from alignment_checks.perturbations.family import LARGEST_LOG2, Family, Named, as_asked, drawn, up_to
from alignment_checks.perturbations.value import Perturbation
from alignment_checks.randomness.seeding import derive
from alignment_checks.setups.fingerprints import content
from alignment_checks.setups.realization import Realization, realize


def init_seed() -> SearchStrategy[Perturbation]:
    """Another init: the model as its factory builds it under another seed. Magnitude 0 or 1."""
    return drawn(INIT_SEED, 1.0, magnitudes=st.just(1.0))


def _reseed(run: Realization, delta: Perturbation) -> Realization:
    if delta.magnitude != 1:
        raise ValueError(f"init_seed: magnitude is 0 (the setup's own init) or 1 (another); got {delta.magnitude}")
    other = realize(run.setup, derive("init_seed", run.seed, delta.seed))
    return replace(run, parameters=other.parameters, constants=other.constants)


INIT_SEED = Family("init_seed", "init", "changed", _reseed, as_asked, seeded=True, continuous=False)


def init_jitter(max_sigma: float) -> SearchStrategy[Perturbation]:
    """Add Gaussian noise to each tensor of θ(0), of norm about sigma times that tensor's own.

    Parameters
    ----------
    max_sigma : float above 0
        A tensor that starts at 0 has norm 0 and stays there.
    """
    return up_to(INIT_JITTER, "max_sigma", max_sigma)


def _jitter(run: Realization, delta: Perturbation) -> Realization:
    random, sigma = delta.generator(), float(delta.magnitude or 0.0)
    moved = {name: _jittered(value, sigma, random) for name, value in run.parameters.items()}
    return replace(run, parameters=moved)


def _jittered(value: Tensor, sigma: float, random: torch.Generator) -> Tensor:
    noise = torch.randn(value.shape, generator=random, dtype=torch.float64, device="cpu")
    scale = sigma * value.double().norm() / max(1, value.numel()) ** 0.5
    moved: Tensor = value.double() + scale * noise
    return moved.to(value.dtype)


def _jitter_done(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    moved = sum(float((after.parameters[n] - v).double().square().sum()) for n, v in before.parameters.items())
    whole = sum(float(v.double().square().sum()) for v in before.parameters.values())
    return (moved / whole) ** 0.5 if whole else 0.0


INIT_JITTER = Family("init_jitter", "init", "sigma", _jitter, _jitter_done, seeded=True)


def init_gain(max_log2: float) -> SearchStrategy[Perturbation]:
    """Multiply θ(0) by 2^m, m in [−max_log2, max_log2].

    Parameters
    ----------
    max_log2 : float in (0, 1023]
    """
    return up_to(INIT_GAIN, "max_log2", max_log2)


def _scale(run: Realization, delta: Perturbation) -> Realization:
    gain = 2.0 ** float(delta.magnitude or 0.0)
    return replace(run, parameters={name: value * gain for name, value in run.parameters.items()})


INIT_GAIN = Family("init_gain", "init", "log2", _scale, as_asked, most=LARGEST_LOG2, signed=True)


def init_interpolation(other: Mapping[str, Tensor] | int) -> SearchStrategy[Perturbation]:
    """Move θ(0) along the straight line to another init: (1 − k)·θ(0) + k·θ′, and exactly θ′ at k = 1.

    Parameters
    ----------
    other : state dict, or int
        θ′: the model's `state_dict()` form, or the seed under which its factory builds it.

    Examples
    --------
    >>> init_interpolation(other=1)
    init_interpolation(other=1)
    """
    option: int | str
    payload: dict[str, Tensor] | None = None
    if is_int(other):
        option = other
    elif isinstance(other, Mapping) and all(isinstance(value, Tensor) for value in other.values()):
        payload = {name: value.detach().cpu().clone() for name, value in other.items()}
        joined = b"".join(name.encode() + content(value) for name, value in sorted(payload.items()))
        option = blake2b(joined, digest_size=6).hexdigest()
    else:
        raise TypeError(f"init_interpolation: `other` must be a state dict or a seed; got {type(other).__name__}")
    return drawn(
        INIT_INTERPOLATION,
        1.0,
        options=(("other", option),),
        payload=payload,
        shown={"other": Named(option)},
    )


def _interpolate(run: Realization, delta: Perturbation) -> Realization:
    there = _other_parameters(run, delta)
    k = float(delta.magnitude or 0.0)
    moved = {n: there[n] if k == 1 else (1 - k) * v + k * there[n] for n, v in run.parameters.items()}
    return replace(run, parameters=moved)


def _other_parameters(run: Realization, delta: Perturbation) -> dict[str, Tensor]:
    option = dict(delta.options)["other"]
    other = realize(run.setup, option).parameters if isinstance(option, int) else delta.payload
    for name, value in run.parameters.items():
        if name not in other or other[name].shape != value.shape:
            came = tuple(other[name].shape) if name in other else "nothing"
            raise ValueError(
                f"init_interpolation: `other` must hold {name!r} of shape {tuple(value.shape)}; got {came}"
            )
    return {name: other[name].to(value.dtype) for name, value in run.parameters.items()}


INIT_INTERPOLATION = Family("init_interpolation", "init", "toward", _interpolate, as_asked, needs="other", most=1.0)


FAMILIES = (INIT_SEED, INIT_JITTER, INIT_GAIN, INIT_INTERPOLATION)
