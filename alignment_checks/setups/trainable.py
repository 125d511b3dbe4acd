"""Whether a setup can be trained at all: checked at θ(0), on its own data, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignment_checks.inspection.copies import copied
from alignment_checks.inspection.hints import (
    OPTIMIZER,
    PARAMETERS,
    UNCOPIED,
    explained,
    form,
    forms,
    input_hint,
    target_hint,
)
from alignment_checks.inspection.operations import has_branches, has_functions, leaves
from alignment_checks.inspection.placement import placed
from alignment_checks.objectives import mixed_in
from alignment_checks.randomness.drawing import Randomness
from alignment_checks.randomness.seeding import derive, isolated, moved_from
from alignment_checks.setups.as_found import as_found
from alignment_checks.setups.realization import CPU, Realization, called, loss_of, made, randomness, realize
from alignment_checks.setups.reductions import check_reduction
from alignment_checks.training import TrainingSetup


@dataclass(frozen=True, eq=False)
class Surveyed:
    """The unperturbed run of a setup, and what the one call of model and objective showed that it was checked by.

    Attributes
    ----------
    run : Realization
    draws : bool
        Whether the call drew from a global generator.
    branches : bool
        Whether it was one of several that `torch.cond` or its like chooses from.
    """

    run: Realization
    draws: bool
    branches: bool

    def randomness(self, train: Realization) -> Randomness:
        """Return what a run of this model and data draws; one that drew nothing is not called again."""
        known = not self.draws and train.objective.structure == self.run.objective.structure
        return Randomness.NONE if known else randomness(train)


def checked(setup: TrainingSetup) -> Realization:
    """Return the unperturbed run of `setup` under its own seed, having seen that it can be trained at all.

    Raises
    ------
    TypeError, ValueError
        As `surveyed`.
    """
    return surveyed(setup).run


def surveyed(setup: TrainingSetup) -> Surveyed:
    """Return `checked`'s run, and what else was seen of it.

    Raises
    ------
    ValueError
        If the factory returns the same module twice, the model has no trainable parameter or does not take the data, a
        copy of it computes with the weights of the original, the model or the objective writes into the data, the
        objective is neither per-example nor scalar, or sums over the examples and says so, or is not finite at θ(0), or
        depends on no trainable parameter, or the optimizer holds none of them.
    TypeError
        If what the objective, the mesa-objective or the factory of optimizers or schedulers returns is none, or one of
        them is called in a wrong way.
    """
    first = realize(setup, setup.seed)
    _check_factory(first, made(setup, setup.seed))
    if not first.parameters:
        raise ValueError(
            "the model has no trainable parameter; expected at least one with requires_grad=True. "
            "Unfreeze a parameter, or build a model that has one"
        )
    _check_hooks(first.module)
    found = _survey(first)
    with isolated(derive("run", first.seed)):
        _check_optimizer(first)
        _check_mesa(first)
    return found


def _check_factory(first: Realization, second: nn.Module) -> None:
    storages = {p.untyped_storage().data_ptr() for p in first.parameters.values() if p.numel()}
    shared = [n for n, p in second.named_parameters() if p.untyped_storage().data_ptr() in storages]
    if second is first.module or shared:
        named = f" (it shares {', '.join(shared[:3])})" if shared else ""
        raise ValueError(
            f"`model()` returned the same weights twice{named}, so runs would overwrite one another's. Expected a new "
            "module at each call: build it inside the factory, model=lambda: nn.Sequential(...)"
        )


def _check_hooks(module: nn.Module) -> None:
    hooked = [name for name, p in module.named_parameters() if p._backward_hooks or p._post_accumulate_grad_hooks]
    if hooked:
        raise ValueError(
            f"a hook is registered on the gradient of {', '.join(hooked[:3])}; copies of the model do not have it, so "
            "runs would train without it. Change gradients in the optimizer, with register_step_pre_hook, or register "
            "a full backward hook on the module"
        )


def _survey(first: Realization) -> Surveyed:
    with torch.inference_mode(mode=False), torch.enable_grad():  # as in training, whoever calls
        run = _with_leaves(first)
        copies, weights = run.data or (), run.parameters
        versions = [copy._version for copy in copies]  # not 0, of a tensor that was made under inference mode
        with explained("copy.deepcopy of the model, which is copied for each run,", UNCOPIED):
            spare = copied(first.module)
        outputs, value, draws = _evaluated(run, spare)
    written = [index for index, copy in enumerate(copies) if copy._version != versions[index]]
    if written:
        raise ValueError(
            f"the model or the objective writes into data[{written[0]}] in place, so each step would train on other "
            "data than the one before. Use an operation that returns a new tensor (inplace=False), or clone the input"
        )
    _check_losses(value)
    check_reduction(run.objective.function, outputs, run.targets, value)
    _check_dependence(value, first.module, weights)
    return Surveyed(first, draws, has_branches(value))


def _check_form(value: object, outputs: object, n: int, name: str = "`objective`") -> Tensor:
    """Return what an objective gives of `n` examples (0: there is no data); raise if it is no loss of theirs."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must return a tensor of per-example losses, or their mean; got {type(value).__name__}")
    per_example = value.ndim > 0 and n > 0 and value.shape[0] == n
    if not (per_example or value.numel() == 1):
        wanted = f"{n} per-example losses (first axis: the example) or a scalar" if n else "a scalar"
        raise ValueError(f"{name} must return {wanted}; got shape {tuple(value.shape)} for outputs of {form(outputs)}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must return floating-point losses; got {value.dtype}")
    return value


def _check_losses(value: Tensor) -> None:
    """Raise if what the objective gives cannot be descended."""
    if not bool(value.isfinite().all()):
        raise ValueError(
            f"`objective` is {float(value.detach().double().mean())} at t = 0 on the unperturbed setup; expected a "
            "finite value. Check the data for NaN and the objective for log(0)"
        )
    if not value.requires_grad:
        raise ValueError(
            "`objective` must be a differentiable function of the model's parameters; what it returned has no "
            "gradient. Leave argmax, comparisons, detach(), item() and NumPy out of the objective and the model"
        )


def _check_dependence(value: Tensor, original: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise if what the objective gives of a copy of the model depends on other weights than the copy's own."""
    used = set(map(id, leaves(value)))
    theirs = [name for name, parameter in original.named_parameters() if id(parameter) in used]
    if theirs:
        raise ValueError(
            f"a copy of what `model()` builds computes with the weights of the original ({', '.join(theirs[:3])}), so "
            "nothing would train them: a function that the model holds as its `forward`, a hook or an attribute closes "
            "over the module. Write it as a method of the model's class, whose `self` is the copy"
        )
    if used.isdisjoint(map(id, weights.values())) and not has_functions(value):
        raise ValueError(
            f"`objective` must depend on the model's parameters; it depends on none of {', '.join([*weights][:3])}, "
            "only on tensors that are not part of the model. Make the modules that `forward` calls attributes of it"
        )


def check_changes(run: Realization) -> None:
    """Raise if what perturbations make of an objective cannot be computed at θ(0), or mixes in what is no loss.

    Raises
    ------
    TypeError, ValueError
    """
    seed = derive("run", run.seed)
    with torch.inference_mode(mode=False), torch.enable_grad(), isolated(seed), as_found(run.objective):
        here = _with_leaves(run)
        outputs = called(here, copied(here.module))
        came = _came(run, outputs)
        for other in filter(None, map(mixed_in, run.objective.changes)):
            with explained(f"{_OTHER}, called with {came},", target_hint(outputs, here.targets)):
                value = placed(other, CPU)(outputs, here.targets)
            check_reduction(other, outputs, here.targets, _check_form(value, outputs, run.examples, _OTHER), _OTHER)
        with explained(f"the perturbed objective, of {came},", target_hint(outputs, here.targets)):
            loss_of(here)(outputs, here.targets, here.parameters)


def _with_leaves(run: Realization) -> Realization:
    """Return a run with copies of its data, and of its weights, which take gradients."""
    data = None if run.data is None else tuple(part.clone() for part in run.data)
    weights = {name: value.clone().requires_grad_() for name, value in run.parameters.items()}
    return replace(run, data=data, parameters=weights)


def _came(run: Realization, outputs: object) -> str:
    targets = "targets None" if run.targets is None else f"targets of {form(run.targets)}"
    return f"outputs of {form(outputs)} and {targets}"


_OTHER = "`other(outputs, targets)` of objective_mix"


def _check_optimizer(first: Realization) -> None:
    given = [nn.Parameter(value.clone()) for value in first.parameters.values()]
    with explained("`optimizer(params)`", PARAMETERS):
        made = first.optimizer(list(given))
    if not callable(getattr(made, "step", None)):
        raise TypeError(
            f"`optimizer(params)` must return a torch.optim.Optimizer; got {type(made).__name__}. Pass a factory that "
            "returns one: optimizer=partial(torch.optim.SGD, lr=0.1)"
        )
    held = {id(value) for group in getattr(made, "param_groups", ()) for value in group["params"]}
    if held and held.isdisjoint(map(id, given)) and not _moves(made, given):
        raise ValueError(
            f"`optimizer(params)` must return an optimizer of `params`; got {type(made).__name__} of other parameters, "
            "which would train nothing. Pass `params` on: optimizer=lambda params: torch.optim.SGD(params, lr=0.1)"
        )
    _check_scheduler(first, made)


def _check_scheduler(first: Realization, optimizer: Optimizer) -> None:
    if first.scheduler is None:
        return
    with explained("`scheduler(optimizer)`", OPTIMIZER):
        made: object = first.scheduler(optimizer)
    if not callable(getattr(made, "step", None)):
        raise TypeError(f"`scheduler(optimizer)` must return a torch scheduler; got {type(made).__name__}. {OPTIMIZER}")


def _check_mesa(first: Realization) -> None:
    """Raise if G cannot be taken at θ(0), of whatever gradient or step it is."""
    weights = {name: value.clone() for name, value in first.parameters.items()}
    push = {name: torch.ones_like(value) for name, value in weights.items()}
    named = f"It is called with two mappings from parameter name to tensor, of {', '.join([*weights][:3])}"
    said = explained("`mesa_objective(push, parameters)`", named)
    with torch.no_grad(), said:
        value: object = placed(first.setup.mesa, CPU)(push, weights)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise TypeError(f"`mesa_objective` must return a scalar tensor; got {form(value)}. Sum over all parameters")


def _moves(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> bool:
    """Return whether a step moves any of the parameters, as it may by way of copies of them; those it has stay put."""
    held = [value for group in optimizer.param_groups for value in group["params"]]
    before, theirs = ([value.detach().clone() for value in values] for values in (parameters, held))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    try:
        optimizer.step(lambda: 0.0)
    except Exception:  # training will tell
        return True
    finally:
        with torch.no_grad():
            for value, kept in zip(held, theirs, strict=True):
                value.copy_(kept)
    return not all(map(torch.equal, parameters, before))


def _evaluated(run: Realization, spare: nn.Module) -> tuple[Tensor, Tensor, bool]:
    """Return a spare module's outputs, the user's own objective of them at θ(0), reduced by nothing, and if it drew."""
    seed = derive("run", run.seed)
    with isolated(seed), as_found(run.objective):
        with explained(f"the model, called with {forms(run.inputs)},", input_hint(run.inputs, run.parameters)):
            outputs = called(run, spare)
        came = _came(run, outputs)
        with explained(f"`objective(outputs, targets)`, called with {came},", target_hint(outputs, run.targets)):
            value = placed(run.objective.function, CPU)(outputs, run.targets)
        draws = moved_from(seed)
    return outputs, _check_form(value, outputs, run.examples), draws
