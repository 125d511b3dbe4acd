"""Ways of stepping lanes: each equal to the loop at every step, guarded at every step, and known by no name."""

import inspect
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import find
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedules

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends.job import needs_closure
from alignment_checks.backends.stepping import stacked
from alignment_checks.perturbations import IDENTITY
from alignment_checks.runs import Part, run_parts

SEEDS = range(3)


class Bowl(nn.Module):
    """A smooth, coupled function of a matrix, a vector and a number, with a parameter that it does not use."""

    def __init__(self, *shapes):
        super().__init__()
        self.of = nn.ParameterList([nn.Parameter(torch.randn(shape) + 0.5) for shape in shapes or ((3, 2), (2,), ())])
        self.spare = nn.Parameter(torch.ones(2))

    def forward(self):
        total = sum(p.square().sum() for p in self.of)
        return (1 + total).log() + sum(torch.cosh(0.3 * p).mean() for p in self.of)


def bowl(optimizer, *, steps=50, model=Bowl, **more):
    return ac.TrainingSetup(model, None, lambda outputs, _: outputs, optimizer, steps, dtype=torch.float64, **more)


def assert_equal_the_loop(setup, *arguments, rtol=1e-8, **more):
    """At every step, and where the runs end. Return the runs, as lanes have them where lanes can."""
    runs, loop = (ac.run(setup, *arguments, backend=b, device="cpu", **more) for b in ("auto", "loop"))
    assert np.isfinite(loop.base).all()
    np.testing.assert_allclose(runs.base, loop.base, rtol=rtol)
    np.testing.assert_allclose(runs.mesa, loop.mesa, rtol=rtol)
    for mine, oracle in zip(runs.end, loop.end, strict=True):
        assert mine.learning_rate == oracle.learning_rate
        for name, value in oracle.parameters.items():
            torch.testing.assert_close(mine.parameters[name], value, rtol=10 * rtol, atol=1e-12)
    return runs


def stepped(trajectory):
    """Return (the way that all runs took, why)."""
    (kind,) = {(run.backend, run.reason) for run in trajectory.runs}
    backend, reason = kind
    if backend == "loop":
        return "loop", reason
    found = re.search(r"stepped by (one optimizer for each lane|vmap over optimizer.step\(\))", reason or "")
    return (found[1] if found else "one optimizer over stacked lanes"), reason


STACKED, VMAPPED, PER_LANE = (
    "one optimizer over stacked lanes",
    "vmap over optimizer.step()",
    "one optimizer for each lane",
)


# ---------------------------------------------------------------------------------------------- torch's own optimizers

OPTIMIZERS = [c for c in vars(torch.optim).values() if inspect.isclass(c) and issubclass(c, Optimizer)]
TRIED = {
    "momentum": [0.8],
    "dampening": [0.1],
    "weight_decay": [0.1],
    "betas": [(0.5, 0.9)],
    "rho": [0.5],
    "lambd": [0.01],
    "lr_decay": [0.1],
    "initial_accumulator_value": [0.1],
    "lr": [torch.tensor(0.01, dtype=torch.float64)],
}
"""Values of options, whoever has them; an option that is False or None is tried as True."""


def options(cls):
    """Return each option of an optimizer that a plain loop can step with on this device, alone or with momentum."""
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    flags = {name: [True] for name, default in defaults.items() if default in (False, None)}
    base = [{}, {"momentum": 0.8}] if "momentum" in defaults else [{}]
    found = [{}]
    for name, values in (flags | TRIED).items():
        for value in values if name in defaults else []:
            found += [{**more, name: value} for more in base if works(cls, {**more, name: value})][-1:]
    return found


def works(cls, chosen):
    parameter = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    parameter.grad = torch.ones_like(parameter)
    try:
        cls([parameter], **chosen).step()
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


def named(value):
    return value.__name__ if inspect.isclass(value) else ",".join(f"{k}={v}" for k, v in value.items()) or "default"


ELEMENTWISE = [
    c for c in OPTIMIZERS if c is not Optimizer and c.__name__ not in ("Adafactor", "LBFGS", "Muon", "SparseAdam")
]


@pytest.mark.parametrize("cls", ELEMENTWISE, ids=named)
def test_torchs_elementwise_optimizers_are_stepped_stacked_with_each_option(cls):
    tried = options(cls)
    assert len(tried) > 3
    for chosen in tried:
        steps = 50 if not chosen else 6
        assert stepped(assert_equal_the_loop(bowl(partial(cls, **chosen), steps=steps), seeds=SEEDS)) == (STACKED, None)


def test_optimizers_that_look_at_more_than_an_element_are_stepped_in_a_slower_way_and_say_so():
    matrices = partial(Matrices)
    for optimizer, way in ((torch.optim.Adafactor, PER_LANE), (torch.optim.Muon, PER_LANE)):
        came, why = stepped(assert_equal_the_loop(bowl(optimizer, model=matrices, steps=12), seeds=SEEDS))
        assert came == way
        assert "one optimizer over stacked lanes was refused" in why


class Matrices(Bowl):
    """Muon takes matrices alone."""

    def __init__(self):
        super().__init__((3, 2), (2, 2))
        self.spare = None


def test_a_product_in_a_narrower_dtype_is_seen():
    """Muon multiplies in bfloat16, where a batched product rounds otherwise than a single one."""
    _, why = stepped(ac.run(bowl(torch.optim.Muon, model=Matrices, steps=3), seeds=SEEDS))
    assert "vmap over optimizer.step() was refused: a lane stepped by itself moves otherwise" in why


def test_sparse_gradients_go_through_the_loop_and_say_so():
    def model():
        return nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten())

    data = (torch.arange(5), torch.zeros(5, 3))
    setup = ac.TrainingSetup(model, data, nn.functional.mse_loss, torch.optim.SparseAdam, 5)
    assert stepped(assert_equal_the_loop(setup, seeds=SEEDS)) == ("loop", "the gradient of 0.weight is sparse")


def test_a_closure_goes_through_the_loop_and_says_so():
    way, why = stepped(assert_equal_the_loop(bowl(torch.optim.LBFGS, steps=4), seeds=SEEDS))
    assert way == "loop"
    assert why.startswith("LBFGS is given a closure")


def test_every_class_of_torch_is_tried():
    elsewhere = {torch.optim.Adafactor, torch.optim.Muon, torch.optim.SparseAdam, torch.optim.LBFGS}
    assert {*ELEMENTWISE, *elsewhere, Optimizer} == set(OPTIMIZERS)


def groups(parameters):
    """Return an optimizer with groups of other options, which shapes decide."""
    matrices, rest = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.3}, {"params": rest, "lr": 0.05}], lr=0.01)


def test_several_groups_are_each_stepped_by_their_own_options():
    def halves(parameters):
        first, *rest = parameters
        return torch.optim.SGD([{"params": rest}, {"params": [first], "lr": 0.3, "momentum": 0.5}], lr=0.1)

    assert stepped(assert_equal_the_loop(bowl(halves), seeds=SEEDS)) == (STACKED, None)


def test_a_factory_that_looks_at_shapes_is_called_with_a_lanes_own():
    way, why = stepped(assert_equal_the_loop(bowl(groups), seeds=SEEDS))
    assert way == VMAPPED
    assert "the optimizer's factory looks at the shapes of the parameters" in why


def test_a_factory_that_looks_at_the_parameters_sees_those_of_each_lane():
    def scaled(parameters):
        return torch.optim.SGD(parameters, lr=0.1 / (1 + float(sum(p.detach().abs().sum() for p in parameters))))

    trajectory = assert_equal_the_loop(bowl(scaled), seeds=SEEDS)
    assert stepped(trajectory)[0] == PER_LANE
    assert len({end.learning_rate for end in trajectory.end}) == len(SEEDS)


def test_a_parameter_that_the_loss_does_not_use_has_no_gradient_for_the_optimizer():
    """Weight decay moves a parameter whose gradient is zero, and leaves one without a gradient."""
    for optimizer in (partial(torch.optim.SGD, weight_decay=0.3), partial(Lamb, weight_decay=0.3), Assigning):
        trajectory = assert_equal_the_loop(bowl(optimizer, steps=10), seeds=SEEDS)
        assert {run.backend for run in trajectory.runs} == {"lanes"}
        assert all(bool((end.parameters["spare"] == 1).all()) for end in trajectory.end)


# ------------------------------------------------------------------------------------------------------- adversaries


class Mine(Optimizer):
    """A user's own optimizer: `update(parameter, gradient, state, t)` is what is taken off the parameter."""

    def __init__(self, parameters, lr=0.05, **more):
        super().__init__(parameters, {"lr": lr, **more})
        self.t = 0

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, group["lr"] * self.update(p, p.grad, self.state[p]))
        self.t += 1

    def move(self, p, by):
        p.sub_(by)

    def update(self, p, g, state):
        return g


class Lamb(Mine):
    """The trust ratio of each tensor: a norm of all its elements."""

    def update(self, p, g, state):
        moved = g + self.defaults.get("weight_decay", 0) * p
        return moved * p.norm() / (moved.norm() + 1e-3)


class CouplesLate(Mine):
    """Elementwise for 30 steps."""

    def update(self, p, g, state):
        return g if self.t < 30 else g - g.mean()


class BranchesLate(Mine):
    """Reads a number at its thirtieth step."""

    def update(self, p, g, state):
        return g if self.t < 30 or g.norm().item() < 0.05 else 2 * g


class BranchesOnNorm(Mine):
    """Couples only where the largest element, read behind torch's back, passes a bound."""

    def update(self, p, g, state):
        return 0.5 * g if np.abs(p.detach().numpy()).max() > 1.2 else g


class BranchesOnList(Mine):
    def update(self, p, g, state):
        return 0.5 * g if max(np.ravel(p.tolist())) > 1.2 else g


class LooksAtNumber(Mine):
    def update(self, p, g, state):
        return g / p.numel() ** 0.5


class LooksAtNumberLate(Mine):
    """Gathers what depends on the number of elements in its state, and uses it only later."""

    def update(self, p, g, state):
        state["sum"] = state.get("sum", torch.zeros_like(p)) + g / p.numel() ** 0.5
        return g if self.t < 40 else state["sum"] / self.t


class LooksAtDimension(Mine):
    def update(self, p, g, state):
        return g + 0.1 * p if p.dim() > 1 else g


class LooksAtLastAxis(Mine):
    def update(self, p, g, state):
        return g / p.shape[0] if p.shape else g


class SliceOfLanes(Mine):
    """Moves the first row alone."""

    def move(self, p, by):
        p[:1].sub_(by[:1]) if p.ndim else p.sub_(by)


class KeepsElsewhere(Mine):
    """Keeps its momentum in a list, and its step count in a tensor of its own."""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.buffers = [torch.zeros_like(p) for p in self.param_groups[0]["params"]]
        self.count = torch.zeros(())

    def update(self, p, g, state):
        where = next(i for i, other in enumerate(self.param_groups[0]["params"]) if other is p)
        self.buffers[where] = 0.5 * self.buffers[where] + g
        self.count += 1
        return self.buffers[where] / (1 + self.count / 100)


class Ratio:
    """What an optimizer may keep: an object with tensors."""

    def __init__(self):
        self.norm = None

    def __call__(self, g):
        self.norm = g.norm() if self.norm is None else 0.9 * self.norm + 0.1 * g.norm()
        return g / (1 + self.norm)


class KeepsObjects(Mine):
    """Keeps a moving average of norms in an object of its own."""

    def update(self, p, g, state):
        return state.setdefault("ratio", Ratio())(g)


class Assigning(Mine):
    """Puts another tensor into the parameter."""

    def move(self, p, by):
        p.data = p.data - by


class AssigningNorms(Assigning):
    def update(self, p, g, state):
        return g / (1 + g.norm())


class Items(Mine):
    def update(self, p, g, state):
        return g / (1 + g.norm().item())


class Random(Mine):
    def update(self, p, g, state):
        return g + 0.1 * torch.randn_like(g)


class RandomOfNumpy(Mine):
    def update(self, p, g, state):
        return g * np.random.rand()


class RandomLate(Mine):
    def update(self, p, g, state):
        return g if self.t < 30 else g * np.random.rand()


class OwnGenerator(Mine):
    """Draws from a generator that it seeds itself: the same draws in each run."""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.generator = torch.Generator().manual_seed(1)

    def update(self, p, g, state):
        return g + 0.1 * torch.randn(g.shape, generator=self.generator, dtype=g.dtype)


class CountsInClass(Mine):
    """Decays with a count that each new optimizer sets back, in its class."""

    count = 0

    def __init__(self, parameters):
        super().__init__(parameters)
        type(self).count = 0

    def update(self, p, g, state):
        type(self).count += 1
        return g / (1 + 0.01 * type(self).count)


class InClass(Mine):
    """Keeps its momentum in its class."""

    buffers: dict = {}  # noqa: RUF012

    def update(self, p, g, state):
        self.buffers[p] = 0.5 * self.buffers.get(p, 0) + g
        return self.buffers[p]


def clipped(parameters):
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    optimizer.register_step_pre_hook(lambda *_: clip(parameters))
    return optimizer


def clip(parameters):
    clip_grad_norm_([p for p in parameters if p.grad is not None], 0.3)


def clipped_values(parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    optimizer.register_step_pre_hook(lambda *_: clip_grad_value_(parameters, 0.2, foreach=False))
    return optimizer


class Clipping(torch.optim.SGD):
    """A subclass that clips before it steps."""

    def step(self, closure=None):
        clip(self.param_groups[0]["params"])
        return super().step(closure)


ADVERSARIES = {
    Mine: (STACKED, None),
    Lamb: (VMAPPED, "norm"),
    CouplesLate: (VMAPPED, "aten.mean.default can mix lanes"),
    BranchesLate: (PER_LANE, "calling .item()"),
    BranchesOnNorm: (PER_LANE, "Tensor.numpy reads lanes from the host"),
    BranchesOnList: (PER_LANE, "Tensor.tolist reads lanes from the host"),
    LooksAtNumber: (VMAPPED, "a lane stepped by itself moves otherwise"),
    LooksAtNumberLate: (VMAPPED, "the state of a lane stepped by itself is another"),
    LooksAtDimension: (VMAPPED, "a lane stepped by itself moves otherwise"),
    LooksAtLastAxis: (VMAPPED, "a lane stepped by itself moves otherwise"),
    SliceOfLanes: (VMAPPED, "aten.slice.Tensor can mix lanes"),
    KeepsElsewhere: (STACKED, None),
    KeepsObjects: (VMAPPED, "norm"),
    Assigning: (STACKED, None),
    AssigningNorms: (PER_LANE, "data"),
    Items: (PER_LANE, "calling .item()"),
    Random: ("loop", "the optimizer draws random numbers"),
    RandomOfNumpy: ("loop", "the optimizer draws random numbers"),
    RandomLate: ("loop", "the optimizer draws random numbers"),
    OwnGenerator: (PER_LANE, "aten.randn.generator can mix lanes"),
    CountsInClass: ("loop", "the optimizer changes CountsInClass.count, which all lanes share"),
    InClass: ("loop", "the optimizer changes InClass.buffers, which all lanes share"),
    clipped: (VMAPPED, "aten._foreach_norm.Scalar can mix lanes"),
    clipped_values: (STACKED, None),
    Clipping: (VMAPPED, "aten._foreach_norm.Scalar can mix lanes"),
}


@pytest.mark.parametrize(("optimizer", "expected"), ADVERSARIES.items(), ids=lambda v: getattr(v, "__name__", ""))
def test_whatever_an_optimizer_does_it_equals_the_loop_and_says_how_it_was_stepped(optimizer, expected):
    way, why = stepped(assert_equal_the_loop(bowl(optimizer), seeds=SEEDS))
    assert way == expected[0]
    assert (why is None) == (expected[1] is None)
    assert expected[1] is None or expected[1] in why


@pytest.mark.parametrize("cls", [c for c in ELEMENTWISE if c is not torch.optim.Rprop], ids=named)
def test_clipping_by_the_norm_steps_torchs_own_by_vmap_without_its_slow_paths(cls):
    """Of lists of tensors too, as torch does it on an accelerator. Rprop indexes by masks, which vmap refuses."""

    def factory(parameters, foreach):
        optimizer = cls(parameters, foreach=foreach)
        optimizer.register_step_pre_hook(lambda *_: clip(parameters))
        return optimizer

    for foreach in (False, True):
        way, why = stepped(assert_equal_the_loop(bowl(partial(factory, foreach=foreach), steps=5), seeds=SEEDS))
        assert way == VMAPPED
        assert "performance drop" not in why


@pytest.mark.parametrize("optimizer", [Mine, Lamb, Items], ids=named)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_in_each_way_a_lane_that_diverges_changes_no_bit_of_its_neighbours(optimizer, value):
    setup = bowl(optimizer, steps=20)
    there = {name: torch.full_like(p, value) for name, p in Bowl().double().named_parameters()}
    wild = pt.Perturbation("init_interpolation", 1.0, 1.0, 0, (("other", str(value)),), payload=there)
    tame = pt.Perturbation("init_gain", 0.5, 1.0, 0)
    others = [IDENTITY, pt.Perturbation("init_gain", 0.25, 1.0, 0)]
    beside, gone = (ac.run(setup, [others[0], middle, others[1]]) for middle in (tame, wild))
    assert stepped(beside)[0] == stepped(gone)[0] == {Mine: STACKED, Lamb: VMAPPED, Items: PER_LANE}[optimizer]
    assert [run.outcome.diverged_at for run in gone.runs] == [None, 0, None]
    assert np.array_equal(beside.base[[0, 2]], gone.base[[0, 2]])
    assert np.array_equal(beside.mesa[[0, 2]], gone.mesa[[0, 2]])


def test_no_adversary_is_given_a_closure():
    """Else they would go to the loop for another reason than theirs."""
    parameter = nn.Parameter(torch.ones(1))
    assert not any(needs_closure(optimizer([parameter])) for optimizer in ADVERSARIES)


def test_a_setup_that_no_way_can_step_raises_what_the_loop_raises():
    class Broken(Mine):
        def update(self, p, g, state):
            raise ZeroDivisionError("of my own")

    with pytest.raises(ZeroDivisionError, match="of my own"):
        ac.run(bowl(Broken), seeds=SEEDS)


def test_lanes_asked_for_name_what_each_way_refused():
    with pytest.raises(RuntimeError, match=r"backend='lanes' cannot train this setup: the optimizer changes CountsIn"):
        ac.run(bowl(CountsInClass), seeds=SEEDS, backend="lanes")


# -------------------------------------------------------------------------------------------------------- schedulers


def chained(optimizer):
    return schedules.ChainedScheduler(
        [schedules.ConstantLR(optimizer, 0.5, total_iters=3), schedules.ExponentialLR(optimizer, 0.9)]
    )


def sequential(optimizer):
    parts = [schedules.LinearLR(optimizer, 0.1, total_iters=4), schedules.CosineAnnealingLR(optimizer, 6)]
    return schedules.SequentialLR(optimizer, parts, milestones=[4])


SCHEDULERS = {
    schedules.LambdaLR: partial(schedules.LambdaLR, lr_lambda=lambda t: 1 / (1 + t)),
    schedules.MultiplicativeLR: partial(schedules.MultiplicativeLR, lr_lambda=lambda t: 0.9),
    schedules.StepLR: partial(schedules.StepLR, step_size=2),
    schedules.MultiStepLR: partial(schedules.MultiStepLR, milestones=[2, 5]),
    schedules.ConstantLR: partial(schedules.ConstantLR, total_iters=3),
    schedules.LinearLR: schedules.LinearLR,
    schedules.ExponentialLR: partial(schedules.ExponentialLR, gamma=0.8),
    schedules.SequentialLR: sequential,
    schedules.PolynomialLR: partial(schedules.PolynomialLR, total_iters=8, power=2.0),
    schedules.CosineAnnealingLR: partial(schedules.CosineAnnealingLR, T_max=4),
    schedules.ChainedScheduler: chained,
    schedules.ReduceLROnPlateau: partial(schedules.ReduceLROnPlateau, patience=0, threshold=0.05, factor=0.5),
    schedules.CyclicLR: partial(schedules.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=3),
    schedules.CosineAnnealingWarmRestarts: partial(schedules.CosineAnnealingWarmRestarts, T_0=3),
    schedules.OneCycleLR: partial(schedules.OneCycleLR, max_lr=0.1, total_steps=12),
}


def test_every_scheduler_of_torch_is_tried():
    found = {c for c in vars(schedules).values() if inspect.isclass(c) and issubclass(c, schedules.LRScheduler)}
    bases = {schedules.LRScheduler, schedules._LRScheduler}
    assert SCHEDULERS.keys() == found - bases


@pytest.mark.parametrize("cls", SCHEDULERS, ids=named)
def test_any_scheduler_goes_through_lanes(cls):
    for optimizer in (partial(torch.optim.SGD, lr=0.05, momentum=0.9), Clipping):
        if optimizer is Clipping and cls is schedules.CyclicLR:
            continue  # it cycles a momentum, which this optimizer has not
        trajectory = assert_equal_the_loop(bowl(optimizer, steps=10, scheduler=SCHEDULERS[cls]), seeds=SEEDS)
        assert {run.backend for run in trajectory.runs} == {"lanes"}


def test_a_scheduler_that_looks_at_the_loss_is_given_each_lanes_own():
    reduced = partial(schedules.ReduceLROnPlateau, patience=0, threshold=0.01, factor=0.5)
    setup = bowl(partial(torch.optim.SGD, lr=0.1), scheduler=reduced, steps=8)
    trajectory = assert_equal_the_loop(setup, seeds=SEEDS)
    assert stepped(trajectory) == (STACKED, None)
    assert len({end.learning_rate for end in trajectory.end}) > 1


def test_a_scheduler_that_looks_at_the_parameters_sees_those_of_each_lane():
    way, _ = stepped(assert_equal_the_loop(bowl(torch.optim.SGD, scheduler=Largest, steps=10), seeds=SEEDS))
    assert way == PER_LANE


# ------------------------------------------------------------------------- different hyperparameters in one batch


def test_runs_of_different_hyperparameters_share_a_batch_and_return_in_their_order():
    decaying = partial(schedules.StepLR, step_size=3)
    setup = bowl(partial(torch.optim.Adam, lr=0.05), steps=8, scheduler=decaying)
    rate = partial(pt.Perturbation, "learning_rate", limit=2.0, seed=0)
    deltas = [rate(1.0), IDENTITY, rate(-1.0), rate(1.0)]
    trajectory = assert_equal_the_loop(setup, deltas, seeds=[0, 1, 2])
    rates = [end.learning_rate[0] for end in trajectory.end]
    assert rates == pytest.approx([0.1 * 0.01] * 3 + [0.05 * 0.01] * 3 + [0.025 * 0.01] * 3 + [0.1 * 0.01] * 3)
    assert {run.reason for run in trajectory.runs} == {None}


def delta(family, magnitude):
    return pt.Perturbation(family, magnitude, 2.0, 0)


RATES = [delta("learning_rate", m) for m in (1.0, 0.5, 0.25, -1.0)]


DECAYS = [delta("lr_decay", m) for m in (0.1, 0.3, 0.02, 0.5)]
CHANGES = [delta("momentum", m) for m in (-0.2, -0.1, -0.3, -0.05)]


@pytest.mark.parametrize("cls", ELEMENTWISE, ids=named)
def test_lanes_with_hyperparameters_of_their_own_are_stepped_stacked(cls):
    """Also of lists of tensors, as torch does it on an accelerator; and where each lane has a schedule of its own."""
    has = inspect.signature(cls).parameters
    if cls is torch.optim.ASGD:
        pytest.skip("its state is one number for a parameter")
    searched = [RATES, DECAYS]
    searched += [CHANGES] if "momentum" in has or ("betas" in has and cls is not torch.optim.NAdam) else []
    for deltas in searched:
        setup = bowl(partial(cls, foreach=True, **{"momentum": 0.8} if "momentum" in has else {}), steps=10)
        assert stepped(assert_equal_the_loop(setup, deltas)) == (STACKED, None)
        assert stepped(assert_equal_the_loop(replace(setup, optimizer=cls, steps=50), RATES)) == (STACKED, None)


def test_an_optimizer_that_takes_a_hyperparameter_for_one_number_is_stepped_lane_by_lane_and_says_so():
    for optimizer, deltas, why in (
        (torch.optim.ASGD, RATES, "as_tensor takes a hyperparameter, by which lanes differ, as one number"),
        (torch.optim.NAdam, CHANGES, "a hyperparameter by which lanes differ meets a tensor that they share"),
        (ReadsRate, RATES, "it reads a hyperparameter, by which lanes differ, as one number"),
        (RootOfRate, RATES, "a lane stepped by itself moves otherwise"),
        (BranchesOnRate, RATES, "it branches on a hyperparameter by which lanes differ"),
    ):
        way, reason = stepped(assert_equal_the_loop(bowl(optimizer, steps=10), deltas))
        assert way == PER_LANE
        assert f"one optimizer over stacked lanes was refused: {why}" in reason


class ReadsRate(Mine):
    def update(self, p, g, state):
        return g * float(self.param_groups[0]["lr"])


class RootOfRate(Mine):
    """Takes the learning rate as C does, behind Python's back."""

    def update(self, p, g, state):
        return g * math.sqrt(self.param_groups[0]["lr"])


class BranchesOnRate(Mine):
    def update(self, p, g, state):
        return g if self.param_groups[0]["lr"] > 0.06 else 2 * g


class BranchesOn(Mine):
    """Goes slower in the lanes whose learning rate, seen through a function, is large."""

    def __init__(self, parameters, lr=0.05, *, seen):
        super().__init__(parameters, lr)
        self.seen = seen

    def update(self, p, g, state):
        return g * (0.5 if self.seen(self.param_groups[0]["lr"]) else 1)


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (lambda lr: abs(lr) > 0.08, "it branches on a hyperparameter"),
        (lambda lr: +lr > 0.08, "it branches on a hyperparameter"),
        (lambda lr: lr % 1 > 0.08, "it reads a hyperparameter"),
        (lambda lr: 1 % lr > 0.01, "it reads a hyperparameter"),
        (lambda lr: 100 * lr // 1 > 8, "it reads a hyperparameter"),
        (lambda lr: divmod(lr, 0.08)[0] > 0, "it reads a hyperparameter"),
        (lambda lr: round(lr, 2) > 0.08, "it reads a hyperparameter"),
        (lambda lr: int(100 * lr) > 8, "it reads a hyperparameter"),
        (lambda lr: math.trunc(100 * lr) > 8, "it reads a hyperparameter"),
        (lambda lr: math.floor(100 * lr) > 8, "it reads a hyperparameter"),
        (lambda lr: math.ceil(100 * lr) > 8, "it reads a hyperparameter"),
        (lambda lr: math.sqrt(lr) > math.sqrt(0.08), "a lane stepped by itself moves otherwise"),
        (lambda lr: math.log(lr) > math.log(0.08), "a lane stepped by itself moves otherwise"),
    ],
)
def test_a_lane_that_alone_takes_another_branch_is_stepped_by_itself_and_says_so(seen, why):
    """The first lane does not: a run as short as the lanes are many is enough to see it."""
    small_but_one = [delta("learning_rate", m) for m in (-0.5, -0.8, 0.3, -0.3, 1.0)]
    setup = bowl(partial(BranchesOn, seen=seen), steps=5)
    way, reason = stepped(assert_equal_the_loop(setup, small_but_one))
    assert way == PER_LANE
    assert f"one optimizer over stacked lanes was refused: {why}" in reason


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, Mine, Lamb], ids=named)
def test_each_lane_has_the_schedule_of_its_own_rate(optimizer):
    for scheduler in (
        partial(schedules.StepLR, step_size=2),
        partial(schedules.ReduceLROnPlateau, patience=0, threshold=0.05, factor=0.5),
        partial(schedules.OneCycleLR, max_lr=0.1, total_steps=12, cycle_momentum=False),
    ):
        setup = bowl(optimizer, steps=10, scheduler=scheduler)
        way, _ = stepped(assert_equal_the_loop(setup, RATES))
        assert way == (VMAPPED if optimizer is Lamb else STACKED)


def test_the_bits_of_a_run_do_not_depend_on_the_hyperparameters_beside_it():
    for optimizer in (torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9), Lamb):
        setup = bowl(optimizer, steps=20)
        deltas = [IDENTITY, *RATES, *(CHANGES if optimizer is not Lamb else [])]
        together = ac.run(setup, deltas, backend="lanes")
        alone = [ac.run(setup, [one], backend="lanes") for one in deltas]
        np.testing.assert_array_equal(together.base, np.concatenate([one.base for one in alone]))
        assert [run.reason for run in together.runs] == [run.reason for one in alone for run in one.runs]


def test_factories_that_differ_in_more_than_numbers_are_each_called_for_their_lane():
    """What an optimizer keeps outside of its options is not among the numbers that lanes may differ by."""
    kinds = pt.custom("kept", keep_rate, max_magnitude=1.0)
    one = find(kinds, lambda d: d.magnitude > 0)
    way, why = stepped(assert_equal_the_loop(bowl(KeepsRate, steps=8), [one, one.at(0.5), one.at(0.25)]))
    assert way == PER_LANE
    assert "its state.kept is" in why


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9), Lamb, Items], ids=str)
def test_setups_that_differ_in_their_hyperparameters_share_batches(optimizer):
    setup = bowl(partial(optimizer, lr=0.01), steps=10)
    half = replace(setup, optimizer=partial(optimizer, lr=0.005), scheduler=partial(schedules.StepLR, step_size=3))
    parts = [Part(one, seeds=range(4)) for one in (setup, half, replace(setup, optimizer=partial(optimizer, lr=0.02)))]
    together, loops = (run_parts(parts, device="cpu", backend=backend, planned=0) for backend in ("auto", "loop"))
    assert {run.backend for one in together for run in one.runs} == {"lanes"}
    for mine, oracle in zip(together, loops, strict=True):
        np.testing.assert_allclose(mine.base, oracle.base, rtol=1e-8)
        assert [end.learning_rate for end in mine.end] == [end.learning_rate for end in oracle.end]


class CountsInGroup(Mine):
    """Counts its steps among its options, and lets its learning rate decay by itself."""

    def __init__(self, parameters, lr=0.05):
        super().__init__(parameters, lr, k=0)

    def update(self, p, g, state):
        return g / (1 + 0.01 * self.param_groups[0]["k"])

    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            group["k"] += 1
            group["lr"] *= 0.99


def test_an_optimizer_that_moves_its_own_options_is_stepped_stacked_with_those_of_each_lane():
    assert stepped(assert_equal_the_loop(bowl(CountsInGroup), RATES)) == (STACKED, None)
    half = partial(schedules.StepLR, step_size=30)
    assert stepped(assert_equal_the_loop(bowl(CountsInGroup), seeds=SEEDS)) == (STACKED, None)
    way, _ = stepped(assert_equal_the_loop(bowl(CountsInGroup, scheduler=half), RATES))
    assert way == PER_LANE  # what the schedule of a lane starts from has been moved by its steps


class Largest(schedules.LRScheduler):
    """Divides by the largest element of the parameters."""

    def get_lr(self):
        largest = max(float(p.detach().abs().max()) for p in self.optimizer.param_groups[0]["params"])
        return [rate / largest for rate in self.base_lrs]


def shrinking(optimizer):
    """Return a schedule that shrinks the parameters too, by a hook on the optimizer."""
    optimizer.register_step_post_hook(lambda one, *_: [p.data.mul_(0.99) for p in one.param_groups[0]["params"]])
    return schedules.StepLR(optimizer, step_size=2)


class WarmUp:
    """Counts by the steps that the optimizer keeps for its parameters."""

    def __init__(self, optimizer):
        self.optimizer, self.base = optimizer, [group["lr"] for group in optimizer.param_groups]

    def step(self):
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            done = self.optimizer.state[group["params"][0]].get("step", 0)
            group["lr"] = base * min(1.0, (1 + int(done)) / 10)


class WarmUpOfAll(WarmUp):
    """Does not name a parameter, and asks whether there is any state."""

    def step(self):
        done = max((int(kept.get("step", 0)) for kept in self.optimizer.state.values()), default=0)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * min(1.0, (1 + done) / 10)


@pytest.mark.parametrize("scheduler", [WarmUp, WarmUpOfAll], ids=named)
def test_a_schedule_that_looks_at_the_state_is_stepped_with_its_own_lane_and_says_so(scheduler):
    way, reason = stepped(assert_equal_the_loop(bowl(torch.optim.Adam, scheduler=scheduler, steps=20), RATES))
    assert way == PER_LANE
    assert "one optimizer over stacked lanes was refused: its scheduler looks at the optimizer's state" in reason


def test_a_number_that_a_scheduler_overwrites_at_once_is_still_a_lanes_own():
    cyclic = partial(schedules.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=4)
    setup = bowl(partial(torch.optim.SGD, lr=0.05, momentum=0.9), scheduler=cyclic, steps=10)
    assert stepped(assert_equal_the_loop(setup, CHANGES)) == (STACKED, None)


def test_a_mistake_in_flattening_is_reported(monkeypatch):
    def mistaken(*_):
        raise KeyError("a row")

    monkeypatch.setattr(stacked, "Rows", mistaken)
    way, reason = stepped(assert_equal_the_loop(bowl(Mine, steps=5), seeds=SEEDS))
    assert way != "loop"
    assert "one optimizer over flattened lanes was refused: 'a row'" in reason


@pytest.mark.parametrize(
    ("scheduler", "why"),
    [(Largest, "its scheduler looks at the parameters"), (shrinking, "its scheduler hooks into the optimizer")],
)
def test_a_schedule_that_looks_beyond_its_numbers_is_stepped_with_its_own_lane_and_says_so(scheduler, why):
    way, reason = stepped(assert_equal_the_loop(bowl(Mine, scheduler=scheduler, steps=20), RATES))
    assert way == PER_LANE
    assert f"one optimizer over stacked lanes was refused: {why}" in reason


class KeepsRate(Mine):
    def __init__(self, parameters, kept=0.5):
        super().__init__(parameters)
        self.kept = kept

    def update(self, p, g, state):
        return g * self.kept


def keep_rate(realization, magnitude, generator):
    return replace(realization, optimizer=partial(KeepsRate, kept=magnitude))


class LastMade(Mine):
    """Takes the learning rate of whichever optimizer was made last."""

    lr = 0.0

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr)
        type(self).lr = lr

    def update(self, p, g, state):
        return g * type(self).lr


def test_optimizers_that_share_a_number_through_their_class_go_through_the_loop():
    rates = pt.custom("rate", change_rate, max_magnitude=1.0)
    setup = bowl(partial(LastMade, lr=0.05), steps=8)
    changed = find(rates, lambda d: d.magnitude > 0)
    way, why = stepped(assert_equal_the_loop(setup, [changed, changed.at(0.5)], seeds=[0, 1]))
    assert (way, why) == ("loop", "the optimizer changes LastMade.lr, which all lanes share")


def change_rate(realization, magnitude, generator):
    return replace(realization, optimizer=partial(LastMade, lr=0.05 * (1 + magnitude)))
