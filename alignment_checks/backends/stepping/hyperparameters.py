"""The numbers among the options of an optimizer, where each lane has its own: learning rate, momentum, decay."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from alignment_checks.backends.stepping.numbers import LaneNumbers, of_lanes
from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.backends.stepping.single import Single
from alignment_checks.backends.stepping.state import paired
from alignment_checks.backends.stepping.unread import UnreadState, unread
from alignment_checks.objectives import known_by
from alignment_checks.setups.realization import Realization
from alignment_checks.training import OptimizerFactory

Name = tuple[int, str, int | None]
"""The index of a parameter group, the last being that of the defaults; an option; its index in a tuple."""


def options_of(run: Realization) -> Hashable:
    """Return what of a run's optimizer must be equal for lanes to be stepped together.

    Which numbers the run's own factories have changed is part of it, so that how a run is stepped does not depend on
    what is done to other runs of its setup.
    """
    mine = made(run.optimizer, run)
    changed = _changed(mine, made(run.setup.optimizer, run)) if _has_own(run) else ()
    return type(mine), tuple(_described(mine)), _has_own(run), frozenset(changed)


def _has_own(run: Realization) -> bool:
    """Return whether a run has factories of its own, not its setup's."""
    return run.optimizer is not run.setup.optimizer or run.scheduler is not run.setup.scheduler


def factories(run: Realization) -> tuple[Hashable, Hashable]:
    """Return what tells a run's optimizer and scheduler factories apart: runs of equal ones are stepped alike."""
    return known_by(run.optimizer), known_by(run.scheduler)


def origin(run: Realization) -> tuple[Hashable, Hashable]:
    """Return the factories of a run's setup: runs of one are stepped in one way, whatever numbers were changed."""
    return known_by(run.setup.optimizer), known_by(run.setup.scheduler)


def made(factory: OptimizerFactory, run: Realization) -> Optimizer:
    """Return what a factory makes of parameters like a run's."""
    optimizer: Optimizer = factory([nn.Parameter(value.clone()) for value in run.parameters.values()])
    return optimizer


def _changed(mine: Optimizer, plain: Optimizer) -> Iterator[Name]:
    """Yield the numbers by which an optimizer differs from the setup's own, and learning rates in any case."""
    before = dict(numbers_of(plain))
    return (name for name, value in numbers_of(mine) if name[1] == "lr" or before.get(name) != value)


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [*optimizer.param_groups, optimizer.defaults]


def numbers_of(optimizer: Optimizer) -> Iterator[tuple[Name, float]]:
    """Yield each number among the options of an optimizer, and its name."""
    for index, options in enumerate(_options(optimizer)):
        for key, value in options.items():
            if _is_number(value):
                yield (index, key, None), value
            elif isinstance(value, tuple):
                yield from (((index, key, at), one) for at, one in enumerate(value) if _is_number(one))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _value(options: Sequence[Mapping[str, Any]], name: Name) -> float:
    index, key, at = name
    value: float = options[index][key] if at is None else options[index][key][at]
    return value


def _put(optimizer: Optimizer, name: Name, value: float) -> None:
    """Put a number where the optimizer has one of that name; what only a scheduler keeps there has no place in it."""
    index, key, at = name
    options = _options(optimizer)[index]
    if key in options:
        options[key] = value if at is None else (*options[key][:at], value, *options[key][at + 1 :])


def _described(optimizer: Optimizer) -> Iterator[Hashable]:
    """Yield the options that are no numbers, and whether each number is 0, on which many a branch depends."""
    for options in _options(optimizer):
        yield tuple(
            (key, repr(value) if isinstance(value, (bool, str, type(None))) else type(value))
            for key, value in options.items()
        )
    yield tuple((name, value == 0) for name, value in numbers_of(optimizer))


def hyperparameters_of(runs: Sequence[Realization], weights: Mapping[str, Tensor]) -> Hyperparameters | None:
    """Return the hyperparameters of lanes that have some each, None where one optimizer and scheduler has those of all.

    Lanes have some each where a run has factories of its own, where they come of setups that differ in them, and where
    a scheduler looks at the loss.
    """
    looks = Single(runs[0], {name: value[0] for name, value in weights.items()}).looks_at_loss
    apart = looks or _has_own(runs[0])
    if not apart and len(set(map(factories, runs))) == 1:
        return None
    found = Hyperparameters(runs, weights)
    return found if apart or found.scheduled or found.differ else None


class Hyperparameters:
    """The options of each lane's own optimizer, moved by its own scheduler; its parameters are never moved.

    Parameters
    ----------
    runs : sequence of Realization
        Alike in `options_of`.
    weights : mapping of str to Tensor, each of shape (lanes, ...)

    Raises
    ------
    StepRefused
        If the lanes' optimizers differ by more than numbers among their options.
    """

    def __init__(self, runs: Sequence[Realization], weights: Mapping[str, Tensor]) -> None:
        starts = [{name: value[lane] for name, value in weights.items()} for lane in range(len(runs))]
        self.singles = [Single(run, start, state=UnreadState) for run, start in zip(runs, starts, strict=True)]
        plain = made(runs[0].setup.optimizer, runs[0])
        self.own = frozenset(name for each in self._with_and_without_scheduler(runs) for name in _changed(each, plain))
        self._check(runs, starts)
        self.scheduled = any(single.scheduler is not None for single in self.singles)
        self.looks_at_loss = any(single.looks_at_loss for single in self.singles)
        self.first: AbstractContextManager[None] = _unheard()
        self.names = [name for name, _ in numbers_of(self.singles[0].optimizer)]
        self.now, self.moved, self.put_there = self._gathered(), set(self.own), dict[Name, float]()

    def _with_and_without_scheduler(self, runs: Sequence[Realization]) -> Iterator[Optimizer]:
        """Yield each optimizer, and what its factory alone makes: a scheduler may overwrite numbers at once."""
        yield from (single.optimizer for single in self.singles)
        yield from (made(run.optimizer, run) for run in {factories(run): run for run in runs}.values())

    @property
    def differ(self) -> bool:
        """Whether lanes differ by any number."""
        return any(number != numbers[0] for numbers in self.now.values() for number in numbers)

    def _check(self, runs: Sequence[Realization], starts: Sequence[Mapping[str, Tensor]]) -> None:
        """See that the factories differ by numbers alone, with the first lane's parameters and numbers in each."""
        first = Single(runs[0], starts[0], scheduled=False)
        if _held(first.optimizer) != _held(self.singles[0].optimizer):
            raise StepRefused("its scheduler hooks into the optimizer")
        numbers, seen = dict(numbers_of(first.optimizer)), {factories(runs[0])}
        for run in runs:
            if factories(run) in seen:
                continue
            seen.add(factories(run))
            other = Single(run, starts[0], scheduled=False)
            for name in self.own & dict(numbers_of(other.optimizer)).keys():
                _put(other.optimizer, name, numbers[name])
            known = {id(p): id(first.parameters[name]) for name, p in other.parameters.items()}
            pairs = paired(other.optimizer, first.optimizer, known)
            if any(a.shape != b.shape or not bool((a == b).all()) for a, b in pairs):
                raise StepRefused("the optimizers of the lanes differ in their state")

    def _gathered(self) -> dict[Name, list[float]]:
        each = [_options(single.optimizer) for single in self.singles]
        return {name: [_value(options, name) for options in each] for name in self.names}

    def advance(self, losses: Tensor, optimizer: Optimizer) -> list[Name]:
        """Step each lane's scheduler and return which numbers have changed in any lane.

        Raises
        ------
        StepRefused
            If a schedule may depend on what the optimizer over all lanes has come to: the parameters that a scheduler
            has here are never moved, nor are options or state by a step.
        """
        if not self.scheduled:
            return []
        if dict(numbers_of(optimizer)) != self.put_there:
            raise StepRefused("its step moves its options, which its schedule may look at")
        values = losses.tolist() if self.looks_at_loss else []
        with self.first, _NoTensors():
            self._schedule(values)
        self.first = nullcontext()
        before, self.now = self.now, self._gathered()
        changed = [name for name, numbers in self.now.items() if numbers != before[name]]
        self.moved.update(changed)
        return changed

    def _schedule(self, losses: list[float]) -> None:
        for lane, single in enumerate(self.singles):
            with unread(single.optimizer):
                single.schedule(losses[lane] if losses else None)

    def put(self, optimizer: Optimizer, names: Iterable[Name] | None = None) -> None:
        """Put numbers, by default those that are the lanes' own, into an optimizer over all lanes."""
        for name in self.own if names is None else names:
            numbers = self.now[name]
            apart = name in self.own or any(number != numbers[0] for number in numbers)
            _put(optimizer, name, LaneNumbers(numbers) if apart else numbers[0])
        self.put_there = dict(numbers_of(optimizer))

    def put_lane(self, optimizer: Optimizer, lane: int, names: Iterable[Name]) -> None:
        """Put the numbers of one lane into an optimizer over it alone."""
        for name in names:
            _put(optimizer, name, self.now[name][lane])

    def take_over(self, optimizer: Optimizer, single: Optimizer, lane: int) -> None:
        """Put the numbers that an optimizer over all lanes has for one of them into an optimizer over that one alone.

        A step may have changed them since they were put there.
        """
        has = dict(numbers_of(optimizer))
        for name in self.moved & has.keys():
            _put(single, name, of_lanes(has[name], len(self.singles))[lane])


def _held(optimizer: Optimizer) -> dict[str, int]:
    """Return how much there is in each of an optimizer's mappings: its hooks, its state."""
    return {name: len(held) for name, held in vars(optimizer).items() if isinstance(held, dict)}


class _NoTensors(TorchFunctionMode):
    """Refuse schedulers that look at the parameters."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if any(isinstance(one, Tensor) for one in args):
            raise StepRefused("its scheduler looks at the parameters")
        return func(*args, **(kwargs or {}))


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep torch from saying of optimizers that never step that their schedulers step before them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        yield
