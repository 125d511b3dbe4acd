"""`Realization`: one run, ready to be trained: θ(0), data, objective, optimizer and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from alignment_checks.inspection.copies import copied
from alignment_checks.inspection.hints import MODEL, explained
from alignment_checks.inspection.inner_state import inner_state
from alignment_checks.inspection.placement import placed
from alignment_checks.objectives import Loss, Objective
from alignment_checks.randomness.drawing import EVALUATION, Randomness, drawing, drawing_of, observed, seed_of
from alignment_checks.randomness.seeding import derive, isolated
from alignment_checks.setups.as_found import as_found
from alignment_checks.training import OptimizerFactory, SchedulerFactory, TrainingSetup

CPU = torch.device("cpu")


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
        The run's seed: of the order of its minibatches, and of what the model and the noise on its gradient draw.
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
    module = made(setup, seed)
    if isinstance(module, torch.jit.ScriptModule):
        module = _Scripted(module)
    module = placed(module.train(), CPU)
    return module if setup.dtype is None else module.to(setup.dtype)


def made(setup: TrainingSetup, seed: int) -> nn.Module:
    """Return what the factory of models returns under `seed`."""
    with isolated(derive("init", seed)), explained("`model()`", MODEL):
        module: object = setup.model()
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"`model()` must return a torch.nn.Module; got {type(module).__name__}. Pass a factory of modules"
        )
    return module


class _Scripted(nn.Module):
    """A scripted module within another: torch calls no scripted one with other weights than its own, but parts so."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.scripted = scripted

    def forward(self, *inputs: Tensor) -> object:
        return self.scripted(*inputs)


def _cast(part: Tensor, dtype: torch.dtype | None) -> Tensor:
    return part if dtype is None or not part.is_floating_point() else part.to(dtype)


# ------------------------------------------------------------------------------------------------- evaluated at t = 0


def start(realization: Realization) -> float:
    """Return L(0): the loss at θ(0), in eval mode where the training mode draws at random."""
    found = randomness(realization)
    module = copied(realization.module).train(found is Randomness.NONE)
    seed = drawing_of(found, realization.seed)
    with isolated(derive("evaluation", realization.seed)), torch.no_grad(), drawing(seed, EVALUATION):
        return float(_valued(replace(realization, module=module)))


def _valued(realization: Realization) -> Tensor:
    return loss_of(realization)(
        called(realization, copied(realization.module)), realization.targets, realization.parameters
    )


def called(realization: Realization, spare: nn.Module) -> Tensor:
    """Return the outputs at θ(0), by a spare module and copies of all weights: nothing of the realization changes.

    What a module holds besides may change as it is called, and torch puts weights that stand in it twice back wrongly.
    """
    weights = {**realization.parameters, **realization.constants}
    state = {name: value.clone() for name, value in weights.items()}
    outputs: Tensor = torch.func.functional_call(spare, state, realization.inputs)
    return outputs


def randomness(realization: Realization) -> Randomness:
    """Return what the training-mode forward pass draws at random (dropout does)."""
    leaves = {name: value.clone().requires_grad_() for name, value in realization.parameters.items()}
    run = replace(realization, parameters=leaves)
    with isolated(derive("run", run.seed)), torch.enable_grad(), as_found(run.objective):
        return observed(lambda: _valued(run), seed_of(run.seed))


def draws_randomness(realization: Realization) -> bool:
    """Return whether the training-mode forward pass draws random numbers."""
    return randomness(realization) is not Randomness.NONE


def loss_of(realization: Realization, device: torch.device = CPU) -> Loss:
    """Return the scalar loss that the run trains on, or is scored by, for outputs on a device."""
    return realization.objective.on(device).loss()
