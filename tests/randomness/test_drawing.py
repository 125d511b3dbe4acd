"""What a model draws at random, drawn from seed, step and call: the operations mean what torch's own mean."""

import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.func import vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from alignment_checks.randomness.drawing import EVALUATION, STEP, Drawing, Randomness, drawing, observed

MANY = 100_000


def drawn(operation, seed=0, step=0, stream=STEP):
    with Drawing(torch.tensor(seed), stream, step):
        return operation()


@pytest.fixture(autouse=True)
def _global_state_is_left_as_it_was():
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), repr(np.random.get_state()))


RECURRENT = nn.LSTM(4, 2, num_layers=2, dropout=0.5).double()
X = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(2, 3, 4)
RANDOM = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout in place": lambda x: F.dropout(x.clone(), 0.3, inplace=True),
    "dropout1d": lambda x: F.dropout1d(x, 0.3),
    "dropout2d": lambda x: F.dropout2d(x[..., None], 0.3),
    "dropout3d": lambda x: F.dropout3d(x[..., None, None], 0.3),
    "alpha dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "feature alpha dropout": lambda x: F.feature_alpha_dropout(x, 0.3, training=True),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3),
    "gumbel softmax": lambda x: F.gumbel_softmax(x),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
    "bernoulli of a chance": lambda x: torch.bernoulli(x, 0.4),
    "bernoulli, a method": lambda x: x.sigmoid().bernoulli(),
    "bernoulli_": lambda x: x.clone().bernoulli_(0.4),
    "uniform_": lambda x: x.clone().uniform_(-1, 2),
    "normal_": lambda x: x.clone().normal_(std=3),
    "exponential_": lambda x: x.clone().exponential_(2),
    "rand": lambda x: torch.rand(2, 3, dtype=x.dtype),
    "randn": lambda x: torch.randn((2, 3), dtype=x.dtype),
    "rand_like": lambda x: torch.rand_like(x),
    "randn_like": lambda x: torch.randn_like(x, dtype=torch.float32),
    "randint": lambda x: torch.randint(9, (20,)),
    "randint from": lambda x: torch.randint(low=-5, high=4, size=(20,)),
    "randperm": lambda x: torch.randperm(20),
}


@pytest.mark.parametrize("operation", RANDOM.values(), ids=RANDOM)
def test_what_is_drawn_is_a_function_of_seed_stream_and_step(operation):
    one = drawn(lambda: operation(X), 3, 5)
    assert torch.equal(one, drawn(lambda: operation(X), 3, 5))
    for other in ((4, 5, STEP), (3, 6, STEP), (3, 5, EVALUATION)):
        assert not torch.equal(one, drawn(lambda: operation(X), *other))


@pytest.mark.parametrize("operation", RANDOM.values(), ids=RANDOM)
def test_each_call_draws_anew(operation):
    first, second = drawn(lambda: (operation(X), operation(X)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("operation", RANDOM.values(), ids=RANDOM)
def test_it_has_the_shape_and_dtype_that_torch_gives(operation):
    with torch.random.fork_rng():
        expected = operation(X)
    found = drawn(lambda: operation(X))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("name", [n for n in RANDOM if n not in ("randint", "randint from", "randperm")])
def test_under_vmap_each_lane_draws_its_own(name):
    def alone(seed, x):
        with Drawing(seed, STEP, 2):
            return RANDOM[name](x)

    seeds = torch.tensor([3, 2**40, 0])
    xs = torch.stack([X, X + 1, X])
    found = vmap(alone, randomness="error")(seeds, xs)
    for lane, seed in enumerate(seeds):
        torch.testing.assert_close(found[lane], alone(seed, xs[lane]), rtol=1e-12, atol=1e-12)


# -------------------------------------------------------------------------------------- what the numbers mean


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_what_it_keeps_and_scales_it(p):
    x = torch.ones(MANY, dtype=torch.float64)
    found = drawn(lambda: F.dropout(x, p))
    assert set(found.unique().tolist()) == {0.0, 1 / (1 - p)}
    assert float((found == 0).double().mean()) == pytest.approx(p, abs=4 * 0.5 / math.sqrt(MANY))


def test_dropout_drops_the_same_in_every_dtype():
    kept = [drawn(lambda d=d: F.dropout(torch.ones(999, dtype=d), 0.3)) != 0 for d in (torch.float64, torch.bfloat16)]
    assert torch.equal(*kept)


@pytest.mark.parametrize("shape", [(50, 40, 6), (50, 40, 3, 2), (50, 40, 2, 2, 2)])
def test_feature_dropout_drops_whole_channels(shape):
    layer = {3: F.dropout1d, 4: F.dropout2d, 5: F.dropout3d}[len(shape)]
    found = drawn(lambda: layer(torch.ones(shape), 0.4)).flatten(2)
    assert (found == found[..., :1]).all()
    assert float((found[..., 0] == 0).double().mean()) == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("layer", [nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_alpha_dropout_keeps_mean_and_variance(layer):
    x = torch.randn(300, 400, generator=torch.Generator().manual_seed(0))
    found = drawn(lambda: layer(0.3)(x))
    assert float(found.mean()) == pytest.approx(0, abs=0.02)
    assert float(found.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("name", ["dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d"])
def test_where_nothing_is_random_it_is_torchs_own(name, p):
    layer = getattr(F, name)
    with torch.random.fork_rng():
        expected = layer(X, p, True)
    torch.testing.assert_close(drawn(lambda: layer(X, p, True)), expected)
    assert torch.equal(drawn(lambda: layer(X, 0.3, False)), X)


def test_gradients_flow_through_what_was_kept():
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    found = drawn(lambda: F.dropout(x, 0.25))
    found.sum().backward()
    assert torch.equal(x.grad, found.detach())


def test_the_randomized_leak_is_uniform_and_its_mean_in_eval_mode():
    x = torch.full((MANY,), -1.0, dtype=torch.float64)
    slopes = -drawn(lambda: F.rrelu(x, 0.1, 0.3, training=True))
    assert stats.kstest(slopes.numpy(), stats.uniform(0.1, 0.2).cdf).pvalue > 0.001
    torch.testing.assert_close(drawn(lambda: F.rrelu(X, 0.1, 0.3)), F.rrelu(X, 0.1, 0.3))


@pytest.mark.parametrize("kind", ["plain", "causal", "mask", "added", "grouped", "scale"])
def test_attention_without_what_dropout_drops_is_attention(kind):
    """With a dropout that drops next to nothing, written out, it is what torch's own kernel gives without."""
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 3, generator=random, dtype=torch.float64) for _ in "qkv")
    more = {
        "plain": {},
        "causal": {"is_causal": True},
        "mask": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()},
        "added": {"attn_mask": torch.randn(5, 5, generator=random, dtype=torch.float64)},
        "grouped": {"enable_gqa": True},
        "scale": {"scale": 0.3},
    }[kind]
    if kind == "grouped":
        k, v = k[:, :2], v[:, :2]
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(q, k, v, **more)
    found = drawn(lambda: F.scaled_dot_product_attention(q, k, v, dropout_p=1e-12, **more))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_attention_drops_weights_and_not_outputs():
    q = torch.zeros(1, 400, 2)
    found = drawn(lambda: F.scaled_dot_product_attention(q, q, torch.ones(1, 400, 1), dropout_p=0.5))
    assert float(found.mean()) == pytest.approx(1, abs=0.02)  # each output is a mean of 400 values, half of them gone
    assert float(found.std()) == pytest.approx(1 / math.sqrt(400), rel=0.2)


@pytest.mark.parametrize(
    ("operation", "law"),
    [
        (lambda: torch.rand(MANY), "uniform"),
        (lambda: torch.randn(MANY), "norm"),
        (lambda: torch.empty(MANY).exponential_(2.0), stats.expon(scale=0.5).cdf),
        (lambda: torch.empty(MANY).normal_(1.0, 3.0), stats.norm(1, 3).cdf),
        (lambda: torch.empty(MANY).uniform_(-1, 3), stats.uniform(-1, 4).cdf),
    ],
    ids=["rand", "randn", "exponential_", "normal_", "uniform_"],
)
def test_numbers_have_the_law_that_they_are_named_after(operation, law):
    assert stats.kstest(drawn(operation).double().numpy(), law).pvalue > 0.001


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_uniform_numbers_are_below_one_in_every_dtype(dtype):
    found = drawn(lambda: torch.rand(MANY, dtype=dtype))
    assert 0 <= float(found.min()) < float(found.max()) < 1


def test_integers_and_permutations_take_every_value():
    assert set(drawn(lambda: torch.randint(-2, 3, (1000,))).tolist()) == {-2, -1, 0, 1, 2}
    assert sorted(drawn(lambda: torch.randperm(50)).tolist()) == list(range(50))


def test_a_generator_of_the_users_own_is_left_to_it():
    own = torch.Generator().manual_seed(3)
    expected = torch.rand(4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn(lambda: torch.rand(4, generator=own)), expected)


def test_without_a_seed_nothing_is_replaced():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        with drawing(None, STEP):
            assert torch.equal(torch.rand(3), expected)


# -------------------------------------------------------------------------------------- what is noticed


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda: F.relu(X), Randomness.NONE),
        (lambda: F.dropout(X), Randomness.SEEN),
        (lambda: F.dropout(X) * random.random(), Randomness.HIDDEN),
        (lambda: X * np.random.normal(), Randomness.HIDDEN),
        (lambda: torch.multinomial(torch.ones(3), 1), Randomness.HIDDEN),
        (lambda: RECURRENT(X)[0], Randomness.SEEN),
        (lambda: RECURRENT(nn.utils.rnn.pack_sequence(list(X)))[0].data, Randomness.HIDDEN),
        (lambda: checkpoint(F.dropout, X.clone().requires_grad_(), use_reentrant=False), Randomness.HIDDEN),
    ],
    ids=["none", "seen", "python", "numpy", "not replaced", "recurrent", "packed", "checkpoint"],
)
def test_what_draws_out_of_sight_is_noticed(forward, expected):
    with torch.random.fork_rng():
        states = random.getstate(), np.random.get_state()
        found = observed(forward, torch.tensor(0))
        random.setstate(states[0])
        np.random.set_state(states[1])
    assert found is expected


@pytest.mark.parametrize("both", [False, True], ids=["forward", "both ways"])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN, partial(nn.LSTM, proj_size=1), partial(nn.GRU, bias=False)])
def test_recurrent_layers_of_which_almost_nothing_is_dropped_are_those_of_torch(layer, both):
    """And where all of it is, the last layer sees nothing of the input."""
    some = partial(layer, 4, 2, 3, bidirectional=both, dtype=torch.float64)
    with torch.random.fork_rng():
        dropping, plain = some(dropout=1e-12), some()
    plain.load_state_dict(dropping.state_dict())
    with Drawing(torch.tensor(0), STEP, 0):
        found = dropping(X)
    for one, other in zip(tree_leaves(found), tree_leaves(plain(X)), strict=True):
        torch.testing.assert_close(one, other)
    dropping.dropout = 1.0
    with Drawing(torch.tensor(0), STEP, 0):
        assert torch.equal(dropping(X)[0], dropping(X + 1)[0])
