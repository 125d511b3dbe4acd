"""Runs scored along kept weights: equal to runs that are scored as they train, and nothing is trained for it."""

import random
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends import path as paths
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.runs import along, follow
from alignment_checks.search import drawn


class Noisy(nn.Module):
    """Dropout, and a buffer that is not a statistic."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        return self.second(nn.functional.dropout(torch.tanh(self.first(x)), 0.5, self.training))


class Frozen(nn.Module):
    """A frozen first layer: constants that do not change along the path."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6).requires_grad_(False), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


class Stubborn(nn.Module):
    """What vmap cannot batch: it looks at a number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        out = self.layer(x)
        return out if float(out.detach().sum()) > 0 else 1.1 * out


class Unseen(nn.Module):
    """Draws in eval mode too, and where only Python's generator knows of it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x) * random.uniform(0.9, 1.1)


def perceptron():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def normalized():
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


MODELS = [perceptron, normalized, Noisy, Frozen, Stubborn, Unseen]
MIX = drawn(pt.objective_mix(ac.brier), 1, 0)[0]
PUSHED = drawn(pt.redraw(1.0, pool=(torch.ones(4, 5, dtype=torch.float64), torch.zeros(4, dtype=torch.long))), 1, 0)[0]
BASES = [
    IDENTITY,
    MIX.at(0.3),
    MIX.at(1.0),
    Perturbation("label_smoothing", 0.2, 0.5, 0),
    Perturbation("l2_penalty", 0.1, 0.5, 0),
    Perturbation("label_noise", 0.4, 0.5, 3),
    Perturbation("feature_noise", 0.4, 0.5, 3),
    Perturbation("subsample", 0.4, 0.5, 3),
    PUSHED.at(0.5),
    Perturbation("label_noise", 1e-9, 0.5, 3),
    Perturbation(
        "compose",
        None,
        None,
        0,
        components=(Perturbation("label_noise", 0.4, 0.5, 3), Perturbation("label_smoothing", 0.2, 0.5, 0)),
    ),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_scored_along_a_path_is_scored_as_it_trains(blobs, model):
    """Objective and dataset perturbations, batchnorm in training mode and dropout in evaluation mode among them."""
    setup = replace(blobs, model=model)
    found = along(follow(setup, [0, 4]), BASES)
    expected = ac.run(setup, [IDENTITY] * len(BASES), base=BASES, seeds=[0, 4], backend="loop")
    np.testing.assert_allclose(found.base, expected.base, rtol=1e-12)
    np.testing.assert_array_equal(found.mesa, expected.mesa)
    key = [(r.perturbation, r.base, r.seed, r.outcome, r.infimum) for r in found.runs]
    assert key == [(r.perturbation, r.base, r.seed, r.outcome, r.infimum) for r in expected.runs]
    assert found.resolution == expected.resolution


def test_minibatches_momentum_and_a_schedule_make_no_difference(blobs):
    setup = replace(
        blobs,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=2),
        batch_size=10,
    )
    found = along(follow(setup, [0]), BASES)
    expected = ac.run(setup, [IDENTITY] * len(BASES), base=BASES)
    np.testing.assert_allclose(found.base, expected.base, rtol=1e-12)


def test_longer_paths_than_a_chunk_are_whole(monkeypatch, blobs):
    whole = along(follow(blobs, [0]), BASES).base
    monkeypatch.setattr(paths, "_CHUNK", 2)
    np.testing.assert_allclose(along(follow(blobs, [0]), BASES).base, whole, rtol=1e-12)


def test_scoring_takes_no_step_of_any_optimizer_and_computes_no_gradient(blobs, monkeypatch):
    kept, steps = follow(blobs, [0]), []
    monkeypatch.setattr(torch.autograd, "backward", pytest.fail)
    monkeypatch.setattr(torch.autograd, "grad", pytest.fail)
    handle = register_optimizer_step_pre_hook(lambda *_: steps.append(1))
    try:
        along(kept, BASES)
        assert steps == []
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1).step()
        assert steps == [1]
    finally:
        handle.remove()


def test_scoring_leaves_the_path_and_the_random_state_as_they_were(blobs):
    setup = replace(blobs, model=normalized)
    (kept,) = follow(setup, [0])
    before = {name: value.clone() for name, value in (kept.parameters | kept.buffers).items()}
    state = torch.get_rng_state()
    first = along([kept], BASES).base
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in (kept.parameters | kept.buffers).items())
    np.testing.assert_array_equal(along([kept], BASES).base, first)


@pytest.mark.parametrize("base", [Perturbation("l2_penalty", 0.5, 0.5, 0), IDENTITY], ids=str)
def test_a_path_that_diverged_ends_there_under_every_score(base):
    """Beyond 2/λ: the weights are kept up to where the run was given up, and nothing is made up beyond."""
    setup = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=3.0), steps=40)
    kept = follow(setup, [0])
    found, expected = along(kept, [IDENTITY, base]), ac.run(setup, [IDENTITY] * 2, base=[IDENTITY, base])
    np.testing.assert_allclose(found.base, expected.base, rtol=1e-12)
    np.testing.assert_allclose(found.mesa, expected.mesa, rtol=1e-12)
    assert [run.outcome for run in found.runs] == [run.outcome for run in expected.runs]
    assert found.runs[1].outcome.diverged_at is not None
    assert np.isnan(ac.capability(found)).all()
    assert len(next(iter(kept[0].parameters.values()))) < 41


def test_a_score_that_diverges_on_a_path_that_does_not_is_named():
    def broken(outputs, targets):
        return torch.where(outputs < 0.5, torch.nan * outputs, outputs)

    setup = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=10)
    delta = drawn(pt.objective_mix(broken), 1, 0)[0].at(0.5)
    found = along(follow(setup, [0]), [IDENTITY, delta])
    assert [run.outcome.diverged_at for run in found.runs] == [None, 2]
    assert np.isfinite(found.base[0]).all()


@pytest.mark.parametrize("action", ["error", "always"])
def test_a_slow_path_of_what_only_scores_is_reported_and_warns_nobody(blobs, action):
    """Users run with -W error."""
    delta = drawn(pt.objective_mix(torch.nn.MultiMarginLoss()), 1, 0)[0].at(1.0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter(action)
        (run,) = along(follow(blobs, [0]), [delta]).runs
    assert run.reason.startswith("There is a performance drop")
    assert not told


def test_what_cannot_change_the_value_of_a_loss_is_refused(blobs):
    with pytest.raises(ValueError, match="cannot change L's value"):
        along(follow(blobs, [0]), [Perturbation("init_gain", 0.5, 1.0, 0)])


def test_paths_too_large_to_keep_are_not_followed(blobs, monkeypatch):
    monkeypatch.setattr("alignment_checks.runs.LARGEST", 7 * 39 * 8 - 1)
    assert follow(blobs, [0]) is None
    monkeypatch.setattr("alignment_checks.runs.LARGEST", 7 * 39 * 8)
    assert follow(blobs, [0]) is not None
    assert follow(blobs, [0, 1]) is None
