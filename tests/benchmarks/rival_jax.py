"""The same training in JAX: `jax.jit(vmap(lax.scan))`, L and G recorded at every t."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

import alignment_checks as ac

Parameters = dict[str, Any]


def rival(problem: str, optimizer: str, setup: ac.TrainingSetup, width: int) -> Callable[[], None]:
    """Return a compiled training of `width` runs, from the same inits as `ac.run` has, that can be timed."""
    forward = convolutions if problem == "conv" else tokens
    x, y = (jnp.asarray(part.numpy()) for part in setup.data or ())
    starts = _starts(setup, width)
    step = {"SGD": sgd, "Adam": adam}[optimizer]

    def loss(parameters: Parameters) -> Any:
        logits = jax.nn.log_softmax(forward(parameters, x))
        return -jnp.take_along_axis(logits, y[:, None], 1).mean()

    def train(parameters: Parameters) -> Any:
        def body(carry: Any, t: Any) -> Any:
            value, gradient = jax.value_and_grad(loss)(carry[0])
            size = sum(jnp.abs(g).sum() for g in jax.tree.leaves(gradient))
            return step(carry, gradient, t), (value, size)

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        return lax.scan(body, (parameters, zeros, zeros), jnp.arange(1.0, setup.steps + 2))[1]

    compiled = jax.jit(jax.vmap(train)).lower(starts).compile()

    def work() -> None:
        jax.block_until_ready(compiled(starts))

    return work


def _starts(setup: ac.TrainingSetup, width: int) -> Parameters:
    modules = []
    for seed in range(width):
        torch.manual_seed(seed)
        modules.append(dict(setup.model().named_parameters()))
    return {n: jnp.asarray(np.stack([m[n].detach().numpy() for m in modules])) for n in modules[0]}


def tokens(p: Parameters, x: Any) -> Any:
    """Return the logits of the token model."""
    hidden = jnp.tanh(p["0.weight"][x].reshape(len(x), -1) @ p["2.weight"].T + p["2.bias"])
    return hidden @ p["4.weight"].T + p["4.bias"]


def convolutions(p: Parameters, x: Any) -> Any:
    """Return the logits of the image model."""
    for name, stride in (("0", 1), ("2", 2)):
        x = lax.conv_general_dilated(x, p[f"{name}.weight"], (stride, stride), ((1, 1), (1, 1)))
        x = jax.nn.relu(x + p[f"{name}.bias"][:, None, None])
    return x.reshape(len(x), -1) @ p["5.weight"].T + p["5.bias"]


def sgd(carry: Any, gradient: Parameters, t: Any) -> Any:
    """Step as `torch.optim.SGD(lr=0.1)` does."""
    return jax.tree.map(lambda p, g: p - 0.1 * g, carry[0], gradient), *carry[1:]


def adam(carry: Any, gradient: Parameters, t: Any) -> Any:
    """Step as `torch.optim.Adam(lr=1e-3)` does."""
    parameters, first, second = carry
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)

    def moved(p: Any, m: Any, v: Any) -> Any:
        return p - 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

    return jax.tree.map(moved, parameters, first, second), first, second
