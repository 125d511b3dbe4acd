"""A training run with its weights at every recorded t: other objectives are evaluated along it, without retraining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from alignment_checks.backends import loop
from alignment_checks.backends.instances import on_device
from alignment_checks.backends.job import Job, Record
from alignment_checks.backends.remembering import leaves_tensors
from alignment_checks.inspection.copies import copied
from alignment_checks.inspection.placement import beside, placed
from alignment_checks.objectives import Objective, Tensors
from alignment_checks.randomness import seeding
from alignment_checks.randomness.drawing import EVALUATION, Randomness, drawing
from alignment_checks.setups.as_found import as_found
from alignment_checks.setups.realization import Realization
from alignment_checks.trajectory import Series

LARGEST = 2**28
"""A path of more bytes than this is not kept."""
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class Path:
    """One run, and θ(t) with the buffers at every recorded t that it reached: each tensor has a leading axis of t."""

    job: Job
    record: Record
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]


def size(job: Job) -> int:
    """Return the bytes that the path of a job takes."""
    run = job.train
    return len(job.columns) * sum(value.nbytes for value in (*run.parameters.values(), *run.constants.values()))


def follow(job: Job, device: torch.device) -> Path:
    """Train one run in the loop and keep its weights at every recorded t."""
    visited: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def visit(parameters: Tensors, buffers: Tensors) -> None:
        visited.append((dict(parameters), dict(buffers)))

    record = loop.train(job, device, "its weights are kept at every step", visit)
    parameters = {name: torch.stack([p[name] for p, _ in visited]) for name in visited[0][0]}
    buffers = {name: torch.stack([b[name] for _, b in visited]) for name in visited[0][1]}
    return Path(job, record, parameters, buffers)


def along(path: Path, scores: Sequence[Realization], device: torch.device) -> Series:
    """Return L under each score at every θ(t) of the path, shape (scores, records); NaN beyond its end.

    Scores that share data and the structure of their objective share the forward passes too.
    """
    series = np.full((len(scores), len(path.job.columns)), np.nan)
    for members in _groups(scores):
        values = _evaluated(path, [scores[index] for index in members], device)
        series[members, : values.shape[1]] = values
    return series


def _groups(scores: Sequence[Realization]) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for index, score in enumerate(scores):
        groups.setdefault((tuple(map(id, score.data or ())), score.objective.structure), []).append(index)
    return list(groups.values())


def _evaluated(path: Path, scores: list[Realization], device: torch.device) -> Series:
    objective = scores[0].objective.on(device)
    losses = _losses(path, scores, objective, device)
    with torch.no_grad(), seeding.isolated(seeding.derive("along")), as_found(*(one.objective for one in scores)):
        # tensors that an objective keeps of batched calls, no other code could use
        keeps = leaves_tensors(lambda: losses(*_at(path, 0)), objective)
        found = None if keeps else _over_time(losses, path)
        if found is None:
            found = torch.stack([losses(*_at(path, t)) for t in _steps(path)])
        return np.ascontiguousarray(found.cpu().double().numpy().T)


def _losses(
    path: Path, scores: list[Realization], objective: Objective, device: torch.device
) -> Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]:
    """Return what gives L under each score, shape (scores,), at parameters and buffers of the path."""
    score, dtype = on_device(scores[0], device), next(iter(path.parameters.values())).dtype
    coefficients = torch.tensor([s.objective.coefficients for s in scores], dtype=dtype, device=device)
    module = placed(copied(score.module), device).train(not path.job.random)
    buffers = {name for name, _ in module.named_buffers()}
    frozen = {name: value.to(device) for name, value in path.job.train.constants.items() if name not in buffers}
    seed = path.job.seed(device)
    hidden = path.job.randomness is Randomness.HIDDEN  # then every evaluation draws the same from torch's generator
    aside = partial(seeding.isolated, seeding.derive("evaluation", path.job.train.seed)) if hidden else nullcontext

    def losses(parameters: dict[str, Tensor], state: dict[str, Tensor]) -> Tensor:
        weights = {**parameters, **{name: value.clone() for name, value in state.items()}, **frozen}
        with aside(), drawing(seed, EVALUATION), beside(parameters):
            outputs = functional_call(module, weights, score.inputs)
            if not coefficients.numel():
                return objective.loss()(outputs, score.targets, parameters).expand(len(scores))
            at = [objective.loss(tuple(row))(outputs, score.targets, parameters) for row in coefficients]
        return torch.stack(at)

    return losses


def _over_time(losses: Callable[..., Tensor], path: Path) -> Tensor | None:
    """Return the losses at every t, batched over t; None where the model cannot be."""
    try:
        chunks = [slice(start, start + _CHUNK) for start in _steps(path)[::_CHUNK]]
        return torch.cat([vmap(losses)(*_at(path, chunk)) for chunk in chunks])
    except Exception:  # the same function, unbatched: what is wrong with it, if anything, shows again there
        return None


def _steps(path: Path) -> range:
    return range(len(next(iter(path.parameters.values()))))


def _at(path: Path, where: slice | int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return copies of what the run had come to: a model may write into its own parameters."""
    parameters, buffers = ({n: v[where].clone() for n, v in of.items()} for of in (path.parameters, path.buffers))
    return parameters, buffers
