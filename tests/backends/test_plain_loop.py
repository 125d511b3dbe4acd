"""What a loop of plain torch can train is trained so: models that write into themselves, branch, or are scripted."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks.backends import loop
from alignment_checks.backends.job import Job
from alignment_checks.backends.minibatches import minibatches
from alignment_checks.perturbations import Perturbation
from alignment_checks.runs import along, follow
from alignment_checks.setups.realization import realize

CPU = torch.device("cpu")
STEPS = 12


def plainly(setup, seed):
    """Return L before each step and after the last, and θ(T), by a loop that has never heard of lanes."""
    run = realize(setup, seed)
    module, measuring = (setup.model().to(torch.float64) for _ in range(2))
    for name, parameter in module.named_parameters():
        parameter.data.copy_(next(v for n, v in run.parameters.items() if n.endswith(name)))
    optimizer, losses = setup.optimizer(module.parameters()), []
    batches, (x, y) = minibatches(run, CPU), run.data
    for t in range(STEPS + 1):
        measuring.load_state_dict(module.state_dict())
        losses.append(cross_entropy(measuring(x), y).item())
        if t < STEPS:
            batch = next(batches)
            some = slice(None) if batch is None else batch
            optimizer.zero_grad()
            cross_entropy(module(x[some]), y[some]).backward()
            optimizer.step()
    return losses, [parameter.detach() for parameter in module.parameters()]


def decaying(parameters):
    """What is not renormalized decays otherwise: a measurement that renormalizes shows."""
    return torch.optim.SGD(parameters, lr=0.5, momentum=0.5, weight_decay=0.1)


def setup(model, data, **more):
    more = {"optimizer": decaying, "steps": STEPS, "dtype": torch.float64, **more}
    return ac.TrainingSetup(model, data, cross_entropy, **more)


def words():
    return torch.arange(24) % 8, torch.arange(24) % 3


def renormalized():
    embedding = nn.Embedding(8, 4, max_norm=1.0)
    nn.init.normal_(embedding.weight, std=3.0)
    return nn.Sequential(embedding, nn.Linear(4, 3))


class Clamped(nn.Module):
    """Weights clamped by the forward pass through `.data`, which leaves no trace in their version."""

    def __init__(self):
        super().__init__()
        self.rows, self.layer = nn.Embedding(8, 4), nn.Linear(4, 3)

    def forward(self, x):
        self.layer.weight.data.clamp_(-0.3, 0.3)
        return self.layer(self.rows(x))


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("model", [renormalized, Clamped])
@pytest.mark.parametrize("backend", ["loop", "auto"])
def test_measuring_never_changes_the_weights_that_a_model_writes_into(model, batch_size, backend):
    often = setup(model, words(), batch_size=batch_size)
    seldom = setup(model, words(), batch_size=batch_size, record_every=STEPS)
    for seeds in ([0], [0, 1]):
        found, rarely = (ac.run(one, seeds=seeds, backend=backend, device="cpu") for one in (often, seldom))
        np.testing.assert_array_equal(found.base[:, [0, -1]], rarely.base)
        for row, seed in enumerate(seeds):
            losses, parameters = plainly(often, seed)
            np.testing.assert_allclose(found.base[row], losses, rtol=1e-12)
            for mine, oracle in zip(found.end[row].parameters.values(), parameters, strict=True):
                torch.testing.assert_close(mine, oracle, rtol=1e-12, atol=1e-12)


def trained(jobs, writes):
    return [loop.train(job, CPU, writes=writes) for job in jobs]


@pytest.mark.parametrize("hidden", [4, 64])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_watching_the_first_measurement_for_writes_changes_no_bit(hidden, batch_size):
    def model():
        return nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3))

    jobs = [Job(realize(setup(model, words(), batch_size=batch_size), seed), (None,)) for seed in range(3)]
    for watched, told in zip(trained(jobs, None), trained(jobs, False), strict=True):
        np.testing.assert_array_equal(watched.base, told.base)
        np.testing.assert_array_equal(watched.mesa, told.mesa)


@pytest.mark.parametrize("model", [renormalized, Clamped])
def test_scoring_along_a_run_never_changes_its_weights(model):
    (path,) = follow(setup(model, words()), [0])
    before = {name: value.clone() for name, value in path.parameters.items()}
    noisy = Perturbation("label_noise", 0.5, 1.0, 1)
    first = along([path], [noisy, noisy.at(0.25)])
    assert all(torch.equal(path.parameters[name], value) for name, value in before.items())
    np.testing.assert_array_equal(first.base, along([path], [noisy, noisy.at(0.25)]).base)


class Chosen(nn.Module):
    """One of two functions, by `torch.cond`."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        h = self.layer(x)
        return torch.cond(h.sum() > 0, torch.sin, torch.cos, (h,))


def layers():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


MODELS = {
    "scripted": lambda: torch.jit.script(layers()),
    "a scripted part": lambda: nn.Sequential(nn.Linear(4, 4), torch.jit.script(layers())),
    "a traced part": lambda: nn.Sequential(torch.jit.trace(layers().double(), torch.ones(1, 4).double())),
}


def inputs():
    return torch.randn(24, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("backend", ["loop", "lanes"])
@pytest.mark.parametrize("name", MODELS)
def test_scripted_models_are_trained_as_plain_torch_trains_them(name, backend):
    blobs = setup(MODELS[name], inputs())
    for seeds in ([0], [0, 1]):
        found = ac.run(blobs, seeds=seeds, backend=backend, device="cpu")
        np.testing.assert_allclose(found.base[0], plainly(blobs, 0)[0], rtol=1e-10)


@pytest.mark.slow  # torch compiles each of its calls
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_model_that_branches_by_cond_is_trained_in_the_loop():
    blobs = setup(Chosen, inputs())
    found = ac.run(blobs, seeds=range(6), backend="auto", device="cpu")
    np.testing.assert_allclose(found.base[0], plainly(blobs, 0)[0], rtol=1e-10)
    assert {run.backend for run in found.runs} == {"loop"}
    assert "the model branches by torch.cond" in found.runs[0].reason
