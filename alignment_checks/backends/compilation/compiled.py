"""A traced graph as compiled code, by TorchInductor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, fx

from alignment_checks.backends.compilation.convolutions import channels_last
from alignment_checks.backends.compilation.lookups import products_looked_up
from alignment_checks.backends.compilation.rewriting import (
    embeddings_apart,
    exponentials_once,
    rational_tanh,
    transposed_products,
)
from alignment_checks.setups.fingerprints import content

OPTIONS = {"compile_threads": 1, "layout_optimization": False}  # layouts are for `channels_last` to choose
Flat = Callable[[list[Tensor]], list[Tensor]]
"""What a graph computes, called with all of its inputs as one list."""


class Traced:
    """A graph and tensors to call it with, equal to another that is the same code for the same layouts."""

    def __init__(self, graph: fx.GraphModule, values: Sequence[Tensor]) -> None:
        self.graph, self.values = graph, values
        constants = [getattr(graph, str(node.target)) for node in graph.graph.nodes if node.op == "get_attr"]
        self.key = (str(graph.code), tuple(map(content, constants)), layouts(values), torch.get_num_threads())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Traced) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=64)
def compiled(traced: Traced) -> Flat:
    """Return a graph as code.

    Compiled once in a process; TorchInductor keeps the code on disk for the next one.
    """
    from torch import _inductor  # here, since it takes a second that most runs do not need

    of_embeddings = (products_looked_up, embeddings_apart)  # the second is for gradients that the first leaves
    for rewriting in (*of_embeddings, channels_last, exponentials_once, transposed_products, rational_tanh):
        rewriting(traced.graph)
    with _unlogged():
        run = _inductor.standalone_compile(
            traced.graph,
            list(traced.values),
            dynamic_shapes="from_example_inputs",  # as they are; with any other, nothing is kept on disk but kernels
            options={"config_patches": dict(OPTIONS)},
        )
    traced.values = ()  # this memo is to hold the code alone
    return lambda values: list(run(*values))


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep torch's trace of its compiler, which is at DEBUG whatever is set, from all but torch's own handlers.

    pytest shows what any logger logged while a test failed: hundreds of empty lines, of what the user never asked for.
    """
    logger = logging.getLogger("torch.__trace")
    others = [handler for handler in logger.handlers if not type(handler).__module__.startswith("torch.")]
    for handler in others:
        logger.removeHandler(handler)
    try:
        yield
    finally:
        for handler in others:
            logger.addHandler(handler)


def layouts(values: Sequence[Tensor]) -> tuple[object, ...]:
    """Return what code made for some tensors expects of others."""
    return tuple((v.shape, v.stride(), v.dtype, v.device) for v in values)
