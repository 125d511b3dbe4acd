"""State that no lane has for itself: in the classes of an optimizer, or in the global random generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.randomness import seeding


class Outside:
    """What lanes that are stepped side by side would share, as it was: they may read it, and not change it.

    A loop trains one run after another, so that whatever a run resets at its start is its own there.
    """

    def __init__(self, *owners: object) -> None:
        classes = {cls for owner in owners for cls in type(owner).__mro__ if cls is not object}
        self.before = [(cls, dict(vars(cls))) for cls in classes]
        marks = ((cls, name, _mark(value)) for cls, held in self.before for name, value in held.items())
        self.marks = [(cls, name, mark) for cls, name, mark in marks if mark is not None]
        self.random = _generators()

    def check(self) -> None:
        """Raise `StepRefused` if the state of a class has changed."""
        for cls, before in self.before:
            now = vars(cls)
            if now != before:
                name = next((name for name in now if now[name] is not before.get(name)), "...")
                raise _changed(cls, name)
        for cls, name, mark in self.marks:
            if _mark(vars(cls)[name]) != mark:
                raise _changed(cls, name)

    def check_random(self) -> None:
        """Raise `StepRefused` if the global random generators are not as they were."""
        if _generators() != self.random:
            raise StepRefused("the optimizer draws random numbers")

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Say of a refusal within that it comes of random numbers, if it may."""
        try:
            yield
        except StepRefused:
            self.check_random()
            raise


def _changed(cls: type, name: str) -> StepRefused:
    return StepRefused(f"the optimizer changes {cls.__name__}.{name}, which all lanes share")


def _mark(value: object) -> object:
    """Return what changes where a mutable value is changed: the items of a container, the version of a tensor."""
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, dict):
        return [(id(key), id(item), _mark(item)) for key, item in value.items()]
    if isinstance(value, (list, set)):
        return [(id(item), _mark(item)) for item in value]
    return None


def _generators() -> tuple[object, object]:
    accelerator: Any = torch.get_device_module() if torch.accelerator.is_available() else None
    return seeding.states(), None if accelerator is None else bytes(accelerator.get_rng_state().numpy())
