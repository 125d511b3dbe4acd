"""Compiled code is what was to be compiled, or is not used."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import alignment_checks as ac
from alignment_checks.backends import compiled, plan
from alignment_checks.backends.compiled import Compiler, NotCompiled
from alignment_checks.backends.footprint import Footprint

CPU = torch.device("cpu")


@pytest.fixture
def compiling(monkeypatch):
    """Let the shortest training be compiled."""
    monkeypatch.setattr(plan, "COMPILING", 0)
    compiled._compiled.cache_clear()


def dropping():
    return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.2), nn.Linear(4, 3))


@pytest.mark.parametrize("changes", [{"batch_size": 5}, {"model": dropping}], ids=["minibatches", "dropout"])
def test_compiled_lanes_equal_the_loop(blobs, compiling, changes):
    setup = replace(blobs, **changes)
    found, loop = (ac.run(setup, seeds=range(5), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-9)
    np.testing.assert_allclose(found.mesa, loop.mesa, rtol=1e-8)
    assert compiled._compiled.cache_info().currsize > 0
    assert {run.reason for run in found.runs} == {None}


def test_the_same_code_is_compiled_once_for_setups_built_apart(blobs, compiling):
    for _ in range(2):
        model = lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))  # noqa: E731
        ac.run(replace(blobs, model=model), seeds=range(3), backend="lanes")
    assert compiled._compiled.cache_info().misses == 1


class Stateful(nn.Module):
    """Takes another path from its `after`-th call on, of which its tensors know nothing."""

    def __init__(self, after):
        super().__init__()
        self.layer, self.after, self.calls = nn.Linear(5, 3), after, 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * (2 if self.calls > self.after else 1)


def test_code_that_takes_another_path_later_is_trained_uncompiled_and_says_so(blobs, compiling):
    setup = replace(blobs, model=lambda: Stateful(3), steps=compiled.AUDITED + 3)
    found = ac.run(setup, seeds=range(3), backend="lanes")
    assert {run.reason for run in found.runs} == {
        "not compiled: what was compiled is not what the model computes: its code takes more than one path"
    }


def test_a_compiler_that_fails_leaves_the_batch_uncompiled_and_says_so(blobs, compiling, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr("torch._inductor.compile", broken)
    found, loop = (ac.run(blobs, seeds=range(3), backend=backend) for backend in ("lanes", "loop"))
    np.testing.assert_allclose(found.base, loop.base, rtol=1e-9)
    assert {run.reason for run in found.runs} == {"not compiled: RuntimeError: no C++ compiler found"}


def test_convolutions_are_left_to_torch(monkeypatch):
    monkeypatch.setattr("torch._inductor.compile", None)
    layer = nn.Conv1d(1, 1, 2)

    def function(x):
        return {"y": layer(x)}

    x = torch.randn(3, 1, 4)
    torch.testing.assert_close(Compiler()(function, x)["y"], layer(x))


def test_a_value_that_differs_in_one_lane_alone_is_no_rounding():
    a = torch.arange(40, dtype=torch.float64).reshape(4, 10) / 40
    b = a.clone()
    b[0] *= 1e12
    compiled._compare([b], [b.clone()])
    wrong = b.clone()
    wrong[2, 3] += 1e-9
    with pytest.raises(NotCompiled, match="not what the model computes"):
        compiled._compare([wrong], [b])
    lost = b.clone()
    lost[1, 1] = torch.nan
    compiled._compare([lost], [lost.clone()])
    with pytest.raises(NotCompiled):
        compiled._compare([lost], [b])


def test_a_gradient_that_is_zero_but_for_rounding_is_not_compared_with_itself():
    loss, gradient = torch.ones(2, dtype=torch.float64), torch.full((2, 3), 1e-17, dtype=torch.float64)
    compiled._compare([loss, -gradient], [loss, gradient])


def test_compiling_has_to_pay_for_itself():
    small = Footprint(150_000, (), ())
    assert not plan.pays_to_compile(small, CPU, 16, runs=100, steps=100)
    assert plan.pays_to_compile(small, CPU, 16, runs=100, steps=2000)
    assert plan.pays_to_compile(small, CPU, 16, runs=4000, steps=100)
