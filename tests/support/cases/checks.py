"""Quadratics whose boundaries are known in closed form, and what is tried on them."""

from dataclasses import replace
from functools import partial

import torch

import alignment_checks as ac
from alignment_checks import perturbations as pt

EXACT = 1e-9


SGD = partial(torch.optim.SGD, lr=0.1)


PURSUED = ac.decayed_gradient_l1(0.0)
"""G = gradient_l1 under another name: whether it is the optimizer's own is then not looked into, which takes steps."""


def half_square(x):
    return 0.5 * x.square().sum()


def bowl(function=half_square, start=1.0, steps=40, **more):
    return ac.landscape(function, [start], **{"optimizer": SGD, "steps": steps, **more})


NOISE = pt.label_noise(max_rate=0.3)


GAIN = pt.init_gain(max_log2=1.0)


DOUBLED = pt.objective_mix(lambda outputs, targets: 2 * outputs)


def within(found, bound, resolution=0.01):
    """Return whether a magnitude is the bound, to the resolution from above."""
    return bound * (1 - EXACT) <= abs(found) <= bound / (1 - resolution) * (1 + EXACT)


def replace_mesa(setup):
    return replace(setup, mesa_objective=PURSUED)
