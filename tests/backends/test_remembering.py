"""What calls leave behind in a model or an objective: no run is trained by what another one has left there."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import find
from torch import nn
from torch.nn.functional import mse_loss

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY
from alignment_checks.runs import along, follow
from alignment_checks.setups.realization import built

KEEPS = "keeps state of its own between calls"
SEEDS = range(28)
"""More than a batch, and enough that what is beyond it fills another."""


class Last:
    """Keeps the last loss, for whoever wants to look at it."""

    last = None

    def __call__(self, outputs, targets):
        self.last = mse_loss(outputs, targets)
        return self.last


class Falling(Last):
    """Asks besides that the loss does not rise from call to call, which at one θ adds nothing."""

    def __call__(self, outputs, targets):
        loss, before = mse_loss(outputs, targets), self.last
        self.last = loss.detach()
        return loss if before is None else loss + 0.5 * (before - loss).relu()


class Scaled:
    """Divides by the size that outputs and targets had when it was first called."""

    size = None

    def __call__(self, outputs, targets):
        if self.size is None:
            self.size = 1 + (outputs - targets).detach().abs().mean()
        return mse_loss(outputs, targets) / self.size


class Counted:
    """Weighs each call less than the one before, by a number that it has in a slot."""

    __slots__ = ("weight",)

    def __init__(self):
        self.weight = 1.0

    def __call__(self, outputs, targets):
        return self.scaled(outputs, targets, by=1.0)

    def scaled(self, outputs, targets, by):
        self.weight *= 0.99
        return by * self.weight * mse_loss(outputs, targets)


class Averaged(nn.Module):
    """Divides by a moving average of the losses, a buffer that it puts another tensor in the place of."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones((), dtype=torch.float64))

    def forward(self, outputs, targets):
        loss = mse_loss(outputs, targets)
        self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss / self.mean


class Kept(nn.Module):
    """Keeps what it has come to; by `weight`, a later call makes use of it, in a way that one θ does not show."""

    def __init__(self, weight=0.0):
        super().__init__()
        self.first, self.second, self.weight, self.before = nn.Linear(3, 4), nn.Linear(4, 1), weight, None

    def forward(self, x):
        here = self.first(x).tanh()
        risen = 0 if self.before is None else (self.before - here).relu().sum(1, keepdim=True)
        self.before = here.detach()
        return self.second(here) + self.weight * risen if self.weight else self.second(here)


def linear():
    return nn.Linear(3, 1)


def setup_of(model=linear, objective=mse_loss):
    random = torch.Generator().manual_seed(0)
    data = tuple(torch.randn(12, width, generator=random, dtype=torch.float64) for width in (3, 1))
    sgd = partial(torch.optim.SGD, lr=0.2)
    return ac.TrainingSetup(model, data, objective, sgd, 6, dtype=torch.float64)


@pytest.mark.parametrize("kind", [Last, Falling, Averaged])
def test_an_objective_that_keeps_tensors_trains_in_the_loop_and_is_left_as_it_was_found(kind):
    objective = kind()
    before = objective.mean if kind is Averaged else None
    found = ac.run(setup_of(objective=objective), seeds=SEEDS)
    assert {run.backend for run in found.runs} == {"loop"}
    assert KEEPS in found.runs[0].reason
    if kind is Averaged:
        assert objective.mean is before
        assert float(before) == 1
    else:
        assert objective.last is None
    for seed in (0, 7):  # alone, and by a new one
        np.testing.assert_array_equal(ac.run(setup_of(objective=objective), seeds=[seed]).base[0], found.base[seed])
        np.testing.assert_array_equal(ac.run(setup_of(objective=kind()), seeds=[seed]).base[0], found.base[seed])


@pytest.mark.parametrize("kind", [Scaled, Counted, lambda: partial(Counted().scaled, by=1.0)])
def test_a_run_starts_with_the_objective_as_it_was_given_whatever_runs_stand_beside_it(kind):
    """What is kept from a first call on is of one run's outputs, and a batch of runs has but one objective."""
    objective = kind()
    found = ac.run(setup_of(objective=objective), seeds=SEEDS)
    assert {run.backend for run in found.runs} == {"loop"}
    assert KEEPS in found.runs[0].reason
    for seed in (0, 7):
        np.testing.assert_array_equal(ac.run(setup_of(objective=objective), seeds=[seed]).base[0], found.base[seed])
        np.testing.assert_array_equal(ac.run(setup_of(objective=kind()), seeds=[seed]).base[0], found.base[seed])


def test_what_a_function_keeps_can_be_used_after_training():
    """Of a batched call nothing could."""
    kept = []

    def logged(outputs, targets):
        loss = (outputs - targets).square()
        kept.append(loss.mean())
        logged.last = loss
        return loss

    found = ac.run(setup_of(objective=logged), seeds=SEEDS)
    assert KEEPS in found.runs[0].reason
    assert all(float(one.detach()) >= 0 for one in kept)
    assert not hasattr(logged, "last")


class Slotted:
    __slots__ = ()

    def __call__(self, outputs, targets):
        return mse_loss(outputs, targets)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("seeds", [[0], SEEDS], ids=len)
def test_whatever_can_be_called_is_an_objective(seeds):
    plain = ac.run(setup_of(), seeds=seeds).base
    scripted = torch.jit.script(nn.MSELoss())
    for objective in (Slotted(), Slotted().__call__, partial(mse_loss, reduction="none"), nn.MSELoss(), scripted):
        np.testing.assert_allclose(ac.run(setup_of(objective=objective), seeds=seeds).base, plain, rtol=1e-12)


class Unlike:
    """Answers a question for an attribute that it does not have by another error than most."""

    def __getattr__(self, name):
        raise KeyError(name)

    def __call__(self, outputs, targets):
        return mse_loss(outputs, targets)


class Weighted(nn.Module):
    """Has a buffer that no call could write into: all of its elements are one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones((), dtype=torch.float64).expand(12))

    def forward(self, outputs, targets):
        return (self.weight[:, None] * (outputs - targets).square()).mean()


class Normed(nn.Module):
    """Has buffers that there are from its first call on alone."""

    def __init__(self, kind=nn.LazyBatchNorm1d):
        super().__init__()
        self.norm = kind(affine=False, dtype=torch.float64)

    def forward(self, outputs, targets):
        return mse_loss(self.norm(outputs), targets)


@pytest.mark.parametrize(
    ("objective", "plain"),
    [(Unlike, nn.MSELoss), (Weighted, nn.MSELoss), (Normed, lambda: Normed(partial(nn.BatchNorm1d, 1)))],
)
def test_whatever_an_objective_holds_it_is_put_back_without_an_error(objective, plain):
    found, expected = (ac.run(setup_of(objective=one()), seeds=SEEDS).base for one in (objective, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def mixes(other):
    """Return perturbations that mix in another objective."""
    return [find(pt.objective_mix(other), lambda delta, least=least: delta.magnitude > least) for least in (0.2, 0.9)]


def test_an_objective_that_runs_are_scored_by_may_keep_tensors():
    """Be L looked at along each run, or after one whose weights were kept."""
    last, setup = Last(), setup_of()
    for scored in (scored_in_training, scored_along):
        found, plain = scored(setup, mixes(last)), scored(setup, mixes(mse_loss))
        np.testing.assert_allclose(found.base, plain.base, rtol=1e-12)
        assert last.last is None


def test_an_objective_that_runs_are_scored_by_may_keep_something_from_its_first_call_on():
    setup = setup_of()
    found = scored_in_training(setup, mixes(Scaled()))
    assert {run.backend for run in found.runs} == {"loop"}
    looped = ac.run(setup, [IDENTITY] * 2, base=mixes(Scaled()), seeds=SEEDS, backend="loop")
    np.testing.assert_array_equal(found.base, looped.base)


def scored_in_training(setup, deltas):
    return ac.run(setup, [IDENTITY] * len(deltas), base=deltas, seeds=SEEDS)


def scored_along(setup, deltas):
    return along(follow(setup, [0]), deltas)


def test_a_model_that_keeps_what_it_has_come_to_trains_in_lanes_if_no_later_call_makes_use_of_it():
    plain, used = (ac.run(setup_of(partial(Kept, weight)), seeds=SEEDS) for weight in (0.0, 0.3))
    assert plain.runs[0].backend == "lanes"
    assert KEEPS in used.runs[0].reason
    looped = ac.run(setup_of(Kept), seeds=SEEDS, backend="loop")
    np.testing.assert_allclose(plain.base, looped.base, rtol=1e-8)


class Taught(nn.Linear):
    """Adds what another model says, drawn with it, that it has in a list: torch knows nothing of its weights."""

    def __init__(self):
        super().__init__(3, 1)
        self.others = [nn.Linear(3, 1, dtype=torch.float64).requires_grad_(False)]
        self.known = [self]

    def forward(self, x):
        return super().forward(x) + self.others[0](x)


def test_runs_whose_models_differ_by_what_torch_knows_nothing_of_are_trained_by_their_own():
    found = [ac.run(setup_of(Taught), seeds=SEEDS, backend=backend).base for backend in ("lanes", "loop")]
    np.testing.assert_allclose(*found, rtol=1e-10)


class Settled(nn.Linear):
    """Sets its bias by the first examples that it sees, as an activation normalization does (Kingma, Dhariwal 2018)."""

    settled = False

    def forward(self, x):
        if not self.settled:
            self.bias.data.copy_(-(x @ self.weight.T).mean(0))
            self.settled = True
        return super().forward(x)


def test_a_model_that_sets_its_parameters_in_its_first_call_trains_from_there():
    setup = setup_of(partial(Settled, 3, 1))
    found = ac.run(setup, seeds=SEEDS)
    assert KEEPS in found.runs[0].reason
    for seed in (0, 7):
        net = built(setup, seed).double()
        optimizer, losses = setup.optimizer(net.parameters()), []
        for _ in range(setup.steps + 1):
            loss = mse_loss(net(setup.data[0]), setup.data[1])
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        np.testing.assert_allclose(found.base[seed], losses, rtol=1e-10)
