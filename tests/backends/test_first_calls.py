"""What a model sets in its first call is set as plain PyTorch has it: measuring is no call."""

import random
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from cases.oracle import plainly
from torch import nn
from torch.nn.functional import dropout, mse_loss

import alignment_checks as ac
from alignment_checks.backends.snapshot import Snapshot
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.runs import follow


class Centered(nn.Linear):
    """Subtracts the mean of the examples that it was first called with, as an activation normalization does."""

    def __init__(self):
        super().__init__(3, 1)

    def forward(self, x):
        return super().forward(x - self.mean_of(x))


class Flagged(Centered):
    ready = False

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def mean_of(self, x):
        if not self.ready:
            self.mean.copy_(x.mean(0) + 1)
            self.ready = True
        return self.mean


class Registered(Centered):
    def mean_of(self, x):
        if not hasattr(self, "mean"):
            self.register_buffer("mean", x.mean(0) + 1)
        return self.mean


class Attribute(Centered):
    mean = None

    def mean_of(self, x):
        if self.mean is None:
            self.mean = x.mean(0) + 1
        return self.mean


class Item(Centered):
    def __init__(self):
        super().__init__()
        self.found = [{}]

    def mean_of(self, x):
        if not self.found[0]:
            self.found[0]["mean"] = x.mean(0) + 1
        return self.found[0]["mean"]


class Elements(Centered):
    def __init__(self, zeros=torch.zeros):
        super().__init__()
        self.mean = zeros(3)

    def mean_of(self, x):
        if not self.mean.any():
            mean = x.mean(0) + 1
            self.mean[:] = mean if isinstance(self.mean, torch.Tensor) else mean.numpy()
        return torch.as_tensor(self.mean)


class Counting(Centered):
    calls = 0

    def mean_of(self, x):
        self.calls += 1
        return 0.1 * self.calls


class Slots:
    __slots__ = ("calls",)


class Slotted(Centered):
    """Counts in an object that has no dict."""

    def __init__(self):
        super().__init__()
        self.count = Slots()

    def mean_of(self, x):
        self.count.calls = getattr(self.count, "calls", 0) + 1
        return 0.1 * self.count.calls


class Drawing(Centered):
    """Draws from a generator of its own, of which torch knows nothing."""

    def __init__(self, kind):
        super().__init__()
        self.random = kind(0)

    def mean_of(self, x):
        return self.random.rand() if hasattr(self.random, "rand") else self.random.random()


class Remembering(Centered):
    """Subtracts how far the last two calls have gone."""

    def __init__(self):
        super().__init__()
        self.last = deque([0], maxlen=2)

    def mean_of(self, x):
        self.last.append(self.last[-1] + 1)
        return 0.1 * sum(self.last)


class Buffered(Centered):
    """Counts in a buffer besides, whose number decides."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))

    def mean_of(self, x):
        self.calls += 1
        if self.calls.item() == 1:
            self.mean = x.mean(0) + 1
        return self.mean


GENERATORS = [np.random.default_rng, np.random.RandomState, random.Random]
KINDS = [Flagged, Registered, Attribute, Item, Elements, partial(Elements, np.zeros), Counting, Buffered]
KINDS += [Slotted, Remembering, *(partial(Drawing, kind) for kind in GENERATORS)]


def setup_of(model, batch_size=None):
    drawn = torch.Generator().manual_seed(0)
    data = tuple(torch.randn(12, width, generator=drawn, dtype=torch.float64) for width in (3, 1))
    sgd = partial(torch.optim.SGD, lr=0.1)
    return ac.TrainingSetup(model, data, mse_loss, sgd, 6, dtype=torch.float64, batch_size=batch_size)


@pytest.mark.parametrize("seeds", [[0], range(28)], ids=len)
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_sets_something_in_its_first_call_trains_as_by_plain_torch(kind, batch_size, seeds):
    setup = setup_of(kind, batch_size)
    found = ac.run(setup, seeds=seeds)
    for seed in (seeds[0], seeds[-1]):
        np.testing.assert_allclose(found.base[seed], plainly(setup, seed), rtol=1e-10)
    if len(seeds) > 1:
        assert {run.backend for run in found.runs} == {"loop"}


def test_it_does_under_every_score():
    """Scoring is no call either, be the run trained for it or kept."""
    setup, scores = setup_of(Flagged, 4), [IDENTITY, Perturbation("feature_noise", 0.5, 1.0, 3)]
    found = ac.run(setup, [IDENTITY] * 2, base=scores, seeds=[0])
    alone = [ac.run(setup, base=[score], seeds=[0]).base[0] for score in scores]
    np.testing.assert_array_equal(found.base, alone)
    assert follow(setup, [0]) is None
    assert follow(setup_of(partial(nn.Linear, 3, 1)), [0]) is not None


class Dropped(Flagged):
    """Sets its mean by what dropout leaves, and is measured without."""

    def forward(self, x):
        return super().forward(dropout(x, 1e-9, self.training))


def test_what_is_measured_in_eval_mode_sets_nothing_either():
    setup = setup_of(Dropped, 4)
    np.testing.assert_allclose(ac.run(setup, seeds=[0]).base[0], plainly(setup, 0, evaluates=True), rtol=1e-7)


class Cached(nn.Linear):
    """Makes a mask when it is first called, the same of whatever examples, and keeps its outputs."""

    mask = outputs = None

    def forward(self, x):
        if self.mask is None:
            self.mask = x.new_ones(x.shape[1]).cumsum(0)
        self.outputs = super().forward(x * self.mask)
        return self.outputs


class Iterating(Centered):
    """Counts by an iterator, which cannot be put back."""

    def __init__(self):
        super().__init__()
        self.calls = iter(range(10**6))

    def mean_of(self, x):
        return 0.1 * next(self.calls)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_what_cannot_be_put_back_is_the_same_for_a_run_alone_and_for_many(batch_size):
    setup = setup_of(Iterating, batch_size)
    found, alone = ac.run(setup, seeds=range(28)), ac.run(setup, seeds=[27])
    np.testing.assert_array_equal(found.base[27], alone.base[0])


@pytest.mark.parametrize("batch_size", [None, 4])
def test_what_is_the_same_of_whatever_examples_trains_in_lanes(batch_size):
    setup = setup_of(partial(Cached, 3, 1), batch_size)
    found = ac.run(setup, seeds=range(28))
    assert found.runs[0].backend == "lanes"
    for seed in (0, 27):
        alone = ac.run(setup, seeds=[seed])
        np.testing.assert_allclose(found.base[seed], alone.base[0], rtol=1e-10)


def test_a_snapshot_puts_back_whatever_a_module_holds():
    class Holder:
        pass

    net = nn.Sequential(nn.Linear(2, 2))
    net.log, net.seen, net.inner, net.random = [1], {1}, Holder(), torch.Generator().manual_seed(0)
    net.inner.array, net.inner.tensor, net[0].table = np.ones(2), torch.ones(2), {"a": [1]}
    state = net.random.get_state()
    before = Snapshot(net)
    assert not before.differs
    net.log.append(2), net.seen.add(2), torch.rand(2, generator=net.random)
    net.inner.array[0], net.inner.tensor[0], net.inner.more, net[0].table["a"][0] = 5, 5, 5, 5
    net[0].register_buffer("late", torch.ones(1))
    assert before.differs
    before.put_back()
    assert (net.log, net.seen, net[0].table, vars(net.inner).keys()) == ([1], {1}, {"a": [1]}, {"array", "tensor"})
    assert net.inner.array.tolist() == net.inner.tensor.tolist() == [1, 1]
    assert torch.equal(net.random.get_state(), state)
    assert not [*net.buffers()]
