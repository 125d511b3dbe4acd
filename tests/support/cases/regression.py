"""The least setup that an error is about: a linear regression of three features."""

from functools import partial

import torch
from torch import nn
from torch.nn.functional import mse_loss

import alignment_checks as ac

SGD = partial(torch.optim.SGD, lr=0.1)


def linear():
    return nn.Linear(3, 1)


def regression(**changes):
    arguments = {"model": linear, "data": (torch.ones(8, 3), torch.zeros(8, 1)), "objective": mse_loss}
    return ac.TrainingSetup(**({**arguments, "optimizer": SGD, "steps": 3} | changes))
