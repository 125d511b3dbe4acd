"""On a device whose memory cannot be read, `meta`, whole runs go through lanes: nothing is read before the last step.

So none of a step's tensors are left on the CPU by mistake, and an accelerator never waits for the host.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler as schedules

import alignment_checks as ac
from alignment_checks.backends import lanes
from alignment_checks.backends.compilation.graphs import Graphs
from alignment_checks.backends.job import Job
from alignment_checks.backends.stepping.stepper import Stepper, Way
from alignment_checks.perturbations import Perturbation
from alignment_checks.setups.realization import randomness, realize

MODELS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)),
    "convolution": lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
    "batch norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Dropout(0.3), nn.Linear(5, 3)),
}
DECAYING = partial(schedules.StepLR, step_size=2)
SETUPS = {
    **{model: {"model": MODELS[model]} for model in MODELS},
    "minibatches": {"batch_size": 5},
    "a schedule": {"scheduler": DECAYING},
    "Adam": {"optimizer": torch.optim.Adam},
    "lists of tensors": {"optimizer": partial(torch.optim.Adam, foreach=True)},
    "a lower precision": {"dtype": torch.bfloat16},
}
DELTAS = {
    "same": lambda number: None,
    "learning_rate": lambda number: Perturbation("learning_rate", 0.1 + number, 3.0, 0),
    "lr_decay": lambda number: Perturbation("lr_decay", 0.1 + number, 3.0, 0),
    "gradient_noise": lambda number: Perturbation("gradient_noise", 0.1, 3.0, number),
    "label_noise": lambda number: Perturbation("label_noise", 0.5, 1.0, number),
    "precision": lambda number: Perturbation("precision", 10.0, 16.0, 0),
}


class Trained(Exception):  # noqa: N818
    """The last step is taken."""


@pytest.mark.parametrize("way", [way for way in Way if way is not Way.WIDE])  # several batches are of a CPU
@pytest.mark.parametrize(
    ("setup", "delta"),
    [*((setup, "same") for setup in SETUPS), *(("Adam", delta) for delta in DELTAS), ("a schedule", "lr_decay")],
)
def test_nothing_is_read_from_the_device_before_the_last_step(setup, delta, way, monkeypatch):
    def settle(stepper):
        raise Trained

    monkeypatch.setattr(Stepper, "settle", settle)
    x, y = torch.randn(12, 1, 6, 6), torch.arange(12) % 3
    plain = {"model": MODELS["mlp"], "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9), "steps": 4}
    first = realize(ac.TrainingSetup(data=(x, y), objective=cross_entropy, **plain | SETUPS[setup]), 0)
    deltas = [DELTAS[delta](number) for number in range(3)]
    runs = [first if one is None else one.applied(first) for one in deltas]
    jobs = [Job(run, (None,), randomness(first)) for run in runs]
    with pytest.raises(Trained):
        lanes._Lanes(jobs, torch.device("meta"), way, (), Graphs(traces=False)).recorded()
