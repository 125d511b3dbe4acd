"""The bits of L under a perturbation do not depend on which other runs are scored under one."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import alignment_checks as ac
from alignment_checks.backends.layouts import at_slots
from alignment_checks.perturbations import IDENTITY, Perturbation

SEEDS = (0, 1)
ACTIVATIONS = [nn.Softplus, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Tanh]
"""Most round the elements otherwise that are left over at the end of a stack of lanes: slots matter."""

SCORED = st.one_of(
    st.just(IDENTITY),
    st.builds(Perturbation, st.just("label_noise"), st.sampled_from([0.3, 0.5]), st.just(0.5), st.integers(0, 2)),
    st.builds(Perturbation, st.just("feature_noise"), st.sampled_from([0.1, 0.2]), st.just(0.5), st.integers(0, 2)),
)
TRAINED = st.one_of(
    st.just(IDENTITY), st.builds(Perturbation, st.just("label_noise"), st.just(0.2), st.just(0.5), st.integers(0, 9))
)
ROWS = st.lists(st.tuples(TRAINED, SCORED), min_size=1, max_size=40)


def setup_of(activation, examples, hidden, dtype):
    random = torch.Generator().manual_seed(examples)
    data = torch.randn(examples, 3, generator=random), torch.arange(examples) % 3
    sgd = partial(torch.optim.SGD, lr=0.3)
    model = lambda: nn.Sequential(nn.Linear(3, hidden), activation(), nn.Linear(hidden, 3), nn.Softplus())  # noqa: E731
    return ac.TrainingSetup(model, data, nn.functional.cross_entropy, sgd, 5, dtype=dtype)


def scored(setup, rows):
    trained, base = zip(*rows, strict=True)
    return ac.run(setup, trained, base=base, seeds=SEEDS, backend="lanes")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(ACTIVATIONS), st.sampled_from([5, 7, 9]), st.sampled_from([3, 5, 7]), ROWS, st.data(), st.randoms()
)
def test_the_bits_of_a_score_do_not_depend_on_the_scores_beside_it(
    dtype, activation, examples, hidden, rows, data, random
):
    setup = setup_of(activation, examples, hidden, dtype)
    everything = scored(setup, rows)
    some = data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1))
    chosen = random.sample(sorted(some), len(some))
    again = scored(setup, [rows[index] for index in chosen])
    of = [len(SEEDS) * index + which for index in chosen for which in range(len(SEEDS))]
    np.testing.assert_array_equal(again.base, everything.base[of])
    np.testing.assert_array_equal(again.mesa, everything.mesa[of])


@given(st.lists(st.integers(0, 6)))
def test_each_has_the_slot_that_it_wants(wanted):
    batches = at_slots(wanted, 7)
    stands = {index: slot for batch in batches for slot, index in enumerate(batch) if index is not None}
    assert stands == dict(enumerate(wanted))
    assert len(batches) == max((wanted.count(slot) for slot in wanted), default=0)
