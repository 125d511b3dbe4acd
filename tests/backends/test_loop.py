"""The oracle: the plain loop against closed forms, and against loops written out by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from cases.oracle import close, run, sgd
from hypothesis import find, settings
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.setups.realization import built

# -------------------------------------------------------------------------------------------- loops written out by hand


def by_hand(setup, optimizer, scheduler=None, closure=False):
    """Return L(t) of the plain loop that anyone would write, and the learning rate at its end."""
    module, (x, y), losses = built(setup, setup.seed), setup.data, []
    optimizer = optimizer(module.parameters())
    scheduler = scheduler(optimizer) if scheduler else None

    def loss_and_gradient():
        optimizer.zero_grad()
        loss = cross_entropy(module(x), y)
        loss.backward()
        return loss

    for _ in range(setup.steps):
        losses.append(float(cross_entropy(module(x), y).detach()))
        loss = optimizer.step(loss_and_gradient) if closure else (loss_and_gradient(), optimizer.step())[0]
        if scheduler is not None:
            scheduler.step(*[loss.item()] if isinstance(scheduler, ReduceLROnPlateau) else [])
    losses.append(float(cross_entropy(module(x), y).detach()))
    return losses, optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "closure"),
    [
        (sgd(0.3, momentum=0.9, nesterov=True), None, False),
        (partial(torch.optim.Adam, lr=0.05), partial(StepLR, step_size=2, gamma=0.5), False),
        (partial(torch.optim.LBFGS, lr=0.5, max_iter=4), None, True),
        (partial(torch.optim.LBFGS, lr=0.5, line_search_fn="strong_wolfe"), partial(StepLR, step_size=3), True),
        (sgd(2.5), partial(ReduceLROnPlateau, patience=0, threshold=0.5, factor=0.1), False),
    ],
    ids=["nesterov", "adam and steps", "lbfgs", "lbfgs and steps", "plateau"],
)
def test_the_loop_is_what_anyone_would_write(blobs, optimizer, scheduler, closure):
    setup = replace(blobs, optimizer=optimizer, scheduler=scheduler, steps=8)
    losses, lr = by_hand(setup, optimizer, scheduler, closure)
    trajectory = run(setup)
    close(trajectory.base[0], losses)
    assert trajectory.end[0].learning_rate == (lr,)
    if scheduler is not None:
        assert lr < optimizer.keywords["lr"]


# --------------------------------------------------------------------------- what is recorded, and from where


def full_loss(setup, parameters):
    """Return L over the whole dataset at some parameters, computed apart."""
    module = setup.model().to(torch.float64).eval()
    module.load_state_dict(parameters, strict=False)
    x, y = setup.data
    loss = cross_entropy(module(x), y)
    gradient = torch.autograd.grad(loss, list(module.parameters()))
    return float(loss.detach()), sum(float(g.abs().sum()) for g in gradient)


@pytest.mark.parametrize("batch_size", [None, 1, 7, 24])
@pytest.mark.parametrize("steps", [1, 5])
def test_loss_and_gradient_are_of_the_whole_dataset_at_the_same_place(blobs, batch_size, steps):
    """Whatever the minibatch: L(T) and G(T) are those of all the examples at θ(T)."""
    trajectory = run(replace(blobs, batch_size=batch_size, steps=steps), seeds=[4])
    loss, gradient = full_loss(blobs, trajectory.end[0].parameters)
    assert trajectory.base[0, -1] == pytest.approx(loss, rel=1e-12)
    assert trajectory.mesa[0, -1] == pytest.approx(gradient, rel=1e-12)


@pytest.mark.parametrize("size", [1, 4, 5, 12])
def test_an_epoch_of_minibatches_visits_each_example_once(size):
    """The gradient of example i is along axis i: after an epoch, each axis has moved by 1/size of its batch."""

    class Row(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(12))

        def forward(self, index):
            return self.w[index]

    batches = -(-12 // size)
    data = (torch.arange(12), torch.zeros(12))
    setup = ac.TrainingSetup(Row, data, lambda o, t: o, sgd(1.0), batches, batch_size=size, dtype=torch.float64)
    moved = -run(setup).end[0].parameters["w"]
    last = 12 - size * (batches - 1)
    expected = [1 / size] * (12 - last) + [1 / last] * last
    np.testing.assert_allclose(sorted(moved), sorted(expected), rtol=1e-12)
    one, other = (run(replace(setup, steps=1), seeds=[seed]).end[0].parameters["w"] for seed in (0, 1))
    assert size == 12 or not torch.equal(one, other)


def test_with_dropout_loss_is_of_eval_mode_and_training_is_not(blobs):
    def model(rate=0.5):
        return nn.Sequential(nn.Linear(5, 8), nn.Dropout(rate), nn.Linear(8, 3))

    setup = replace(blobs, model=model, steps=4)
    before = torch.get_rng_state()
    trajectory = run(setup)
    assert torch.equal(torch.get_rng_state(), before)
    loss, gradient = full_loss(setup, trajectory.end[0].parameters)
    assert trajectory.base[0, -1] == pytest.approx(loss, rel=1e-12)
    assert trajectory.mesa[0, -1] == pytest.approx(gradient, rel=1e-12)
    without = run(replace(setup, model=partial(model, 0.0)))
    assert trajectory.base[0, 0] == without.base[0, 0]
    assert trajectory.base[0, 1] != without.base[0, 1]
    assert np.array_equal(run(setup).base, trajectory.base)


class Counting(nn.Module):
    """A model whose output is the number of training-mode forward passes that have left a mark on its buffer."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, x):
        passes = self.passes.clone()
        if self.training:
            self.passes.add_(1)
        return x * passes + 0 * self.w


@pytest.mark.parametrize("batch_size", [None, 2])
def test_evaluating_never_changes_a_buffer(batch_size):
    """One pass for each step, none for taking L and G, under however many objectives."""
    data = (torch.ones(4, 1), torch.zeros(4, 1))
    setup = ac.TrainingSetup(Counting, data, lambda o, t: o, sgd(0.1), 6, batch_size=batch_size)
    other = Perturbation("l2_penalty", 0.5, 1.0, 0)
    base = run(setup, [IDENTITY, IDENTITY], base=[IDENTITY, other]).base
    assert base[0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert base[1].tolist() == [t + 0.25 for t in range(7)]


def test_batchnorm_is_evaluated_in_the_mode_it_trains_in(blobs):
    setup = replace(blobs, model=lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)))
    losses, _ = by_hand(setup, sgd(0.1))
    close(run(setup).base[0], losses)


def test_a_step_objective_records_the_step_that_leaves_each_place_the_last_one_too(blobs):
    plain, steps = run(blobs), run(replace(blobs, mesa_objective=ac.step_l1))
    close(steps.mesa, 0.1 * plain.mesa)
    assert np.array_equal(steps.base, plain.base)
    moved = sum(float(step.abs().sum()) for step in steps.end[0].step.values())
    assert steps.mesa[0, -2] == pytest.approx(moved, rel=1e-12)
    assert all(torch.equal(steps.end[0].parameters[n], value) for n, value in plain.end[0].parameters.items())


def test_a_run_that_diverges_under_one_score_goes_on_under_another():
    """Scored under a function that is NaN below 0.5, which the descent of x² passes at its second step."""
    bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=sgd(0.2), steps=5)
    mix = pt.objective_mix(lambda o, t: torch.where(o < 0.2, torch.nan, o))
    scored = find(mix, lambda delta: True, settings=settings(database=None)).at(1.0)
    trajectory = run(bowl, [IDENTITY, IDENTITY], base=[IDENTITY, scored])
    assert [r.outcome.diverged_at for r in trajectory.runs] == [None, 2]
    close(trajectory.base[0], 0.36 ** np.arange(6))
    close(trajectory.mesa[0], 2 * 0.6 ** np.arange(6))
    assert np.isnan(trajectory.mesa[1, 3:]).all()
    assert all(bool(value.isfinite().all()) for value in trajectory.end[1].parameters.values())


def test_a_parameter_that_the_loss_does_not_use_counts_as_zero_and_is_not_moved(blobs):
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Parameter(torch.ones(7))

        def forward(self, x):
            return self.used(x)

    setup = replace(blobs, model=Partly, optimizer=sgd(0.1, weight_decay=0.5))
    trajectory = run(setup)
    assert np.isfinite(trajectory.mesa).all()
    assert torch.equal(trajectory.end[0].parameters["unused"], torch.ones(7, dtype=torch.float64))
