"""Every ordinary model: lanes equal the loop to 1e-8 at each of the first 50 steps, full batch and minibatch."""

from functools import partial

import numpy as np
import pytest
import torch
from cases.models import IMAGES, SIGNALS, TOKENS, VECTORS, classifying, conv, mlp
from torch import nn

import alignment_checks as ac
from alignment_checks.perturbations import IDENTITY, Perturbation


class Pick(nn.Module):
    """A recurrent layer's last output, read off by a linear one."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.read = layer, nn.Linear(width, 3)

    def forward(self, x):
        return self.read(self.layer(x)[0][:, -1])


class Attends(nn.Module):
    """Embedded tokens that look at each other, with dropout on the attention."""

    def __init__(self, need_weights=False):
        super().__init__()
        self.embed, self.need = nn.Embedding(7, 4), need_weights
        self.attend = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)
        self.read = nn.Linear(4, 3)

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.read(self.attend(x, x, x, need_weights=self.need)[0].mean(1))


class TiedEmbedding(nn.Module):
    """Tokens in, the last of them out again through the same matrix; a frozen scale and a buffer beside it."""

    def __init__(self):
        super().__init__()
        self.embed, self.read = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.read.weight = self.embed.weight
        self.scale = nn.Parameter(torch.tensor(1.5), requires_grad=False)
        self.register_buffer("seen", torch.ones(()))

    def forward(self, tokens):
        if self.training:
            self.seen.add_(0.1)
        return self.scale * self.read(torch.tanh(self.embed(tokens).mean(1))) / self.seen


class Noisy(nn.Module):
    """Draws in training and in eval mode alike, by function and by method."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        noise = 0.1 * torch.randn_like(x) + 0.1 * torch.rand(6, dtype=x.dtype)
        out = self.layer(x + noise)
        return out * torch.empty_like(out).bernoulli_(0.9)


MODELS = {
    "linear": (VECTORS, lambda: nn.Linear(6, 3)),
    "layer norm": (VECTORS, mlp(partial(nn.LayerNorm, 8), nn.GELU)),
    "group norm": (IMAGES, conv(partial(nn.GroupNorm, 2, 4), nn.SiLU, flat=64)),
    "batch norm": (VECTORS, mlp(partial(nn.BatchNorm1d, 8), nn.Tanh)),
    "batch norm 2d": (IMAGES, conv(partial(nn.BatchNorm2d, 4), nn.Tanh, flat=64)),
    "conv1d": (
        SIGNALS,
        lambda: nn.Sequential(nn.Conv1d(6, 3, 3), nn.Tanh(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(6, 3)),
    ),
    "max pool": (IMAGES, conv(nn.Tanh, partial(nn.MaxPool2d, 2), flat=16)),
    "adaptive pool": (IMAGES, conv(nn.Tanh, partial(nn.AdaptiveAvgPool2d, 1), flat=4)),
    "strided, grouped": (
        IMAGES,
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
        ),
    ),
    "embedding": (TOKENS, lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 3))),
    "tied, frozen, buffer": (TOKENS, TiedEmbedding),
    "attention": (TOKENS, Attends),
    "attention with weights": (TOKENS, partial(Attends, need_weights=True)),
    "transformer": (
        SIGNALS,
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(6, 2, 8, dropout=0.1, batch_first=True), nn.Flatten(), nn.Linear(36, 3)
        ),
    ),
    "dropout": (VECTORS, mlp(nn.Tanh, partial(nn.Dropout, 0.4))),
    "dropout twice, in place": (
        VECTORS,
        mlp(partial(nn.Dropout, 0.2, inplace=True), nn.Tanh, partial(nn.Dropout, 0.4)),
    ),
    "alpha dropout": (VECTORS, mlp(nn.SELU, partial(nn.AlphaDropout, 0.3))),
    "feature dropout": (IMAGES, conv(nn.Tanh, partial(nn.Dropout2d, 0.3), flat=64)),
    "feature alpha dropout": (IMAGES, conv(nn.SELU, partial(nn.FeatureAlphaDropout, 0.3), flat=64)),
    "randomized leaky relu": (VECTORS, mlp(nn.RReLU)),
    "noise in eval mode too": (VECTORS, Noisy),
    "dropout and batch norm": (VECTORS, mlp(partial(nn.BatchNorm1d, 8), partial(nn.Dropout, 0.3), nn.Tanh)),
    "recurrent": (SIGNALS, lambda: Pick(nn.RNN(6, 4, batch_first=True), 4)),
    "gru": (SIGNALS, lambda: Pick(nn.GRU(6, 4, batch_first=True), 4)),
    "lstm": (SIGNALS, lambda: Pick(nn.LSTM(6, 4, batch_first=True), 4)),
    "lstm with dropout": (SIGNALS, lambda: Pick(nn.LSTM(6, 4, 2, dropout=0.4, batch_first=True), 4)),
    "gru with dropout": (SIGNALS, lambda: Pick(nn.GRU(6, 4, 2, dropout=0.4, batch_first=True), 4)),
}
PERMUTED, RESEEDED = Perturbation("label_permutation", 0.4, 1.0, 3), Perturbation("init_seed", 1.0, 1.0, 3)


def setup_of(name, batch_size=None, **more):
    return classifying(*MODELS[name], batch_size, **more)


def assert_lanes_equal_the_loop(setup, perturbations, **more):
    before = torch.get_rng_state()
    lanes, loop = (ac.run(setup, perturbations, backend=b, device="cpu", **more) for b in ("lanes", "loop"))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-8)
    np.testing.assert_allclose(lanes.mesa, loop.mesa, rtol=1e-8)
    assert len(np.unique(lanes.base[:, -1])) == len(lanes.runs)


@pytest.mark.parametrize("name", MODELS)
def test_lanes_equal_the_loop_on_the_whole_dataset(name):
    assert_lanes_equal_the_loop(setup_of(name), [IDENTITY, PERMUTED])


OFTEN = {"linear", "batch norm", "batch norm 2d", "embedding", "tied, frozen, buffer", "attention", "transformer"}
OFTEN |= {"dropout", "dropout twice, in place", "noise in eval mode too", "dropout and batch norm", "lstm"}


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_lanes_equal_the_loop_on_minibatches(name):
    """Each in its own order, out of data that they share; of 10 examples in fours the last two are a short one."""
    assert_lanes_equal_the_loop(setup_of(name, 4), [IDENTITY], seeds=[0, 7])


@pytest.mark.parametrize("name", ["dropout and batch norm", "tied, frozen, buffer", "attention"])
def test_lanes_equal_the_loop_where_everything_differs(name):
    """Init, data, order and masks of each run its own, and recorded at a few steps alone."""
    setup = setup_of(name, 4, steps=25, record_every=7, mesa_objective=ac.step_l1)
    trained, scored = [IDENTITY, PERMUTED, RESEEDED], [PERMUTED, IDENTITY, RESEEDED]
    assert_lanes_equal_the_loop(setup, trained, base=scored, seeds=[0, 7])


# -------------------------------------------------------------------------------------- what evaluating leaves be


@pytest.mark.parametrize("backend", ["loop", "lanes"])
@pytest.mark.parametrize("name", ["dropout and batch norm", "noise in eval mode too", "tied, frozen, buffer"])
def test_recording_more_or_less_changes_no_step(name, backend):
    """Evaluating changes no buffer and draws nothing that training draws."""
    often, seldom = (setup_of(name, 4, steps=12, record_every=every) for every in (1, 6))
    a, b = (ac.run(setup, seeds=[0, 7], backend=backend, device="cpu") for setup in (often, seldom))
    np.testing.assert_allclose(b.base, a.base[:, b.t], rtol=1e-12)
    np.testing.assert_allclose(b.mesa, a.mesa[:, b.t], rtol=1e-12)


class Counted(torch.nn.Module):
    """An objective that weighs its calls in turn, by an attribute or by a buffer."""

    def __init__(self, buffer):
        super().__init__()
        self.register_buffer("calls", torch.zeros(())) if buffer else setattr(self, "calls", 0)

    def forward(self, outputs, targets):
        self.calls += 1
        return (outputs - targets).square().mean() * (1 + 0.1 * (self.calls % 3))


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("buffer", [False, True])
def test_recording_more_or_less_does_not_advance_what_an_objective_holds(batch_size, buffer):
    data = torch.eye(8, 3, dtype=torch.float64), torch.ones(8, 1, dtype=torch.float64)
    ends = []
    for every in (1, 2, 5):
        setup = ac.TrainingSetup(
            lambda: torch.nn.Linear(3, 1, dtype=torch.float64),
            data,
            Counted(buffer),
            partial(torch.optim.SGD, lr=0.05),
            steps=10,
            batch_size=batch_size,
            record_every=every,
        )
        (end,) = ac.run(setup, backend="loop").end
        ends.append(torch.cat([value.flatten() for value in end.parameters.values()]))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_where_a_model_draws_in_eval_mode_too_it_is_measured_by_the_same_draws_at_every_step():
    """Its step is random, and L is a function of θ alone: with steps of size 0 it stays as it is."""
    setup = setup_of("noise in eval mode too", steps=3, optimizer=partial(torch.optim.SGD, lr=0.0))
    for backend in ("loop", "lanes"):
        assert np.ptp(ac.run(setup, backend=backend).base) == 0
