"""The bits of a run do not depend on its company: by how lanes are stepped, or by what kernels leave over of them."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import alignment_checks as ac
from alignment_checks.backends import slots
from alignment_checks.backends.job import Job
from alignment_checks.backends.stepping.aligned import ALIGNED, Aligned
from alignment_checks.setups.realization import realize

CPU = torch.device("cpu")
SEEDS = range(23)
"""More than a batch, and not a multiple of one."""


class Own(torch.optim.Optimizer):
    """A user's own optimizer: what is taken off a parameter is a function of its gradient."""

    def __init__(self, parameters, function, lr=0.05, *, divided=False, assigned=False):
        super().__init__(parameters, {"lr": lr})
        self.function, self.divided, self.assigned = function, divided, assigned

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                by = group["lr"] * self.function(p.grad)
                by = by / (1 + by.norm()) if self.divided else by
                if self.assigned:
                    p.data = p.data - by
                else:
                    p.sub_(by)


STEPS = {
    "exp": lambda g: g.exp() - (-g).exp(),
    "tanh": lambda g: (3 * g).tanh(),
    "sigmoid": lambda g: (5 * g).sigmoid_() - 0.5,
    "pow": lambda g: g.sign() * g.abs().pow(0.7),
    "sinh": torch.sinh,
    "atan2": lambda g: torch.atan2(g, g.abs() + 0.1),
    "foreach": lambda g: torch._foreach_tanh([torch._foreach_sigmoid([g])[0] - 0.5])[0],
    "matrices": lambda g: g @ g.T @ g if g.ndim == 2 else g,
}


def in_groups(factory):
    """Return a factory of an optimizer that has each parameter in a group of its own: lanes are not flattened."""
    return lambda parameters: factory([{"params": [parameter]} for parameter in parameters])


OPTIMIZERS = {
    **{name: partial(Own, function=function) for name, function in STEPS.items()},
    **{f"{name}, a norm": partial(Own, function=function, divided=True) for name, function in STEPS.items()},
    **{f"{name}, assigned": partial(Own, function=function, assigned=True) for name, function in STEPS.items()},
    "Adam": partial(torch.optim.Adam, lr=0.05),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.01, centered=True),
    "NAdam": partial(torch.optim.NAdam, lr=0.05),
}
OPTIMIZERS |= {f"{name}, groups": in_groups(factory) for name, factory in OPTIMIZERS.items()}

LOSSES = {
    "square": lambda p: p.square(),
    "well": lambda p: (p.square() - 1).square(),
    "softplus": lambda p: nn.functional.softplus(p.square()),
    "tanh": lambda p: p.tanh().square() + 0.1 * p.square(),
    "pow": lambda p: p.abs().pow(1.7),
}


class Sum(nn.Module):
    """A function of tensors of odd sizes, which leave elements over."""

    def __init__(self, shapes, function):
        super().__init__()
        self.of = nn.ParameterList([nn.Parameter(torch.randn(shape) + 0.5) for shape in shapes])
        self.function = function

    def forward(self):
        return sum(self.function(p).sum() for p in self.of) + 0.1 * sum(p.square().sum() for p in self.of).sqrt()


SHAPES = st.lists(st.sampled_from([(), (3,), (5,), (2, 3), (7,), (3, 9), (27,)]), min_size=1, max_size=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@settings(max_examples=8, deadline=None)
@given(st.sampled_from(sorted(OPTIMIZERS)), st.sampled_from(sorted(LOSSES)), SHAPES, st.data())
def test_the_bits_of_a_run_do_not_depend_on_its_company(dtype, optimizer, loss, shapes, data):
    model = lambda: Sum(shapes, LOSSES[loss])  # noqa: E731
    setup = ac.TrainingSetup(model, None, lambda outputs, _: outputs, OPTIMIZERS[optimizer], 12, dtype=dtype)
    everything = ac.run(setup, seeds=SEEDS, backend="lanes")
    some = data.draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=len(SEEDS), unique=True))
    again = ac.run(setup, seeds=some, backend="lanes")
    np.testing.assert_array_equal(again.base, everything.base[some])
    np.testing.assert_array_equal(again.mesa, everything.mesa[some])


class Halves(nn.Module):
    """A gated linear unit of odd size, whose kernel is no pointwise one to torch."""

    def __init__(self, size, axis):
        super().__init__()
        self.layer, self.axis = nn.Linear(5, 2 * size), axis

    def forward(self, x):
        return nn.functional.glu(self.layer(x), self.axis).square().sum()


@pytest.mark.parametrize(("size", "axis"), [(1, 1), (7, 1), (27, 1), (3, 0)])
def test_nor_do_those_of_a_gated_linear_unit(size, axis):
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    adam = partial(torch.optim.Adam, lr=0.05)
    setup = ac.TrainingSetup(partial(Halves, size, axis), (x,), lambda outputs, _: outputs, adam, 6)
    everything, some = (ac.run(setup, seeds=seeds, backend="lanes") for seeds in (SEEDS, [20, 3, 11]))
    np.testing.assert_array_equal(some.base, everything.base[[20, 3, 11]])
    np.testing.assert_array_equal(some.mesa, everything.mesa[[20, 3, 11]])


def rows(size, dtype, *, seed=0):
    row = torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return row.expand(16, size).clone()


POINTWISE = {
    **{name: getattr(torch, name) for name in ("exp", "tanh", "sigmoid", "sinh", "cosh", "exp2", "erf")},
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: x.abs().rsqrt(),
    **{name: getattr(nn.functional, name) for name in ("softplus", "silu", "gelu", "mish", "elu", "logsigmoid")},
    "in place": lambda x: x.clone().sigmoid_(),
    "into": lambda x: torch.sigmoid(x, out=torch.empty_like(x)),
    "a power": lambda x: x.abs() ** 1.7,
    "a power of two": lambda x: 0.9**x,
    "two tensors": lambda x: torch.atan2(x, x[:, :1]),
    "transposed": lambda x: x.T.contiguous().T.sigmoid(),
    "add": lambda x: torch.add(x, 1.7 * x, alpha=0.3),
    "addcmul": lambda x: torch.addcmul(x, 1.3 * x, x + 7, value=-0.3),
    "addcdiv": lambda x: torch.addcdiv(x, 1.3 * x, x + 7, value=-0.3),
    "lerp": lambda x: torch.lerp(x, 3.3 * x, 0.37),
}
SEVERAL_TIMES = {
    "a scaled number": lambda x: torch.add(x, 0.123, alpha=0.37),
    "a scaled tensor of no axis": lambda x: x.sub(torch.tensor(0.123, dtype=x.dtype), alpha=0.37),
    "from another": lambda x: torch.rsub(x, 1.7 * x, alpha=0.3),
    "a quotient rounded down": lambda x: torch.div(x, 0.07 * x.flip(1), rounding_mode="floor"),
}
COMPLEX = {
    "mul": lambda z: z * (0.3 * z + 1),
    "div": lambda z: z / (0.3 * z + 1),
    "abs": torch.abs,
    "sgn": torch.sgn,
    "square": lambda z: z**2,
    "addcmul": lambda z: torch.addcmul(z, 1.3 * z, z + 7, value=-0.3),
    "lerp": lambda z: torch.lerp(z, 3.3 * z + 1, 0.37),
}


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@settings(max_examples=5, deadline=None)
@given(size=st.integers(1, 2 * ALIGNED), seed=st.integers(0, 1000))
def test_where_an_element_stands_changes_no_bit_of_it(name, dtype, size, seed):
    given = rows(size, dtype, seed=seed)
    with torch.no_grad(), Aligned():
        found = POINTWISE[name](given)
    torch.testing.assert_close(found, found[:1].expand_as(found), rtol=0, atol=0)
    assert found.shape == given.shape
    torch.testing.assert_close(found, POINTWISE[name](given))


def many(size, dtype):
    """Return lanes that are copies, of which the last have elements left over."""
    row = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=dtype.to_complex())
    return (row if dtype.is_complex else row.real).to(dtype).expand(5, size).clone()


@pytest.mark.parametrize(
    ("operation", "dtype"),
    [
        *product(SEVERAL_TIMES, (torch.float32, torch.float64, torch.bfloat16)),
        *product(COMPLEX, (torch.complex64, torch.complex128)),
    ],
)
def test_nor_does_it_where_an_operation_rounds_once_of_other_arguments_alone(operation, dtype):
    function = {**SEVERAL_TIMES, **COMPLEX}[operation]
    for size in range(1, 2 * ALIGNED):
        given = many(size, dtype)
        with torch.no_grad(), Aligned():
            found = function(given)
        torch.testing.assert_close(found, found[:1].expand_as(found), rtol=0, atol=0)
        torch.testing.assert_close(found, function(given))


def test_a_model_that_leaves_over_what_is_rounded_otherwise_is_seen():
    """Whatever numbers it starts from, of which most may be rounded alike."""
    tails = [slots.slots_matter(_job(shape, "softplus", torch.float32), CPU, 16, 16) for shape in ((3,), (7,), (27,))]
    whole = [slots.slots_matter(_job(shape, "softplus", torch.float32), CPU, 16, 16) for shape in ((4,), (32,))]
    exact = [slots.slots_matter(_job(shape, "well", torch.float32), CPU, 16, 16) for shape in ((3,), (7,), (27,))]
    assert len(set(tails)) == 1  # by the kernels of this machine, and by no number
    assert not any(whole)
    assert not any(exact)


def _job(shape, loss, dtype):
    sgd = partial(torch.optim.SGD, lr=0.1)
    model = lambda: Sum([shape], LOSSES[loss])  # noqa: E731
    return Job(realize(ac.TrainingSetup(model, None, lambda outputs, _: outputs, sgd, 5, dtype=dtype), 0), (None,))
