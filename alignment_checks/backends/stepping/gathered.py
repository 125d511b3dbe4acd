"""Gathered: an optimizer over stacked parameters that its factory has made of one lane's.

A factory may look at what stacking changes: no weight decay on vectors, a learning rate by the number of elements. It
is called for each lane by itself then, as in the loop, and what it makes must be alike for all of them, but for tensors
of the shape of a parameter. Those are stacked, and the first lane's optimizer is put over all lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from alignment_checks.backends.stepping.hyperparameters import Hyperparameters
from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.backends.stepping.single import Single
from alignment_checks.backends.stepping.state import exchange, paired
from alignment_checks.setups.realization import Realization


def gathered(runs: Sequence[Realization], weights: Mapping[str, Tensor], own: Hyperparameters | None) -> Single:
    """Return the first lane's optimizer, over the stacked tensors of all lanes.

    Parameters
    ----------
    runs : sequence of Realization
        Alike in `options_of`.
    weights : mapping of str to Tensor, each of shape (lanes, ...)
        The memory that its parameters have.
    own : Hyperparameters, optional
        The lanes' own, where they have some.

    Raises
    ------
    StepRefused
        If the lanes' optimizers differ by more than hyperparameters, or tensors of the shape of a parameter.
    """
    starts = [{name: value[lane] for name, value in weights.items()} for lane in range(len(runs))]
    first, *others = singles = [Single(run, start, scheduled=False) for run, start in zip(runs, starts, strict=True)]
    if own is not None:
        for single in singles:
            own.put_lane(single.optimizer, 0, own.own)
    if any(not grouped_alike(first.optimizer, first.parameters, o.optimizer, o.parameters) for o in others):
        raise StepRefused("the optimizer's factory groups the parameters by their numbers")
    stacked = dict(_stacked(first, others))
    for name, parameter in first.parameters.items():
        parameter.data = weights[name]
    exchange(first.optimizer, lambda tensor: stacked.get(id(tensor), tensor))
    return first


def _stacked(first: Single, others: Sequence[Single]) -> Iterator[tuple[int, Tensor]]:
    """Yield what is to take the place of each tensor of the first lane's state, by its id, before that is changed."""
    shapes = {value.shape for value in first.parameters.values()}
    each = [[*paired(first.optimizer, other.optimizer, _places(first, other))] for other in others]
    for pairs in zip(*each, strict=True):
        lanes = [pairs[0][0], *(theirs for _, theirs in pairs)]
        if lanes[0].shape in shapes and all(one.shape == lanes[0].shape for one in lanes):
            yield id(lanes[0]), torch.stack(lanes)
        elif any(not torch.equal(one, lanes[0]) for one in lanes):
            raise StepRefused("the optimizers of the lanes begin with other numbers")


def _places(first: Single, other: Single) -> dict[int, int]:
    return {id(mine): id(other.parameters[name]) for name, mine in first.parameters.items()}


def grouped_alike(a: Optimizer, mine: Mapping[str, Tensor], b: Optimizer, theirs: Mapping[str, Tensor]) -> bool:
    """Return whether two optimizers have the parameters of the same names, in groups of the same options."""
    return _groups(a, mine) == _groups(b, theirs)


def _groups(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> list[tuple[list[int], str]]:
    position = {id(parameter): index for index, parameter in enumerate(parameters.values())}
    return [
        ([position[id(p)] for p in group["params"]], repr({k: v for k, v in group.items() if k != "params"}))
        for group in optimizer.param_groups
    ]
