"""Ways of stepping lanes: each equal to the loop at every step, guarded at every step, and known by no name."""

import numpy as np
import pytest
import torch
from cases.stepping import (
    MANY,
    PER_LANE,
    SEEDS,
    STACKED,
    VMAPPED,
    Assigning,
    Bowl,
    Clipping,
    Items,
    Lamb,
    Mine,
    assert_equal_the_loop,
    bowl,
    clip,
    named,
    stepped,
)
from torch import nn
from torch.nn.utils import clip_grad_value_

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.backends.stepping.per_lane import PerLane
from alignment_checks.backends.stepping.single import needs_closure
from alignment_checks.perturbations import IDENTITY
from alignment_checks.setups.realization import realize


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


class AssigningNorms(Assigning):
    def update(self, p, g, state):
        return g / (1 + g.norm())


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


def clipped_values(parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    optimizer.register_step_pre_hook(lambda *_: clip_grad_value_(parameters, 0.2, foreach=False))
    return optimizer


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
    way, why = stepped(assert_equal_the_loop(bowl(optimizer), seeds=MANY, backend="auto"))
    assert way == expected[0]
    assert (why is None) == (expected[1] is None)
    assert expected[1] is None or expected[1] in why


@pytest.mark.parametrize("optimizer", [Mine, Lamb, Items], ids=named)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_in_each_way_a_lane_that_diverges_changes_no_bit_of_its_neighbours(optimizer, value):
    setup = bowl(optimizer, steps=20)
    there = {name: torch.full_like(p, value) for name, p in Bowl().double().named_parameters()}
    wild = pt.Perturbation("init_interpolation", 1.0, 1.0, 0, (("other", str(value)),), payload=there)
    tame = pt.Perturbation("init_gain", 0.5, 1.0, 0)
    others = [IDENTITY, pt.Perturbation("init_gain", 0.25, 1.0, 0)]
    beside, gone = (ac.run(setup, [others[0], middle, others[1]], backend="lanes") for middle in (tame, wild))
    assert stepped(beside)[0] == stepped(gone)[0] == {Mine: STACKED, Lamb: VMAPPED, Items: PER_LANE}[optimizer]
    assert [run.outcome.diverged_at for run in gone.runs] == [None, 0, None]
    assert np.array_equal(beside.base[[0, 2]], gone.base[[0, 2]])
    assert np.array_equal(beside.mesa[[0, 2]], gone.mesa[[0, 2]])


def test_lanes_that_only_fill_a_batch_up_have_no_optimizer_of_their_own():
    run = realize(bowl(Items), 0)
    weights = {name: torch.stack([value] * 4) for name, value in run.parameters.items()}
    before = {name: value.clone() for name, value in weights.items()}
    steps = PerLane([run] * 4, weights, idle={2, 3})
    steps.step({name: torch.ones_like(value) for name, value in weights.items()}, torch.zeros(4))
    assert list(steps.singles) == [0, 1]
    assert len(steps.learning_rates()) == 4
    for name, value in weights.items():
        assert torch.equal(value[2:], before[name][2:])
        assert torch.equal(value[0], value[1])
        assert not torch.equal(value[:2], before[name][:2])


def test_no_adversary_is_given_a_closure():
    """Else they would go to the loop for another reason than theirs."""
    parameter = nn.Parameter(torch.ones(1))
    assert not any(needs_closure(optimizer([parameter])) for optimizer in ADVERSARIES)


def test_a_setup_that_no_way_can_step_raises_what_the_loop_raises():
    class Broken(Mine):
        def update(self, p, g, state):
            raise ZeroDivisionError("of my own")

    with pytest.raises(ZeroDivisionError, match="of my own"):
        ac.run(bowl(Broken), seeds=MANY)


def test_lanes_asked_for_name_what_each_way_refused():
    with pytest.raises(RuntimeError, match=r"backend='lanes' cannot train this setup: the optimizer changes CountsIn"):
        ac.run(bowl(CountsInClass), seeds=SEEDS, backend="lanes")
