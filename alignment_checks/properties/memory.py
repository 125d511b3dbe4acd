"""`Memory`: the experiments of several checks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from alignment_checks.properties.experiment import Experiment
from alignment_checks.properties.sides import Sides
from alignment_checks.setups.sameness import alike
from alignment_checks.setups.surveys import Surveys
from alignment_checks.training import TrainingSetup, writes


class Memory:
    """The experiments of several checks: what one of them trained, the next finds ready.

    Setups that were built apart are one where training cannot tell them apart (see `alike`): by plain data, tensors and
    functions, with what these name of their module, and of the attributes of what they read. A setup is looked at when
    it is first seen, and once torch has written into its data, if not through `.data`: what else is changed after that,
    or read in another way (`vars(settings)["rate"]`, a file, the environment, an attribute that only the methods of an
    object read), is not seen. Use another memory there.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from alignment_checks import check_alignment_robust, check_capability_robust, landscape
    >>> from alignment_checks.perturbations import Perturbation
    >>> bowl = landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=20)
    >>> memory, delta = Memory(), Perturbation("init_gain", 0.01, 1.0, 0)
    >>> check_capability_robust(bowl, delta=delta, rtol=0.1, memory=memory).runs
    2
    >>> check_alignment_robust(bowl, delta=delta, rtol=0.1, memory=memory).runs
    0
    """

    def __init__(self) -> None:
        self._experiments: dict[Hashable, Experiment] = {}
        self._keys: dict[Hashable, Hashable] = {}
        self._surveys = Surveys()

    def experiment(self, setup: TrainingSetup, sides: Sides, seeds: Sequence[int], **how: Any) -> Experiment:
        """Return the experiment of these arguments, those of `Experiment`: the one that there is, if there is one."""
        key = (self.known_as(setup), sides, tuple(seeds), frozenset(how.items()))
        found = self._experiments.get(key)
        if found is None or found.is_outdated:
            self._experiments[key] = found = self.begun(setup, sides, seeds, **how)
            found.surveys = self._surveys
        return found

    def known_as(self, setup: TrainingSetup) -> Hashable:
        """Return what stands for a setup, and for those like it."""
        now = setup, writes(setup)
        if now not in self._keys:
            self._keys[now] = alike(setup)
        return self._keys[now]

    def begun(self, setup: TrainingSetup, sides: Sides, seeds: Sequence[int], **how: Any) -> Experiment:
        """Return a new experiment."""
        return Experiment(setup, sides, seeds, **how)
