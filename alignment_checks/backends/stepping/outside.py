"""State that no lane has for itself: in the classes of an optimizer, or in the global random generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignment_checks.backends.stepping.refusal import StepRefused


class Outside:
    """What lanes that are stepped side by side would share, as it was: they may read it, and not change it.

    A loop trains one run after another, so that whatever a run resets at its start is its own there.
    """

    def __init__(self, *owners: object) -> None:
        self.classes = {cls for owner in owners for cls in type(owner).__mro__ if cls is not object}
        self.before = self._seen()
        self.random = _generators()

    def check(self) -> None:
        """Raise `StepRefused` if the state of a class has changed."""
        for cls, attributes in self._seen().items():
            before = self.before[cls]
            changed = [name for name, value in attributes.items() if name not in before or before[name] != value]
            if changed or len(attributes) != len(before):
                raise StepRefused(
                    f"the optimizer changes {cls.__name__}.{(changed or ['...'])[0]}, which all lanes share"
                )

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

    def _seen(self) -> dict[type, dict[str, Any]]:
        return {cls: {name: _mark(value) for name, value in vars(cls).items()} for cls in self.classes}


def _mark(value: object) -> object:
    """Return what differs after a change: of a container its items, of a tensor its version, else the object."""
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if isinstance(value, dict):
        return [(key, _mark(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_mark(item) for item in value]
    return id(value)


def _generators() -> tuple[object, ...]:
    numpy = dict(np.random.get_state(legacy=False))
    state = {key: part.tobytes() if isinstance(part, np.ndarray) else part for key, part in numpy.pop("state").items()}
    return torch.get_rng_state().numpy().tobytes(), numpy, state, random.getstate()
