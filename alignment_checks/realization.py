"""`Realization`: one run, ready to be trained: θ(0), data, objective, optimizer and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from alignment_checks.drawing import EVALUATION, Randomness, drawing, drawing_of, observed, seed_of
from alignment_checks.inner_state import inner_state
from alignment_checks.objectives import Loss, Objective
from alignment_checks.seeding import derive, isolated
from alignment_checks.training import OptimizerFactory, SchedulerFactory, TrainingSetup


@dataclass(frozen=True)
class GradientNoise:
    """Gaussian noise on each element of each step's gradient, of this standard deviation."""

    scale: float
    seed: int


@dataclass(frozen=True, eq=False)
class Realization:
    """Everything that fixes one run. A perturbation maps one realization to another (`dataclasses.replace`).

    Attributes
    ----------
    setup : TrainingSetup
        What it realizes.
    seed : int
        The run's seed.
    module : nn.Module
        The model's structure; its own weights are never trained and never read.
    parameters : mapping of str to Tensor
        The trainable parameters at θ(0).
    constants : mapping of str to Tensor
        Frozen parameters, and buffers, at t = 0.
    data : tuple of tensors, or None
    common : tuple of tensors, or None
        The data that runs which leave them alone share: what of `data` is the very same tensor needs one copy.
    frozen : mapping of str to Tensor
        Likewise, the frozen parameters that runs share.
    objective : Objective
    infimum : float or None
        A lower bound of the objective, for the dimensionless forms.
    optimizer, scheduler : callables
        As in `TrainingSetup`.
    batch_size : int or None
        As in `TrainingSetup`.
    noise : tuple of GradientNoise
        What is added to the gradient of each step; L and G are without it.
    held : str
        A digest of what the module holds beside parameters and buffers: see `inner_state`.
    dtype : torch.dtype or None
        What it trains in, where that is not the setup's; θ(0) and data are given, and L and G taken, in the setup's.
    """

    setup: TrainingSetup
    seed: int
    module: nn.Module
    parameters: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    data: tuple[Tensor, ...] | None
    common: tuple[Tensor, ...] | None
    frozen: Mapping[str, Tensor]
    objective: Objective
    infimum: float | None
    optimizer: OptimizerFactory
    scheduler: SchedulerFactory | None
    batch_size: int | None = None
    noise: tuple[GradientNoise, ...] = ()
    held: str = ""
    dtype: torch.dtype | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the model is called with."""
        return model_inputs(self.data)

    @property
    def targets(self) -> Tensor | None:
        """What the objective compares the outputs with."""
        return None if self.data is None else self.data[-1]

    @property
    def own(self) -> tuple[bool, ...]:
        """Which of the data are this run's own."""
        return tuple(part is not shared for part, shared in zip(self.data or (), self.common or (), strict=True))

    @property
    def own_frozen(self) -> frozenset[str]:
        """The frozen parameters that are this run's own."""
        buffers = {name for name, _ in self.module.named_buffers()}
        return frozenset(n for n, v in self.constants.items() if n not in buffers and v is not self.frozen.get(n))

    @property
    def examples(self) -> int:
        """N, the number of examples; 0 where there is no data."""
        return 0 if self.data is None else int(self.data[0].shape[0])


def model_inputs(data: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    """Return what the model is called with: all but the targets; one tensor alone is both."""
    if data is None:
        return ()
    return data[:-1] if len(data) > 1 else data


def realize(setup: TrainingSetup, seed: int) -> Realization:
    """Return the unperturbed run of `setup` under `seed`.

    The same tensors of `setup.data` serve every run, so that runs which leave them alone can share one copy.
    """
    with torch.inference_mode(mode=False):  # what is made there cannot be trained, whoever calls
        module = built(setup, seed)
        data = None if setup.data is None else tuple(_cast(part, setup.dtype) for part in setup.data)
    parameters = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    return Realization(
        setup=setup,
        seed=seed,
        module=module,
        parameters=parameters,
        constants=frozen | dict(module.named_buffers()),
        data=data,
        common=data,
        frozen=frozen,
        objective=Objective(setup.objective),
        infimum=setup.objective_infimum,
        optimizer=setup.optimizer,
        scheduler=setup.scheduler,
        batch_size=setup.batch_size,
        held=inner_state(module),
    )


def sharing(run: Realization, other: Realization) -> Realization:
    """Return an unperturbed run with the very frozen parameters of another, where they are the same numbers."""
    same = {n: v for n, v in other.frozen.items() if v.shape == run.constants[n].shape and v.equal(run.constants[n])}
    return replace(run, constants={**run.constants, **same}, frozen=other.frozen)


def lowered(run: Realization) -> Realization:
    """Return the run as it is trained: its weights and data in the dtype that it trains in."""
    if run.dtype is None:
        return run
    parts = [{n: _cast(v, run.dtype) for n, v in values.items()} for values in (run.parameters, run.constants)]
    data = None if run.data is None else tuple(_cast(part, run.dtype) for part in run.data)
    return replace(run, parameters=parts[0], constants=parts[1], data=data)


def built(setup: TrainingSetup, seed: int) -> nn.Module:
    """Return a new model at its init under `seed`, on the CPU and in the setup's dtype."""
    with isolated(derive("init", seed)):
        module = setup.model()
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"`model()` must return a torch.nn.Module; got {type(module).__name__}. Pass a factory of modules"
        )
    return module.train().to("cpu") if setup.dtype is None else module.train().to("cpu", setup.dtype)


def _cast(part: Tensor, dtype: torch.dtype | None) -> Tensor:
    return part if dtype is None or not part.is_floating_point() else part.to(dtype)


# --------------------------------------------------------------------------------------------- checked before training


def checked(setup: TrainingSetup) -> Realization:
    """Return the unperturbed run of `setup` under its own seed, having seen that it can be trained at all.

    Raises
    ------
    ValueError
        If the factory returns the same module twice, the model has no trainable parameter, the model or the objective
        writes into the data, or the objective is neither per-example nor scalar, or not finite, at θ(0).
    TypeError
        If what the objective or the factory of optimizers returns is none.
    """
    first = realize(setup, setup.seed)
    spare = built(setup, setup.seed)
    _check_factory(first, spare)
    if not first.parameters:
        raise ValueError(
            "the model has no trainable parameter; expected at least one with requires_grad=True. "
            "Unfreeze a parameter, or build a model that has one"
        )
    _check_objective(first, spare)
    _check_optimizer(first)
    return first


def _check_factory(first: Realization, second: nn.Module) -> None:
    storages = {p.untyped_storage().data_ptr() for p in first.parameters.values() if p.numel()}
    shared = [n for n, p in second.named_parameters() if p.untyped_storage().data_ptr() in storages]
    if second is first.module or shared:
        named = f" (it shares {', '.join(shared[:3])})" if shared else ""
        raise ValueError(
            f"`model()` returned the same weights twice{named}, so runs would train one another. Expected a new "
            "module at each call: build it inside the factory, model=lambda: nn.Sequential(...)"
        )


def _check_objective(first: Realization, spare: nn.Module) -> None:
    with torch.inference_mode(mode=False):
        copies = None if first.data is None else tuple(part.clone() for part in first.data)
    outputs, value = raw_objective(replace(first, data=copies), spare)
    written = [index for index, copy in enumerate(copies or ()) if not copy.is_inference() and copy._version]
    if written:
        raise ValueError(
            f"the model or the objective writes into data[{written[0]}] in place, so that each step would train on "
            "other data than the one before. Use what returns a new tensor (inplace=False), or clone what is given"
        )
    n = first.examples
    per_example = value.ndim > 0 and n > 0 and value.shape[0] == n
    if not (per_example or value.numel() == 1):
        wanted = f"{n} per-example losses (first axis: the example) or a scalar" if n else "a scalar"
        raise ValueError(
            f"`objective` must return {wanted}; got shape {tuple(value.shape)} for outputs of shape "
            f"{tuple(outputs.shape)}"
        )
    if not value.is_floating_point():
        raise TypeError(f"`objective` must return floating-point losses; got {value.dtype}")
    if not bool(value.isfinite().all()):
        raise ValueError(
            f"`objective` is {float(value.double().mean())} at t = 0 on the unperturbed setup; expected a finite "
            "value. Check the data for NaN and the objective for log(0)"
        )


def _check_optimizer(first: Realization) -> None:
    made = first.optimizer([nn.Parameter(value.clone()) for value in first.parameters.values()])
    if not callable(getattr(made, "step", None)):
        raise TypeError(
            f"`optimizer(params)` must return a torch.optim.Optimizer; got {type(made).__name__}. Pass a factory that "
            "returns one: optimizer=partial(torch.optim.SGD, lr=0.1)"
        )


def raw_objective(realization: Realization, spare: nn.Module) -> tuple[Tensor, Tensor]:
    """Return a spare module's outputs and the user's own objective of them at θ(0), reduced by nothing."""
    with isolated(derive("run", realization.seed)), torch.no_grad():
        outputs = _called(realization, spare)
        value = realization.objective.function(outputs, realization.targets)
    if not isinstance(value, Tensor):
        raise TypeError(
            f"`objective` must return a tensor of per-example losses, or their mean; got {type(value).__name__}"
        )
    return outputs, value


def start(realization: Realization) -> float:
    """Return L(0): the loss at θ(0), in eval mode where the training mode draws at random."""
    found = randomness(realization)
    module = deepcopy(realization.module).train(found is Randomness.NONE)
    seed = drawing_of(found, realization.seed)
    with isolated(derive("evaluation", realization.seed)), torch.no_grad(), drawing(seed, EVALUATION):
        return float(_valued(replace(realization, module=module)))


def _valued(realization: Realization) -> Tensor:
    return loss_of(realization)(
        _called(realization, deepcopy(realization.module)), realization.targets, realization.parameters
    )


def _called(realization: Realization, spare: nn.Module) -> Tensor:
    """Return the outputs at θ(0), by a spare module and a copy of the constants: nothing of the realization changes.

    What a module holds besides may change as it is called, and torch puts weights that stand in it twice back wrongly.
    """
    constants = {name: value.clone() for name, value in realization.constants.items()}
    state = {**realization.parameters, **constants}
    outputs: Tensor = torch.func.functional_call(spare, state, realization.inputs)
    return outputs


def randomness(realization: Realization) -> Randomness:
    """Return what the training-mode forward pass draws at random (dropout does)."""
    leaves = {name: value.clone().requires_grad_() for name, value in realization.parameters.items()}
    run = replace(realization, parameters=leaves)
    with isolated(derive("run", run.seed)), torch.enable_grad():
        return observed(lambda: _valued(run), seed_of(run.seed))


def draws_randomness(realization: Realization) -> bool:
    """Return whether the training-mode forward pass draws random numbers."""
    return randomness(realization) is not Randomness.NONE


def loss_of(realization: Realization) -> Loss:
    """Return the scalar loss that the run trains on, or is scored by."""
    return realization.objective.loss()
