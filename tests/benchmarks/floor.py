"""The least that a step can take: its matrix products alone, as bare GEMMs, and the bytes that it has to move."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import alignment_checks as ac


@dataclass(frozen=True)
class Floor:
    """Seconds for one run of a batch."""

    products: float
    traffic: float


@dataclass(frozen=True)
class Product:
    """Outputs (rows, columns) of a layer from inputs (rows, inner); `deep` where its input has a gradient too."""

    rows: int
    inner: int
    columns: int
    deep: bool


def floor(setup: ac.TrainingSetup, width: int, device: torch.device) -> Floor:
    """Return the floor of one run of `width` under `setup`, all its gradients taken."""
    products, moved = _seen(setup)
    lanes = min(width, 64 if device.type == "cpu" else width)
    evaluations = setup.steps + 1
    spent = sum(_seconds(partial(torch.bmm, *pair)) for one in products for pair in _operands(one, lanes, device))
    return Floor(evaluations * spent / lanes, evaluations * moved / _bandwidth(device))


def _seen(setup: ac.TrainingSetup) -> tuple[list[Product], int]:
    """Return the matrix products of one forward pass, and the bytes of what is written in it and read again."""
    model, products = setup.model(), []
    moved = 3 * sum(p.nbytes for p in model.parameters())  # weights read, gradients written, weights written

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += 4 * output.nbytes  # written and read, and its gradient written and read
        inner = {nn.Linear: lambda m: m.in_features, nn.Conv2d: lambda m: m.weight[0].numel()}.get(type(module))
        if inner is not None:
            columns = output.shape[1]
            products.append(Product(output.numel() // columns, inner(module), columns, inputs[0].requires_grad))

    for module in model.modules():
        if not list(module.children()) and not isinstance(module, nn.Flatten):
            module.register_forward_hook(hook)
    model(*(setup.data or ())[:-1])
    return products, moved


def _operands(one: Product, lanes: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return the operands of the product itself, of its weight's gradient, and of its input's where there is one."""

    def random(*shape: int) -> Tensor:
        return torch.randn(lanes, *shape, device=device)

    x, w, y = random(one.rows, one.inner), random(one.inner, one.columns), random(one.rows, one.columns)
    pairs = [(x, w), (x.mT, y)]
    return [*pairs, (y, w.mT)] if one.deep else pairs


def _bandwidth(device: torch.device) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    size = 2**26 if device.type == "cpu" else 2**30  # beyond any cache
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(partial(target.copy_, source))


def _seconds(work: Callable[[], object], repeats: int = 10) -> float:
    work()
    found = []
    for _ in range(repeats):
        wait()
        began = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - began)
    return min(found)


def wait() -> None:
    """Wait until an accelerator has done all that it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
