"""Five planted problems, for `counterexample.py`: each a property that fails under some δ of a strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from hypothesis import find
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.setups.realization import Realization


@dataclass(frozen=True)
class Problem:
    """A property that fails under some δ of a strategy: capability ≈ within `rtol`.

    `numbers` is what a user of plain Hypothesis draws instead, and `built` makes the same δ of them.
    """

    name: str
    setup: ac.TrainingSetup
    under: SearchStrategy[Perturbation]
    rtol: float
    numbers: dict[str, SearchStrategy[float]]
    built: Callable[..., Perturbation]
    boundary: Callable[[Perturbation], float] | None = None


def digits(*, batch_size: int | None = None) -> ac.TrainingSetup:
    """Return an MLP that tells a handwritten 3 from a 7."""
    found = load_digits()
    kept = (found.target == 3) | (found.target == 7)
    x = torch.tensor(found.data[kept] / 16, dtype=torch.float32)
    y = torch.tensor((found.target[kept] == 7).astype(int))
    return ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)),
        data=(x, y),
        objective=cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=200,
        batch_size=batch_size,
    )


def bowl(theta: torch.Tensor) -> torch.Tensor:
    """½·λ·θ² with λ = 1."""
    return theta.square().sum() / 2


def niche(theta: torch.Tensor) -> torch.Tensor:
    """w² in a world that is flatter where x, y and z are all large: a corner of 1 % of the cube that they span."""
    w, others = theta[0], theta[1:]
    smallest = -torch.logsumexp(-40 * others, 0) / 40
    return w.square() * (1 - 0.5 * torch.sigmoid(40 * (smallest - 0.79)))


def _shift(index: int, run: Realization, magnitude: float, _: torch.Generator) -> Realization:
    (name, value), *_rest = run.parameters.items()
    moved = value.clone()
    moved[index] += magnitude
    return replace(run, parameters={**run.parameters, name: moved})


def shift_x(run: Realization, magnitude: float, generator: torch.Generator) -> Realization:
    """Start farther along x."""
    return _shift(1, run, magnitude, generator)


def shift_y(run: Realization, magnitude: float, generator: torch.Generator) -> Realization:
    """Start farther along y."""
    return _shift(2, run, magnitude, generator)


def shift_z(run: Realization, magnitude: float, generator: torch.Generator) -> Realization:
    """Start farther along z."""
    return _shift(3, run, magnitude, generator)


SEEDS = st.integers(0, 2**16 - 1)


def label_noise(rate: float, seed: int) -> Perturbation:
    """Return δ of plain numbers."""
    return Perturbation("label_noise", rate, 0.05, seed)


def three(rate: float, gain: float, sigma: float, flips: int, noise: int) -> Perturbation:
    """Return δ of plain numbers."""
    parts = [Perturbation("init_gain", gain, 1.0, 0), Perturbation("feature_noise", sigma, 0.5, noise)]
    return assembled([label_noise(rate, flips), *parts])


def problems() -> list[Problem]:
    """Return the five problems."""
    gradient_descent = partial(torch.optim.SGD, lr=0.1)
    rate, noisy = st.floats(0, 0.05), pt.label_noise(max_rate=0.05)
    shifts = [pt.custom(shift.__name__, shift, 1.0) for shift in (shift_x, shift_y, shift_z)]
    shifted = [find(strategy, lambda _: True).at for strategy in shifts]
    return [
        Problem("digits under label noise", digits(), noisy, 0.10, {"rate": rate, "seed": SEEDS}, label_noise),
        Problem(
            "three families composed",
            digits(),
            pt.compose(noisy, pt.init_gain(max_log2=1.0), pt.feature_noise(max_sigma=0.5)),
            0.25,
            {"rate": rate, "gain": st.floats(-1, 1), "sigma": st.floats(0, 0.5), "flips": SEEDS, "noise": SEEDS},
            three,
        ),
        Problem(
            "a corner of 1 %",
            ac.landscape(niche, [1.0, 0.0, 0.0, 0.0], optimizer=gradient_descent, steps=100),
            pt.compose(*shifts),
            0.10,
            {name: st.floats(0, 1) for name in "xyz"},
            lambda **at: assembled([place(at[name]) for name, place in zip("xyz", shifted, strict=True)]),
        ),
        Problem("minibatches of 64", digits(batch_size=64), noisy, 0.10, {"rate": rate, "seed": SEEDS}, label_noise),
        Problem(
            "a bowl, in closed form",
            ac.landscape(bowl, [1.0], optimizer=gradient_descent, steps=100),
            pt.init_gain(max_log2=2.0),
            0.10,
            {"gain": st.floats(-2, 2)},
            lambda gain: Perturbation("init_gain", gain, 2.0, 0),
            boundary=lambda delta: math.log2(1.1 if (delta.magnitude or 0) > 0 else 1 / 0.9) / 2,
        ),
    ]
