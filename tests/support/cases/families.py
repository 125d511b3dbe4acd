"""A strategy of each family, by the call that makes it, and of several composed."""

from dataclasses import replace

import torch

import alignment_checks as ac
from alignment_checks import perturbations as pt

POOL = (torch.arange(200, dtype=torch.float64).reshape(40, 5) % 7 / 2, torch.arange(40) % 3)


def halved(run, magnitude, generator):
    """Shrink θ(0) by a random amount of at most `magnitude`."""
    keep = 1 - magnitude * float(torch.rand((), generator=generator)) / 2
    return replace(run, parameters={name: keep * value for name, value in run.parameters.items()})


DRAWN = {
    "label_noise(max_rate=0.5)": pt.label_noise(max_rate=0.5),
    "label_permutation(max_fraction=0.8)": pt.label_permutation(max_fraction=0.8),
    "feature_noise(max_sigma=2)": pt.feature_noise(max_sigma=2),
    "subsample(max_fraction=0.9)": pt.subsample(max_fraction=0.9),
    "redraw(max_fraction=1, pool=DIGEST)": pt.redraw(max_fraction=1, pool=POOL),
    "init_seed()": pt.init_seed(),
    "init_jitter(max_sigma=0.5)": pt.init_jitter(max_sigma=0.5),
    "init_gain(max_log2=2)": pt.init_gain(max_log2=2),
    "init_interpolation(other=7)": pt.init_interpolation(other=7),
    "objective_mix(other=brier)": pt.objective_mix(ac.brier),
    "label_smoothing(max_epsilon=0.3)": pt.label_smoothing(max_epsilon=0.3),
    "l2_penalty(max_weight=0.1)": pt.l2_penalty(max_weight=0.1),
    "learning_rate(max_log2=1)": pt.learning_rate(max_log2=1),
    "lr_decay(max_rate=0.5)": pt.lr_decay(max_rate=0.5),
    "momentum(max_change=0.5)": pt.momentum(max_change=0.5),
    "gradient_noise(max_scale=0.5)": pt.gradient_noise(max_scale=0.5),
    "batch_size(max_log2=2)": pt.batch_size(max_log2=2),
    "precision(max_bits=45)": pt.precision(max_bits=45),
    "halved(max_magnitude=1)": pt.custom("halved", halved, max_magnitude=1),
}
SINGLE = {call.split("(")[0]: strategy for call, strategy in DRAWN.items()}
TOGETHER = "compose(init_gain(max_log2=2), label_noise(max_rate=0.5), halved(max_magnitude=1))"
DRAWN[TOGETHER] = pt.compose(SINGLE["init_gain"], SINGLE["label_noise"], SINGLE["halved"])
EVERY = SINGLE | {"compose": DRAWN[TOGETHER]}
