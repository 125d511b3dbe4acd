"""`TrainingSetup`: everything that fixes a training run, up to its perturbation and its seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from alignment_checks.arguments import described, is_int
from alignment_checks.brief import brief
from alignment_checks.objectives import BaseObjective, MesaObjective, Tensors, gradient_l1

ModelFactory = Callable[[], nn.Module]
OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], Any]


@dataclass(frozen=True, eq=False, repr=False)
class TrainingSetup:
    """A training process: frozen, and compared by identity. Its repr has the shapes of its data, not what is in them.

    Parameters
    ----------
    model : callable
        `model()` builds a new module at its init; called under the run's seed.
    data : sequence of tensors, or None
        First axis: the example, N of them. All but the last are the model's inputs, the last is the targets; one
        tensor alone is both. None for a function of the parameters (see `landscape`): then the model is called
        without arguments and the objective's targets are None. They are not copied, those of an accelerator's
        memory and those made under `torch.inference_mode` apart: a run trains on what they hold when it begins. That
        torch wrote into them in between is seen; what is written through their `.data`, or by NumPy into memory that
        it shares with a tensor, is not.
    objective : callable
        `objective(outputs, targets)` gives N per-example losses or their mean.
    optimizer : callable
        `optimizer(params)` gives any `torch.optim.Optimizer` over that list of parameters.
    steps : int
        T ≥ 1. A run is t = 0 … T.
    scheduler : callable, optional
        `scheduler(optimizer)` gives any torch scheduler; stepped once after every optimizer step.
    batch_size : int, optional
        None is the whole dataset at each step; else the last minibatch of an epoch is short where N does not divide.
        L(t) and G(t) are of the whole dataset in any case.
    mesa_objective : MesaObjective or callable
        G. A plain callable is `function(gradients, parameters) -> scalar tensor`.
    objective_infimum : float or None
        A lower bound L* that the objective approaches, for the dimensionless forms; None if none is known.
    dtype : torch.dtype, optional
        Floating dtype of model and data; None leaves both as they are.
    seed : int
        Seed of init, of minibatch order and of the model's own randomness. L and G are of eval mode where the training
        mode draws at random (dropout does).
    record_every : int
        k ≥ 1: L and G are recorded at t = 0, k, 2k, … and T. Between two records they are taken to change linearly.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the form above. What shows only at θ(0) (a NaN loss, a model without trainable
        parameters) is raised by whatever trains the setup, before anything is trained.

    Examples
    --------
    >>> from functools import partial
    >>> from torch.nn.functional import mse_loss
    >>> x = torch.linspace(-1, 1, 8).unsqueeze(1)
    >>> optimizer = partial(torch.optim.SGD, lr=0.1)
    >>> TrainingSetup(partial(nn.Linear, 1, 1), (x, 2 * x), mse_loss, optimizer, steps=5).recorded
    (0, 1, 2, 3, 4, 5)
    """

    model: ModelFactory
    data: Sequence[Tensor] | None
    objective: BaseObjective
    optimizer: OptimizerFactory
    steps: int
    _: KW_ONLY
    scheduler: SchedulerFactory | None = None
    batch_size: int | None = None
    mesa_objective: MesaObjective | Callable[[Tensors, Tensors], Tensor] = gradient_l1
    objective_infimum: float | None = 0.0
    dtype: torch.dtype | None = None
    seed: int = 0
    record_every: int = 1

    def __post_init__(self) -> None:
        _check_callables(self)
        _check_numbers(self)
        object.__setattr__(self, "data", _checked_data(self.data))
        if self.batch_size is not None:
            _check_batch_size(self.batch_size, self.data)

    def __repr__(self) -> str:
        shown = [f"{one.name}={brief(getattr(self, one.name))}" for one in fields(self) if _is_said(self, one)]
        return f"TrainingSetup({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        """Print as its repr in what Hypothesis says of a failing test case too, and in IPython: not all of its data."""
        printer.text(repr(self))

    @property
    def recorded(self) -> tuple[int, ...]:
        """The steps t at which L and G are recorded: 0, k, 2k, … and T."""
        return (*range(0, self.steps, self.record_every), self.steps)

    @property
    def mesa(self) -> MesaObjective:
        """The mesa-objective, in the one form that the backends use."""
        if isinstance(self.mesa_objective, MesaObjective):
            return self.mesa_objective
        return MesaObjective(getattr(self.mesa_objective, "__name__", "mesa_objective"), self.mesa_objective)


def check_setup(setup: object) -> None:
    """Raise TypeError if it is no setup."""
    if not isinstance(setup, TrainingSetup):
        raise TypeError(f"expected a TrainingSetup; got {described(setup)}. Build one: ac.TrainingSetup(...)")


def writes(setup: TrainingSetup) -> tuple[int | None, ...]:
    """Return how often torch has written into each tensor of a setup's data, if not through its `.data`.

    None stands for one of inference mode, of which that is not known.

    The same setup with other writes is trained on other data.

    Examples
    --------
    >>> from functools import partial
    >>> from torch.nn.functional import mse_loss
    >>> x = torch.zeros(4, 1)
    >>> setup = TrainingSetup(partial(nn.Linear, 1, 1), (x, x), mse_loss, partial(torch.optim.SGD, lr=0.1), steps=5)
    >>> before, _ = writes(setup), x.fill_(1.0)
    >>> before == writes(setup)
    False
    """
    return tuple(None if part.is_inference() else part._version for part in setup.data or ())


def landscape(
    function: Callable[[Tensor], Tensor],
    start: Iterable[float],
    *,
    optimizer: OptimizerFactory,
    steps: int,
    **same: Any,
) -> TrainingSetup:
    """Return the setup that descends an analytic function of a parameter vector: no model to speak of, no data.

    Parameters
    ----------
    function : callable
        From a vector of shape (d,) to a scalar.
    start : sequence of d floats
        θ(0), the same for every seed.
    optimizer, steps, **same
        As in `TrainingSetup`. `dtype` is float64 unless given.

    Examples
    --------
    >>> from functools import partial
    >>> bowl = landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=10)
    >>> bowl.steps, bowl.data
    (10, None)

    Its outputs are f(θ), and the L′ of `objective_mix` is a function of them. For an L′ of θ itself, let a model return
    θ, and f be the objective: the same descent, and L′ is called with θ.

    >>> class Point(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    ...
    ...     def forward(self):
    ...         return self.theta
    >>> def bowl(theta, _):
    ...     return theta.square().sum()
    >>> setup = TrainingSetup(Point, None, bowl, partial(torch.optim.SGD, lr=0.1), steps=10)
    """
    if not isinstance(start, Iterable):
        raise TypeError(f"landscape: `start` must be a sequence of floats; got {described(start)}. Pass [{start!r}]")
    try:
        point = tuple(float(value) for value in start)
    except (TypeError, ValueError):
        raise TypeError(f"landscape: `start` must be a flat sequence of floats; got {described(start)}") from None
    if not point:
        raise ValueError("landscape: `start` is empty; expected at least one float")
    same.setdefault("dtype", torch.float64)
    return TrainingSetup(lambda: _Landscape(function, point), None, _value, optimizer, steps, **same)


class _Landscape(nn.Module):
    """A parameter vector, and the function of it."""

    def __init__(self, function: Callable[[Tensor], Tensor], start: tuple[float, ...]) -> None:
        super().__init__()
        self.function = function
        self.point = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def extra_repr(self) -> str:
        return str(getattr(self.function, "__qualname__", type(self.function).__qualname__))

    def forward(self) -> Tensor:
        value = self.function(self.point)
        if not isinstance(value, Tensor):
            raise TypeError(f"landscape: `function` must return a tensor, a scalar; got {described(value)}")
        return value.reshape(()) if value.numel() == 1 else value


def _value(outputs: Tensor, targets: Tensor | None) -> Tensor:  # noqa: ARG001
    return outputs


def _check_callables(setup: TrainingSetup) -> None:
    for name in ("model", "objective", "optimizer", "scheduler", "mesa_objective"):
        value = getattr(setup, name)
        if not callable(value) and not (name == "scheduler" and value is None):
            raise TypeError(f"TrainingSetup: `{name}` must be callable; got {described(value)}{_HINTS[name]}")
    check_no_class("TrainingSetup", "objective", setup.objective)
    if isinstance(setup.model, nn.Module):
        raise TypeError(
            f"TrainingSetup: `model` must build a new module at each call; got {described(setup.model)} itself. "
            "Pass a factory: model=lambda: nn.Sequential(...)"
        )


def check_no_class(where: str, argument: str, objective: object) -> None:
    """Raise TypeError if an objective is a class of modules, which its outputs and targets would build one of."""
    if isinstance(objective, type) and issubclass(objective, nn.Module):
        name = objective.__name__
        raise TypeError(
            f"{where}: `{argument}` is called with (outputs, targets), and may be a module; got the class {name} "
            f"itself. Build one: {argument}={name}()"
        )


_HINTS = {
    "model": ". Pass a factory: model=lambda: nn.Sequential(...)",
    "objective": ". Pass a function of (outputs, targets), such as torch.nn.functional.cross_entropy",
    "optimizer": ". Pass a factory: optimizer=partial(torch.optim.SGD, lr=0.1)",
    "scheduler": ". Pass a factory: scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=100)",
    "mesa_objective": ". Pass alignment_checks.gradient_l1, or a function of (gradients, parameters)",
}


def _check_numbers(setup: TrainingSetup) -> None:
    for name in ("steps", "record_every"):
        value = getattr(setup, name)
        if not is_int(value) or value < 1:
            raise ValueError(f"TrainingSetup: `{name}` must be an int, at least 1; got {value!r}")
    if not is_int(setup.seed) or not 0 <= setup.seed < 2**63:
        raise ValueError(f"TrainingSetup: `seed` must be an int in [0, 2**63); got {setup.seed!r}")
    infimum = setup.objective_infimum
    if infimum is not None and not (isinstance(infimum, (int, float)) and math.isfinite(infimum)):
        raise ValueError(
            f"TrainingSetup: `objective_infimum` must be finite, or None where none is known; got {infimum!r}"
        )
    if setup.dtype is not None and not (isinstance(setup.dtype, torch.dtype) and setup.dtype.is_floating_point):
        raise TypeError(f"TrainingSetup: `dtype` must be a floating torch.dtype or None; got {setup.dtype!r}")


def _checked_data(data: Sequence[Tensor] | None) -> tuple[Tensor, ...] | None:
    if data is None:
        return None
    single = isinstance(data, (Tensor, Dataset, DataLoader)) or not isinstance(data, Iterable)
    parts: tuple[Any, ...] = (data,) if single else tuple(data)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        kinds = ", ".join(described(part) for part in parts) or "an empty sequence"
        raise TypeError(
            f"TrainingSetup: `data` must be tensors, such as (x, y), or None; got {kinds}. "
            "torch.as_tensor converts an array; stack the examples of a Dataset, and batch_size= draws minibatches"
        )
    lengths = [part.shape[0] if part.ndim else None for part in parts]
    if None in lengths or len(set(lengths)) > 1 or lengths[0] == 0:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(
            f"TrainingSetup: the first axis of each tensor in `data` must be the example, with the same number (at "
            f"least one) in each; got shapes {shapes}"
        )
    return tuple(map(_kept, parts))


def _kept(part: Tensor) -> Tensor:
    """Return data in host memory, to be trained on: an accelerator gets its copy with each batch of runs."""
    part = part.detach().cpu()
    with torch.inference_mode(mode=False):
        return part.clone() if part.is_inference() else part  # what was made there cannot be saved for a gradient


def _check_batch_size(batch_size: int, data: Sequence[Tensor] | None) -> None:
    most = None if data is None else data[0].shape[0]
    if most is None:
        raise ValueError("TrainingSetup: `batch_size` needs `data`; got data=None. Leave batch_size=None")
    if not is_int(batch_size) or not 1 <= batch_size <= most:
        raise ValueError(
            f"TrainingSetup: `batch_size` must be an int from 1 to the {most} examples, or None for all of them; "
            f"got {batch_size!r}"
        )


def _is_said(setup: TrainingSetup, one: Field[Any]) -> bool:
    """Return whether a field has no default, or another value than that; a landscape's objective is its function."""
    value = getattr(setup, one.name)
    return value is not _value and (one.default is MISSING or value != one.default)
