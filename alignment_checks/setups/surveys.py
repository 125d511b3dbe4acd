"""What was found out about runs of like structure, found out once for all launches of a search."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from alignment_checks.training import TrainingSetup, writes

T = TypeVar("T")


class Surveys:
    """What does not change from one launch to the next, for whoever launches runs of the same setups again and again.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from alignment_checks import landscape
    >>> bowl = landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=20)
    >>> surveys = Surveys()
    >>> surveys.once(bowl, "width", lambda: 16), surveys.once(bowl, "width", lambda: 32)
    (16, 16)
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, object] = {}

    def once(self, setup: TrainingSetup, what: Hashable, find: Callable[[], T]) -> T:
        """Return what `find()` gives, or gave before for the same model, objective, data as it is now, and `what`."""
        functions = (setup.model, setup.objective)
        key = (*map(id, (*functions, *(setup.data or ()))), writes(setup), setup.dtype, what)
        if key not in self._found:
            self._found[key] = (find(), functions, setup.data)  # held, so that no other object gets their ids
        found: T = self._found[key][0]  # type: ignore[index]
        return found
