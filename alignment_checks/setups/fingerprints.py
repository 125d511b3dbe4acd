"""What a run, a tensor, a function or a setup is known by: digests of content, the same in every process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from alignment_checks.objectives import known_by
from alignment_checks.setups.realization import Realization, realize
from alignment_checks.training import TrainingSetup


def fingerprint(realization: Realization, plain: Realization) -> Hashable:
    """Return what distinguishes `realization` from `plain`, () where nothing does: tensors go by their content.

    Perturbations of the same fingerprint are the same run (a rate of 10⁻⁹ flips no label), whatever they are called.
    What is not plain data goes by its own equality, never by its repr: two objects may read alike, as tensors do whose
    first digits agree.
    """
    return tuple(_differences(realization, plain))


def _differences(a: Realization, b: Realization) -> Iterator[Hashable]:
    before = dict(_tensors(b))
    for name, value in _tensors(a):
        if name not in before or (value is not before[name] and not _equal(value, before[name])):
            yield name, content(value)
    if a.objective != b.objective:
        yield "objective", a.objective.structure, a.objective.coefficients
    for name in ("seed", "optimizer", "scheduler", "infimum", "batch_size", "noise", "held", "dtype"):
        if getattr(a, name) != getattr(b, name):
            yield name, _known(getattr(a, name))


def _known(value: object) -> Hashable:
    """Return what a value is told apart by; a dataclass without a hash, as plain ones are, by its fields."""
    try:
        hash(value)
    except TypeError:
        if is_dataclass(value):
            return type(value), *(_known(getattr(value, one.name)) for one in fields(value))
        return known_by(value)
    return value


def _tensors(run: Realization) -> Iterator[tuple[str, Tensor]]:
    yield from ((f"parameter {name}", value) for name, value in run.parameters.items())
    yield from ((f"constant {name}", value) for name, value in run.constants.items())
    yield from ((f"data {index}", part) for index, part in enumerate(run.data or ()))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def content(value: Tensor) -> bytes:
    """Return a tensor's dtype, shape and bytes, hashed; of a sparse one, those of what is in it and where."""
    if value.layout is torch.sparse_coo:
        parts = value.detach().coalesce()
        return content(parts.indices()) + content(parts.values())
    plain = value.detach().to("cpu").contiguous()
    head = f"{plain.dtype} {tuple(plain.shape)}".encode()
    return hashlib.blake2b(head + plain.reshape(-1).view(torch.uint8).numpy().tobytes(), digest_size=16).digest()


def named(function: object) -> str:
    """Return `module:qualname` of a callable, and what a `functools.partial` fixes, without addresses in memory."""
    inner = getattr(function, "func", None)
    if inner is not None:
        fixed = [*map(repr, getattr(function, "args", ()))]
        fixed += [f"{key}={value!r}" for key, value in getattr(function, "keywords", {}).items()]
        return re.sub(r" at 0x[0-9a-fA-F]+", "", f"{named(inner)}({', '.join(fixed)})")
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(kind, '__module__', '?')}:{getattr(kind, '__qualname__', '?')}"


def setup_digest(setup: TrainingSetup) -> str:
    """Return a short digest of what a setup is, the same in every process: to notice that it has changed."""
    first = realize(setup, setup.seed)
    digest = hashlib.blake2b(digest_size=8)
    for name, value in {**first.parameters, **first.constants}.items():
        digest.update(name.encode() + content(value))
    for part in first.data or ():
        digest.update(content(part))
    parts = (setup.objective, setup.optimizer, setup.scheduler, setup.mesa.name)
    digest.update(repr([part if isinstance(part, str) else named(part) for part in parts]).encode())
    digest.update(
        repr((setup.steps, setup.batch_size, setup.objective_infimum, setup.seed, str(first.module))).encode()
    )
    if setup.record_every > 1:
        digest.update(f"record_every {setup.record_every}".encode())
    return digest.hexdigest()
