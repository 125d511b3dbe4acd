"""What the optimizer families do to how a run is trained, in the loop and in lanes."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler as schedules

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.optimizer import ChangedMomentum, DecayingSchedule, ScaledRate
from alignment_checks.setups.fingerprints import fingerprint
from alignment_checks.setups.realization import realize

few = settings(max_examples=20, deadline=None)


SGD = partial(torch.optim.SGD, lr=0.1)


def delta(family, magnitude, seed=0):
    return Perturbation(family, magnitude, max(1.0, abs(magnitude)), seed)


def parameters():
    return [nn.Parameter(torch.ones(2, dtype=torch.float64)), nn.Parameter(torch.ones(1, dtype=torch.float64))]


def two_rates(parameters):
    return torch.optim.Adam([{"params": parameters[:1], "lr": 0.4}, {"params": parameters[1:]}], lr=0.1)


def trained(setup, deltas, backend="loop", **more):
    return ac.run(setup, deltas, backend=backend, device="cpu", **more)


# ------------------------------------------------------------------------------------------------------- learning rate


@few
@given(st.floats(-3, 3).filter(bool))
def test_learning_rate_multiplies_the_rate_of_every_group(blobs, log2):
    run = delta("learning_rate", log2).applied(realize(replace(blobs, optimizer=two_rates), 0))
    rates = [group["lr"] for group in run.optimizer(parameters()).param_groups]
    assert rates == pytest.approx([0.4 * 2**log2, 0.1 * 2**log2], rel=1e-12)


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_a_run_at_another_learning_rate_is_that_of_the_setup_that_has_it_schedule_and_all(blobs, backend):
    step = partial(schedules.StepLR, step_size=2, gamma=0.5)
    came = trained(replace(blobs, scheduler=step), [delta("learning_rate", -1.0)], backend)
    expected = trained(replace(blobs, scheduler=step, optimizer=partial(torch.optim.SGD, lr=0.05)), None, backend)
    assert np.array_equal(came.base, expected.base)
    assert came.end[0].learning_rate == expected.end[0].learning_rate


def test_a_tensor_learning_rate_is_scaled_and_the_users_own_left_alone(blobs):
    rate = torch.tensor(0.1, dtype=torch.float64)
    setup = replace(blobs, optimizer=partial(torch.optim.Adam, lr=rate))
    halved = trained(setup, [delta("learning_rate", -1.0)])
    expected = trained(replace(blobs, optimizer=partial(torch.optim.Adam, lr=torch.tensor(0.05))), None)
    np.testing.assert_allclose(halved.base, expected.base, rtol=1e-6)
    assert rate == 0.1


# ------------------------------------------------------------------------------------------------------------ lr_decay


def rates(scheduler, steps=9, losses=None):
    """Return the learning rate at each step under a schedule."""
    optimizer = two_rates(parameters())
    schedule, found = scheduler(optimizer), []
    for t in range(steps):
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        schedule.step(*[] if losses is None else [losses[t]])
    return np.array(found)


@few
@given(
    st.floats(0.01, 2),
    st.sampled_from(
        [
            partial(schedules.StepLR, step_size=2, gamma=0.3),
            partial(schedules.ExponentialLR, gamma=0.9),
            partial(schedules.CosineAnnealingLR, T_max=5),
            partial(schedules.OneCycleLR, max_lr=0.3, total_steps=10),
        ]
    ),
)
def test_decay_divides_what_any_schedule_gives_by_one_plus_rate_times_t(rate, own):
    t = np.arange(9)[:, None]
    np.testing.assert_allclose(rates(DecayingSchedule(own, rate)), rates(own) / (1 + rate * t), rtol=1e-12)


def test_decay_composes_with_a_schedule_that_looks_at_the_loss():
    losses = [1.0, 2.0, 3.0, 4.0, 0.5, 3.0, 3.0, 3.0, 3.0]
    own = partial(schedules.ReduceLROnPlateau, patience=1, factor=0.5)
    came, expected = rates(DecayingSchedule(own, 0.5), losses=losses), rates(own, losses=losses)
    assert len(np.unique(expected[:, 0])) > 2
    np.testing.assert_allclose(came, expected / (1 + 0.5 * np.arange(9)[:, None]), rtol=1e-12)


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_decay_is_adagrads_own(blobs, backend):
    """`torch.optim.Adagrad(lr_decay=…)` is the same process."""
    own = replace(blobs, optimizer=partial(torch.optim.Adagrad, lr=0.3, lr_decay=0.2))
    came = trained(replace(blobs, optimizer=partial(torch.optim.Adagrad, lr=0.3)), [delta("lr_decay", 0.2)], backend)
    np.testing.assert_allclose(came.base, trained(own, None, backend).base, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------------ momentum


@pytest.mark.parametrize(
    ("optimizer", "change", "name", "expected"),
    [
        (partial(torch.optim.SGD, lr=0.1, momentum=0.5), 0.3, "momentum", 0.8),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.5), -0.7, "momentum", 0.0),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.5), 0.9, "momentum", 0.999),
        (partial(torch.optim.RMSprop, lr=0.1), 0.4, "momentum", 0.4),
        (partial(torch.optim.AdamW, lr=0.1), -0.1, "betas", (0.8, 0.999)),
        (partial(torch.optim.NAdam, lr=0.1, betas=(0.9995, 0.9)), 0.5, "betas", (0.9995, 0.9)),
    ],
)
def test_momentum_is_changed_within_its_bounds_and_achieved_says_how_much(blobs, optimizer, change, name, expected):
    setup, one = replace(blobs, optimizer=optimizer), delta("momentum", change)
    (group,) = one.applied(realize(setup, 0)).optimizer(parameters()).param_groups
    assert group[name] == pytest.approx(expected)
    before = optimizer(parameters()).param_groups[0][name]
    first = [value if name == "momentum" else value[0] for value in (before, expected)]
    assert one.achieved(setup) == pytest.approx(first[1] - first[0])


def test_momentum_that_cannot_go_lower_is_the_same_run(blobs):
    plain = realize(blobs, 0)
    assert delta("momentum", -0.5).applied(plain) is plain


@pytest.mark.parametrize(
    ("family", "optimizer", "said"),
    [
        ("momentum", torch.optim.Adagrad, "groups have 'momentum' or 'betas'; those of Adagrad have lr, lr_decay, "),
        ("momentum", torch.optim.LBFGS, "groups have 'momentum' or 'betas'; those of LBFGS have lr, max_iter, "),
    ],
)
def test_an_optimizer_without_it_is_refused(blobs, family, optimizer, said):
    with pytest.raises(ValueError, match=f"{family} needs an optimizer whose parameter {said}"):
        trained(replace(blobs, optimizer=optimizer), [delta(family, 0.1)])


class Rateless(torch.optim.Optimizer):
    """An optimizer that finds its own step size."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(0.01 * p.grad)


@pytest.mark.parametrize("family", ["learning_rate", "lr_decay", "momentum"])
def test_an_optimizer_without_any_option_is_refused(blobs, family):
    with pytest.raises(ValueError, match=f"{family} needs .*; those of Rateless have no options"):
        trained(replace(blobs, optimizer=Rateless), [delta(family, 0.1)])


# ---------------------------------------------------------------------------------------------------------- all of them


EVERY = [
    ("learning_rate", 0.5),
    ("lr_decay", 0.3),
    ("momentum", 0.5),
    ("gradient_noise", 0.2),
    ("batch_size", -0.6),
    ("precision", 30.0),
]


@pytest.mark.parametrize(("family", "magnitude"), EVERY)
def test_an_optimizer_family_leaves_init_data_and_objective_alone(family, magnitude, blobs):
    plain = realize(blobs, 0)
    run = delta(family, magnitude).applied(plain)
    assert run.parameters is plain.parameters
    assert run.data is plain.data
    assert run.objective is plain.objective
    assert fingerprint(run, plain) != ()
    assert fingerprint(run, plain) != fingerprint(delta(family, magnitude / 3).applied(plain), plain)
    assert delta(family, magnitude).kinds == {"optimizer"}


@pytest.mark.parametrize(("family", "magnitude"), EVERY)
def test_on_the_base_side_alone_it_means_nothing(family, magnitude, blobs):
    with pytest.raises(ValueError, match="of kind optimizer cannot change L's value"):
        ac.run(blobs, [IDENTITY], base=[delta(family, magnitude)])


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 4), ("noise", ("some",)), ("dtype", torch.float32), ("scheduler", SGD), ("seed", 12345)],
)
def test_a_custom_perturbation_of_the_optimizer_on_the_base_side_is_refused_too(field, value, blobs):
    def changed(run, magnitude, generator):
        return replace(run, **{field: value})

    custom = Perturbation("custom", 1.0, 1.0, 0, (("name", "changed"), ("apply", "here:changed")), payload=changed)
    with pytest.raises(ValueError, match="cannot change L's value"):
        ac.run(blobs, [IDENTITY], base=[custom])


@pytest.mark.parametrize(("family", "magnitude"), EVERY)
def test_different_values_run_side_by_side_as_they_run_alone(family, magnitude, blobs):
    deltas = [IDENTITY, *(delta(family, magnitude * part) for part in (1.0, 0.7, 0.3))]
    together = trained(blobs, deltas, "lanes").base
    for row, one in enumerate(deltas):
        alone = trained(blobs, [one], "loop").base[0]
        np.testing.assert_allclose(together[row], alone, rtol=1e-3 if family == "precision" else 1e-9)


OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.4),
    "adam": two_rates,
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01),
}


TOGETHER = pt.compose(
    pt.learning_rate(max_log2=1)
    | pt.lr_decay(max_rate=0.3)
    | pt.momentum(max_change=0.3)
    | pt.gradient_noise(max_scale=0.2),
    pt.batch_size(max_log2=1)
    | pt.label_noise(max_rate=0.4)
    | pt.init_gain(max_log2=0.5)
    | pt.subsample(max_fraction=0.4),
)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(TOGETHER, min_size=1, max_size=4),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from([None, partial(schedules.StepLR, step_size=3, gamma=0.5)]),
)
def test_whatever_is_composed_lanes_equal_the_loop(blobs, deltas, optimizer, scheduler):
    setup = replace(blobs, batch_size=9, optimizer=OPTIMIZERS[optimizer], scheduler=scheduler, steps=8)
    lanes, loop = (trained(setup, [IDENTITY, *deltas], backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(lanes.base, loop.base, rtol=1e-8)
    np.testing.assert_allclose(lanes.mesa, loop.mesa, rtol=1e-8)
    assert [end.learning_rate for end in lanes.end] == [end.learning_rate for end in loop.end]


def test_what_replaces_a_factory_is_a_value():
    for wrapper in (partial(ScaledRate, SGD), partial(ChangedMomentum, SGD), partial(DecayingSchedule, None)):
        one, same, other = wrapper(0.5), wrapper(0.5), wrapper(0.25)
        assert one == same != other
        assert hash(one) == hash(same)
        assert copy.copy(one) == one


@pytest.mark.parametrize(
    ("strategy", "seeds"),
    [(pt.gradient_noise(max_scale=0.1), 3), (pt.learning_rate(max_log2=0.1), 1), (pt.lr_decay(max_rate=0.01), 1)],
    ids=["gradient_noise", "learning_rate", "lr_decay"],
)
def test_seeds_count_where_a_perturbation_makes_training_random(strategy, seeds):
    """The setup itself is deterministic: trained once, whatever seeds are asked for."""
    bowl = ac.landscape(lambda x: x.square().sum(), [1.0, 2.0], optimizer=SGD, steps=5)
    one, several = (ac.check_capability_robust(bowl, under=strategy, rtol=9.0, examples=4, seeds=n) for n in (1, 3))
    assert several.runs == seeds * one.runs
