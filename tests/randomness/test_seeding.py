"""Randomness is explicit and seeded, and the user's own is left as it was found."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.randomness.seeding import derive, generator, isolated

PARTS = st.lists(st.text(max_size=5) | st.integers(), max_size=4)


def states():
    """Return the state of every global generator, as something comparable."""
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), (kind, keys.tolist(), *rest), random.getstate()


def draw():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


@given(PARTS, PARTS)
def test_a_derived_seed_depends_on_every_part_and_on_nothing_else(a, b):
    assert 0 <= derive(*a) < 2**63
    assert (derive(*a) == derive(*b)) == (a == b)


def test_derived_seeds_are_the_same_in_every_process():
    assert derive("init", 0) == 1972644149930995479


@given(PARTS)
def test_a_generator_draws_the_same_for_the_same_parts(parts):
    before = states()
    assert torch.equal(torch.rand(3, generator=generator(*parts)), torch.rand(3, generator=generator(*parts)))
    assert states() == before


@given(st.integers(0, 2**63 - 1))
def test_isolated_seeds_all_three_and_puts_them_back(seed):
    before = states()
    with isolated(seed):
        first = draw()
    assert states() == before
    torch.rand(1), np.random.rand(), random.random()
    with isolated(seed):
        assert draw() == first


def test_isolated_puts_the_state_back_after_an_error():
    def fail():
        with isolated(1):
            raise KeyError(draw())

    before = states()
    with pytest.raises(KeyError):
        fail()
    assert states() == before


def test_within_one_that_starts_over_each_starts_from_its_seed_and_leaves_where_the_outer_one_began():
    before = states()
    with isolated(1):
        alone, first = draw(), states()
    with isolated(2):
        other, second = draw(), states()
    with isolated(1, starts_over=True):
        for _ in range(2):
            with isolated(2):
                assert draw() == other
                with isolated(1):
                    assert draw() == alone
                assert states() == second  # what is nested deeper is put back to where it stood
            assert draw() == alone
            assert states() == first
    assert states() == before


def test_one_that_starts_over_puts_the_state_back_after_an_error_within_an_inner_one():
    def fail():
        with isolated(1, starts_over=True), isolated(2):
            raise KeyError(draw())

    before = states()
    with pytest.raises(KeyError):
        fail()
    assert states() == before
    with isolated(3):
        draw()
    assert states() == before  # and those after it put back what they found


class Greedy(nn.Module):
    """A model that draws from every global generator: at its init, and at every forward pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.scale = float(np.random.rand()) + random.random()

    def forward(self, x):
        np.random.rand()
        random.random()
        return self.scale * nn.functional.dropout(self.layer(x), 0.5, self.training)


def greedy(**changes):
    data = (torch.ones(4, 3), torch.zeros(4, 1))
    return ac.TrainingSetup(
        Greedy, data, mse_loss, lambda parameters: torch.optim.SGD(parameters, lr=0.1), 3, **changes
    )


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_run_leaves_the_global_generators_as_it_found_them(batch_size):
    before = states()
    ac.run(greedy(batch_size=batch_size), seeds=range(3))
    assert states() == before


def test_a_run_in_lanes_leaves_the_global_generators_as_it_found_them(blobs):
    before = states()
    trajectory = ac.run(blobs, seeds=range(3), backend="lanes")
    assert [run.backend for run in trajectory.runs] == ["lanes"] * 3
    assert states() == before


def test_a_run_that_fails_leaves_the_global_generators_as_it_found_them():
    def broken(outputs, targets):
        torch.rand(1)
        raise ZeroDivisionError

    setup = ac.TrainingSetup(Greedy, greedy().data, broken, greedy().optimizer, 3)
    before = states()
    with pytest.raises(ZeroDivisionError):
        ac.run(setup)
    assert states() == before


def test_a_run_depends_on_its_seed_and_not_on_the_global_generators():
    setup = greedy()
    torch.manual_seed(1)
    first = ac.run(setup, seeds=[0, 1]).base
    torch.manual_seed(2)
    assert np.array_equal(ac.run(setup, seeds=[0, 1]).base, first)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize(("backend", "rtol"), [("loop", 0), ("lanes", 1e-12)])
def test_a_seed_gives_the_same_run_whatever_runs_beside_it(blobs, backend, rtol):
    alone = ac.run(blobs, seeds=[3], backend=backend).base
    beside = ac.run(blobs, seeds=[5, 3, 4], backend=backend).base
    np.testing.assert_allclose(beside[1], alone[0], rtol=rtol)


def test_applying_a_perturbation_leaves_the_global_generators_as_it_found_them(blobs):
    before = states()
    delta = pt.Perturbation("label_noise", 0.5, 1.0, seed=3)
    assert delta.achieved(blobs) > 0
    assert states() == before


def test_an_accelerator_that_is_not_in_use_is_not_seeded_for_when_it_is(monkeypatch):
    for module in (torch.cuda, torch.xpu, torch.mps):
        name = "manual_seed" if module is torch.mps else "manual_seed_all"
        monkeypatch.setattr(module, name, lambda _: pytest.fail("it would be seeded after the user's state is back"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with isolated(5):
        first = torch.rand(3)
    torch.testing.assert_close(first, torch.rand(3, generator=torch.Generator().manual_seed(5)))
