"""Many runs at once: equal to the loop at every step, no lane changes another, and what cannot be batched says why."""

import warnings
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, multi_margin_loss, softplus
from torch.optim import lr_scheduler as schedules

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY, Perturbation

OPTIMIZERS = {
    torch.optim.SGD: [
        {"lr": 0.1},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.1},
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "foreach": True},
        {"lr": 0.01, "maximize": True},
    ],
    torch.optim.Adam: [
        {"lr": 0.02},
        {"lr": 0.02, "amsgrad": True, "weight_decay": 0.1, "betas": (0.5, 0.9)},
        {"lr": 0.01, "maximize": True, "foreach": True},
    ],
    torch.optim.AdamW: [{"lr": 0.02, "weight_decay": 0.2}, {"lr": 0.02, "amsgrad": True}],
    torch.optim.NAdam: [{"lr": 0.02}, {"lr": 0.02, "decoupled_weight_decay": True, "weight_decay": 0.1}],
    torch.optim.RAdam: [{"lr": 0.02}, {"lr": 0.02, "weight_decay": 0.1}],
    torch.optim.Adamax: [{"lr": 0.02}],
    torch.optim.Adagrad: [{"lr": 0.1}, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}],
    torch.optim.Adadelta: [{"lr": 1.0}, {"lr": 1.0, "rho": 0.5, "weight_decay": 0.1}],
    torch.optim.RMSprop: [{"lr": 0.01}, {"lr": 0.01, "centered": True, "momentum": 0.5}],
    torch.optim.ASGD: [{"lr": 0.1, "lambd": 0.01}],
    torch.optim.Rprop: [{"lr": 0.01}],
}


SCHEDULERS = {
    "none": None,
    "steps": partial(schedules.StepLR, step_size=2, gamma=0.3),
    "cosine": partial(schedules.CosineAnnealingLR, T_max=4),
    "lambda": partial(schedules.LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
}


MESA = [ac.gradient_l1, ac.gradient_l2, ac.step_l1, ac.decayed_gradient_l1(0.3)]


def uneven(cls, options, parameters):
    """Return an optimizer with one group for the first parameter and another, slower one for the rest."""
    first, *rest = parameters
    groups = [{"params": [first]}] + [{"params": rest, "lr": options["lr"] / 3}] * bool(rest)
    return cls(groups, **options)


@st.composite
def optimizers(draw, cls):
    options = draw(st.sampled_from(OPTIMIZERS[cls]))
    return draw(st.sampled_from([partial(cls, **options), partial(uneven, cls, options)]))


@st.composite
def models(draw):
    """Return a factory of small MLPs from 5 features to 3 classes."""
    widths = [5, *draw(st.lists(st.integers(1, 6), max_size=2)), 3]
    activation = draw(st.sampled_from([nn.Tanh, nn.ReLU, nn.GELU, nn.Softplus, nn.SiLU]))
    bias = draw(st.booleans())

    def model():
        layers = [nn.Linear(a, b, bias=bias) for a, b in pairwise(widths)]
        return nn.Sequential(*(part for layer in layers for part in (layer, activation())))

    return model


LANDSCAPES = [
    lambda x: (x.square() - 1).square().sum() + 0.3 * x.sum(),
    lambda x: softplus(3 * x).sum() + softplus(-x).sum(),
    lambda x: 1 - torch.exp(-x.square().sum()) + x.square().mean(),
]


BASE_SIDE = (
    pt.label_noise(max_rate=0.5)
    | pt.label_permutation(max_fraction=0.8)
    | pt.feature_noise(max_sigma=1)
    | pt.subsample(max_fraction=0.5)
    | pt.objective_mix(ac.brier)
    | pt.label_smoothing(max_epsilon=0.5)
    | pt.l2_penalty(max_weight=0.5)
    | pt.compose(pt.l2_penalty(max_weight=0.5), pt.label_noise(max_rate=0.5))
)


DELTAS = BASE_SIDE | pt.init_seed() | pt.init_gain(max_log2=1) | pt.init_jitter(max_sigma=0.5)


def assert_lanes_equal_the_loop(setup, perturbations, **more):
    """At every step, to 1e-9 relative; and where the runs end."""
    lanes, loop = (ac.run(setup, perturbations, backend=b, device="cpu", **more) for b in ("lanes", "loop"))
    assert {run.backend for run in lanes.runs} == {"lanes"}
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-9)
    np.testing.assert_allclose(lanes.mesa, loop.mesa, rtol=1e-9)
    for a, b in zip(lanes.end, loop.end, strict=True):
        assert a.learning_rate == b.learning_rate
        for name, value in b.parameters.items():
            torch.testing.assert_close(a.parameters[name], value, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(a.step[name], b.step[name], rtol=1e-8, atol=1e-12)
    return lanes


# ------------------------------------------------------------------------------------------------ lanes equal the loop


@pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda cls: cls.__name__)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_lanes_equal_the_loop_on_classifications(cls, blobs, data):
    setup = replace(
        blobs,
        model=data.draw(models(), "model"),
        optimizer=data.draw(optimizers(cls), "optimizer"),
        scheduler=SCHEDULERS[data.draw(st.sampled_from(sorted(SCHEDULERS)), "scheduler")],
        mesa_objective=data.draw(st.sampled_from(MESA), "mesa"),
        steps=data.draw(st.integers(1, 8), "steps"),
    )
    assert_lanes_equal_the_loop(setup, [IDENTITY, *data.draw(st.lists(DELTAS, min_size=1, max_size=3), "deltas")])


@pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda cls: cls.__name__)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_lanes_equal_the_loop_on_landscapes(cls, data):
    start = st.floats(0.3, 1.2).map(lambda value: round(value, 3))
    setup = ac.landscape(
        data.draw(st.sampled_from(LANDSCAPES)),
        data.draw(st.lists(start, min_size=1, max_size=3)),
        optimizer=data.draw(optimizers(cls)),
        scheduler=SCHEDULERS[data.draw(st.sampled_from(sorted(SCHEDULERS)))],
        mesa_objective=data.draw(st.sampled_from(MESA)),
        steps=8,
    )
    gains = data.draw(st.lists(pt.init_gain(max_log2=0.5) | pt.l2_penalty(max_weight=0.3), min_size=1, max_size=3))
    assert_lanes_equal_the_loop(setup, gains)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_lanes_equal_the_loop_where_base_and_mesa_side_differ(blobs, data):
    """Scored under something else than it trains under, and one trained run under several scores."""
    trained = data.draw(st.lists(DELTAS, min_size=1, max_size=2))
    scored = data.draw(st.lists(BASE_SIDE | st.just(IDENTITY), min_size=1, max_size=3))
    pairs = [(mesa, base) for mesa in trained for base in scored]
    lanes = assert_lanes_equal_the_loop(
        blobs, [mesa for mesa, _ in pairs], base=[base for _, base in pairs], seeds=[0, 5]
    )
    assert lanes.base.shape == (2 * len(pairs), 7)


def test_runs_of_other_labels_go_through_lanes_under_every_objective(blobs):
    for objective in (cross_entropy, ac.brier, ac.one_minus_p):
        noise = [Perturbation("label_noise", rate / 4, 1.0, 3) for rate in range(4)]
        assert_lanes_equal_the_loop(replace(blobs, objective=objective), noise)


def test_more_runs_than_a_batch_is_wide(blobs):
    assert_lanes_equal_the_loop(replace(blobs, steps=2), None, seeds=range(70))


class Tied(nn.Module):
    """Two layers that share a weight, beside a frozen layer and a buffer that the forward pass changes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(5, 3).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen.add_(1)
        return self.frozen(torch.tanh(self.second(torch.tanh(self.first(x))))) / self.seen


def batchnorm():
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=0.3), nn.Tanh(), nn.Linear(4, 3))


@pytest.mark.parametrize("model", [Tied, batchnorm])
def test_tied_and_frozen_parameters_and_buffers_are_each_lanes_own(blobs, model):
    setup = replace(blobs, model=model, optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    deltas = [IDENTITY, Perturbation("init_seed", 1.0, 1.0, 3), Perturbation("feature_noise", 0.3, 1.0, 3)]
    base = [IDENTITY, Perturbation("init_seed", 1.0, 1.0, 3), IDENTITY]
    lanes = assert_lanes_equal_the_loop(setup, deltas, base=base, seeds=[0, 1])
    assert len(np.unique(lanes.base[:, 0])) == 4  # two seeds, each under two inits


# ----------------------------------------------------------------------------------------- no lane can change another


def lost(setup, value):
    """Return a perturbation that starts a run at NaN or at infinity."""
    there = {name: torch.full_like(p, value) for name, p in setup.model().named_parameters()}
    return Perturbation("init_interpolation", 1.0, 1.0, 0, (("other", str(value)),), payload=there)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_lost_before_it_begins_is_trained_in_lanes_as_anything_else(blobs, value):
    found = ac.run(blobs, [lost(blobs, value), Perturbation("init_gain", 0.5, 1.0, 0)], backend="lanes", device="cpu")
    assert [run.outcome.diverged_at for run in found.runs] == [0, None]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_lane_that_diverges_changes_no_bit_of_its_neighbours(blobs, data):
    """Whatever stands in one lane, and whenever it diverges, the others are the same bits."""
    cls = data.draw(st.sampled_from([torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop]))
    setups = [replace(blobs, optimizer=data.draw(optimizers(cls))), quartic(steps=6)]
    wild = [lost(setups[0], data.draw(st.sampled_from([np.nan, np.inf]))), Perturbation("init_gain", 2.0, 2.0, 0)]
    index = data.draw(st.integers(0, 1))
    neighbours = data.draw(
        st.lists(pt.init_gain(max_log2=0.5), min_size=1, max_size=3, unique_by=lambda d: d.magnitude)
    )
    place = data.draw(st.integers(0, len(neighbours)))

    def beside(middle):
        deltas = [*neighbours[:place], middle, *neighbours[place:]]
        return ac.run(setups[index], deltas, backend="lanes", device="cpu")

    tame, gone = beside(Perturbation("init_gain", -0.6, 1.0, 0)), beside(wild[index])
    others = [row for row in range(len(neighbours) + 1) if row != place]
    assert [gone.runs[row].outcome.diverged_at for row in others] == [None] * len(others)
    assert gone.runs[place].outcome.diverged_at == (0, 2)[index]
    assert tame.runs[place].outcome.diverged_at is None
    assert np.array_equal(tame.base[others], gone.base[others])
    assert np.array_equal(tame.mesa[others], gone.mesa[others])


def quartic(steps):
    """Return the descent of x⁴/4 from 1 at step ½: it converges from below √4, and beyond that blows up."""
    return ac.landscape(
        lambda x: x.square().square().sum() / 4, [1.0], optimizer=partial(torch.optim.SGD, lr=0.5), steps=steps
    )


def test_a_lane_that_diverges_is_named_with_the_step_that_the_loop_names():
    setup = quartic(steps=30)
    gains = [Perturbation("init_gain", log2, 4.0, 0) for log2 in (0.0, 0.9, 1.1, 2.0)]
    lanes, loop = (ac.run(setup, gains, backend=backend) for backend in ("lanes", "loop"))
    steps = [run.outcome.diverged_at for run in lanes.runs]
    assert steps == [run.outcome.diverged_at for run in loop.runs]
    assert steps[:2] == [None, None]
    assert 0 < steps[3] < steps[2]
    np.testing.assert_array_equal(np.isnan(lanes.base), np.isnan(loop.base))
    assert [bool(end.parameters["point"].isnan().all()) for end in lanes.end] == [False, False, True, True]


@settings(max_examples=10, deadline=None)
@given(st.lists(pt.init_gain(max_log2=1) | pt.label_noise(max_rate=0.5), min_size=1, max_size=4))
def test_a_replay_is_a_replay(blobs, deltas):
    first, again = (ac.run(blobs, deltas, backend="lanes", device="cpu") for _ in range(2))
    assert np.array_equal(first.base, again.base)
    assert np.array_equal(first.mesa, again.mesa)


# -------------------------------------------------------------------------------------- what is refused, and the reason


# --------------------------------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize("action", ["error", "always"])
def test_a_slow_path_is_reported_and_warns_nobody(blobs, action):
    """Users run with -W error."""
    setup = replace(blobs, objective=multi_margin_loss, steps=2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter(action)
        lanes = assert_lanes_equal_the_loop(setup, None, seeds=range(3))
    assert all(run.reason.startswith("There is a performance drop") for run in lanes.runs)
    assert not told


@pytest.mark.parametrize("backend", ["lanes", "loop"])
def test_the_users_own_warnings_are_still_heard(blobs, backend):
    def deprecated(outputs, targets):
        warnings.warn("use another loss", FutureWarning, stacklevel=1)
        return cross_entropy(outputs, targets)

    with pytest.warns(FutureWarning, match="use another loss"):
        trajectory = ac.run(replace(blobs, objective=deprecated, steps=1), seeds=range(3), backend=backend)
    assert {run.backend for run in trajectory.runs} == {backend}
