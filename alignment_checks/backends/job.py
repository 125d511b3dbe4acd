"""What a backend is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment_checks.randomness.drawing import Randomness, drawing_of
from alignment_checks.setups.realization import Realization
from alignment_checks.trajectory import End, Series, divergence


@dataclass(frozen=True, eq=False)
class Job:
    """One training run, and every realization that its θ(t) is scored under.

    A score of None is the training realization itself: its loss is the one that is trained on. `randomness` is what its
    training-mode forward pass draws, `branches` whether it was seen to be one of several that `torch.cond` or its like
    chooses from.
    """

    train: Realization
    scores: tuple[Realization | None, ...]
    randomness: Randomness = Randomness.NONE
    branches: bool = False

    def seed(self, device: torch.device) -> Tensor | None:
        """Return the seed of what the model draws; None where it draws nothing, or from torch's own generators."""
        return drawing_of(self.randomness, self.train.seed, device)

    @property
    def random(self) -> bool:
        """Whether L and G have to be of eval mode, the training-mode loss being random."""
        return self.randomness is not Randomness.NONE

    @property
    def steps(self) -> int:
        """T."""
        return self.train.setup.steps

    @property
    def columns(self) -> dict[int, int]:
        """Where each recorded t stands in a record."""
        return {t: column for column, t in enumerate(self.train.setup.recorded)}


@dataclass(frozen=True, eq=False)
class Record:
    """What one job left: L under each score, shape (scores, records), and G, shape (records,)."""

    base: Series
    mesa: Series
    end: End
    backend: str
    reason: str | None


def because(*reasons: str | None) -> str | None:
    """Return the reasons that there are as one, None where there is none."""
    return "; ".join(reason for reason in reasons if reason) or None


def as_lost(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return NaN in the shape of `values`: where a run that diverged ended is not a place."""
    return {name: torch.full_like(value, torch.nan) for name, value in values.items()}


def on_host(end: End) -> End:
    """Return where a run ended in host memory: what is kept of runs takes none of an accelerator's."""
    parameters, step = ({name: value.cpu() for name, value in values.items()} for values in (end.parameters, end.step))
    return End(parameters, step, end.learning_rate)


def is_lost(base: Series, mesa: Series) -> bool:
    """Return whether a job diverged under every score, so that where it ended is not a place."""
    return all(divergence(row, mesa) is not None for row in base)
