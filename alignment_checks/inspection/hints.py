"""What is added to an error of the user's own code: what was called with what, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from alignment_checks.inspection.placement import is_of_two_devices

MODEL = "It is called without arguments: model=lambda: nn.Sequential(...)"
PARAMETERS = "It is called with a list of the model's parameters: optimizer=partial(torch.optim.SGD, lr=0.1)"
OPTIMIZER = "It is called with an optimizer: scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=100)"
REALIZATION = "It returns a changed copy of the realization: dataclasses.replace(realization, data=…)"
UNCOPIED = (
    "Computed tensors cannot be copied: keep them as parameters or buffers, or compute them in `forward`. Use "
    "torch.nn.utils.parametrizations.weight_norm in place of torch.nn.utils.weight_norm"
)
ELSEWHERE = (
    "A setup is tried on the CPU before it is trained anywhere: make new tensors on the device of the inputs "
    "(device=x.device), and pass others to the model as buffers or to the objective with functools.partial: those are "
    "moved"
)
FILTERED = "It is a warning, which a filter in force (-W error, or pytest's filterwarnings) makes an error"
TARGETS = (
    "Targets are the last tensor of `data`: class labels are int64, one for each example; regression targets are "
    "floats in the shape of the outputs"
)
NO_DATA = (
    "Where there is no data, targets are None, and the outputs of a landscape are its value: `help(ac.landscape)` "
    "has a way to an objective of θ itself"
)


def target_hint(outputs: object, targets: object) -> str:
    """Return what an objective may have expected instead of what the model returns, or of the targets."""
    if isinstance(outputs, Tensor):
        return NO_DATA if targets is None else TARGETS
    came = type(outputs).__name__
    return f"The model returns a {came}: let the objective take what it needs of it, or wrap the model"


def input_hint(inputs: tuple[Tensor, ...], parameters: Mapping[str, Tensor]) -> str:
    """Return what the model may have expected instead of the inputs that it got."""
    if not inputs:
        return "Look at what it raised: it is called at θ(0), with nothing but its parameters"
    theirs = {value.dtype for value in parameters.values()}
    floats = {value.dtype for value in inputs if value.is_floating_point()}
    if floats - theirs:
        return f"Its parameters are {_listed(theirs)}: dtype=torch.float64 (or float32) casts model and data alike"
    return "It is called with one argument for each tensor of `data` but the last, the example first"


@contextmanager
def explained(who: str, hint: str) -> Iterator[None]:
    """Raise what is raised within again, saying who raised it and how to mend it; out of memory it stays what it is.

    A warning is raised where the user's filters make errors of warnings, and it is said so.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, Warning) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        first = str(error).strip().partition("\n")[0].rstrip(".!")
        said = f"{type(error).__name__}: {first}" if first else type(error).__name__
        hint = ELSEWHERE if is_of_two_devices(error) else hint
        hint = f"{FILTERED}. {hint}" if isinstance(error, Warning) else hint
        raise kind(f"{who} raised {said}. {hint}") from error


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Add a note to what is raised within. It stays what it is: a test may expect it of some δ."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def forms(tensors: tuple[Tensor, ...]) -> str:
    """Return what a model is called with, in words for people."""
    return f"inputs of {', '.join(map(form, tensors))}" if tensors else "no inputs (data=None)"


def form(value: object) -> str:
    """Return the shape and dtype of a tensor, in words for people."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"shape {tuple(value.shape)}, {value.dtype}".replace("torch.", "")


def _listed(dtypes: set[torch.dtype]) -> str:
    return ", ".join(sorted(str(one).removeprefix("torch.") for one in dtypes))
