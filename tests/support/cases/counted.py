"""An optimizer that counts: which steps were taken, and for how many different runs."""

from functools import partial

import torch


class Counted:
    """An optimizer factory that counts the steps of its optimizers, and the different runs that each step serves."""

    def __init__(self):
        self.gradients = []

    def __call__(self, parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_post_hook(partial(self.stepped, parameters[0]))
        return optimizer

    def stepped(self, parameter, *_):
        self.gradients.append(parameter.grad.detach().clone())

    @property
    def steps(self):
        return len(self.gradients)

    @property
    def lanes(self):
        return [len(torch.unique(g.reshape(-1, *g.shape[-2:]), dim=0)) for g in self.gradients]
