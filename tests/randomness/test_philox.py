"""The counter-based generator: its published test vectors, that it is a pure function, and that it looks random."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.func import grad, vmap

from alignment_checks.randomness.philox import Place, drawn, fractions, normals, philox, uniforms, words

few = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**63 - 1)
PLACES = st.builds(Place, st.integers(0, 2), st.integers(0, 10**6), st.integers(0, 50))
KINDS = [words, fractions, uniforms, normals]
MANY = 200_000


@pytest.mark.parametrize(
    ("counter", "key", "rounds", "expected"),
    [
        ([0] * 4, [0] * 2, 7, "5f6fb709 0d893f64 4f121f81 4f730a48"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, 7, "5207ddc2 45165e59 4d8ee751 8c52f662"),
        ([0] * 4, [0] * 2, 10, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, 10, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            10,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_published_test_vectors(counter, key, rounds, expected):
    """Those of Random123, the authors' own library (`kat_vectors`)."""
    found = philox(torch.tensor(counter), torch.tensor(key), rounds)
    assert " ".join(f"{word:08x}" for word in found.tolist()) == expected


@few
@given(SEEDS, PLACES, st.integers(1, 40), st.integers(0, 40))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_drawn_depends_on_seed_place_and_index_alone(kind, seed, place, count, more):
    one = kind(torch.tensor(seed), place, count)
    assert torch.equal(one, kind(torch.tensor(seed), place, count + more)[:count])
    before = torch.get_rng_state()
    assert torch.equal(one, kind(torch.tensor([5, seed, 7]), place, count)[1])
    assert torch.equal(torch.get_rng_state(), before)


@few
@given(st.lists(SEEDS, min_size=1, max_size=3), PLACES, st.integers(1, 40))
def test_a_step_that_a_graph_counts_draws_what_a_known_one_draws(seeds, place, count):
    counted = place._replace(step=torch.tensor(place.step))
    for seed in (torch.tensor(seeds), torch.tensor(seeds[0])):
        assert torch.equal(words(seed, place, count), words(seed, counted, count))


@few
@given(st.lists(SEEDS, min_size=1, max_size=5), PLACES, st.integers(1, 9))
def test_under_vmap_each_lane_draws_what_it_would_draw_alone(seeds, place, count):
    def alone(seed, weights):
        return (weights * drawn(normals, seed, place, count)).sum()

    batched = torch.tensor(seeds)
    ones = torch.ones(len(seeds), count, dtype=torch.float64)
    found = vmap(grad(alone, argnums=1))(batched, ones)
    assert torch.equal(found, torch.stack([drawn(normals, seed, place, count) for seed in batched]))


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("kind", [words, fractions, uniforms], ids=lambda kind: kind.__name__)
def test_an_accelerator_draws_the_same_bits(kind):
    seeds = torch.tensor([5, 2**62 + 1])
    found = kind(seeds.to(torch.accelerator.current_accelerator()), Place(1, 7, 3), 1001)
    assert torch.equal(found.cpu(), kind(seeds, Place(1, 7, 3), 1001))


# -------------------------------------------------------------------------------------- statistics


def test_uniform_numbers_are_uniform_and_below_one():
    for kind, bits in ((fractions, 32), (uniforms, 53)):
        found = kind(torch.tensor(11), Place(0, 0, 0), MANY)
        assert found.dtype == torch.float64
        assert 0 <= float(found.min()) < float(found.max()) < 1
        assert torch.equal(found * 2.0**bits, (found * 2.0**bits).floor())
        assert stats.kstest(found.numpy(), "uniform").pvalue > 0.001


def test_normal_numbers_are_normal():
    found = normals(torch.tensor(12), Place(0, 0, 0), MANY).numpy()
    assert np.isfinite(found).all()
    assert stats.kstest(found, "norm").pvalue > 0.001
    assert np.mean(np.abs(found) > 3.5) == pytest.approx(2 * stats.norm.sf(3.5), rel=0.4)


def test_every_bit_is_set_half_of_the_time_and_every_byte_as_often():
    found = words(torch.tensor(13), Place(0, 7, 2), MANY).numpy().astype(np.uint32)
    bits = np.unpackbits(found.view(np.uint8).reshape(-1, 4), axis=1).mean(0)
    np.testing.assert_allclose(bits, 0.5, atol=5 * 0.5 / math.sqrt(MANY))
    counts = np.bincount(found.view(np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("part", ["seed", "high half of the seed", "stream", "step", "call", "index"])
def test_neighbours_in_any_part_are_independent(part):
    """Neither correlated nor equal, wherever they are neighbours."""
    other = {
        "seed": (1, Place(0, 0, 0), 0),
        "high half of the seed": (2**32, Place(0, 0, 0), 0),
        "stream": (0, Place(1, 0, 0), 0),
        "step": (0, Place(0, 1, 0), 0),
        "call": (0, Place(0, 0, 1), 0),
        "index": (0, Place(0, 0, 0), 1),
    }
    seed, place, shift = other[part]
    a = fractions(torch.tensor(0), Place(0, 0, 0), MANY)
    b = fractions(torch.tensor(seed), place, MANY + shift)[shift:]
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / math.sqrt(MANY)
    table, *_ = np.histogram2d(a.numpy(), b.numpy(), bins=8, range=[[0, 1], [0, 1]])
    assert stats.chisquare(table.ravel()).pvalue > 0.001
