"""The rows of a trajectory that are asked for, and the training runs that they need."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TypeVar

from alignment_checks.arguments import described
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.setups.fingerprints import fingerprint
from alignment_checks.setups.realization import Realization, realize, sharing
from alignment_checks.training import TrainingSetup, check_setup

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One run of one setup: what it trains under, what it is scored under, and its seed."""

    setup: TrainingSetup
    mesa: Perturbation
    base: Perturbation
    seed: int


def rows_of(
    setup: TrainingSetup,
    perturbations: Sequence[Perturbation] | None,
    base: Sequence[Perturbation] | None,
    seeds: Sequence[int] | None,
) -> list[Row]:
    """Return the rows of `run`'s arguments, perturbation-major.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the form that `run` asks for.
    """
    check_setup(setup)
    trained = [IDENTITY] if perturbations is None else _listed("perturbations", perturbations)
    scored = trained if base is None else _listed("base", base)
    chosen = [setup.seed] if seeds is None else _listed("seeds", seeds)
    for name, values in (("perturbations", trained), ("base", scored)):
        strange = [value for value in values if not isinstance(value, Perturbation)]
        if strange:
            raise TypeError(f"run: `{name}` must be a sequence of Perturbation; got {type(strange[0]).__name__}")
    if len(scored) != len(trained):
        raise ValueError(f"run: `base` must be as long as `perturbations`, {len(trained)}; got {len(scored)}")
    if not trained:
        raise ValueError("run: expected at least one perturbation; got none. perturbations=None is the identity alone")
    if not chosen or not all(isinstance(s, Integral) and not isinstance(s, bool) and s >= 0 for s in chosen):
        raise ValueError(f"run: `seeds` must be ints from 0, at least one; got {seeds!r}. None is the setup's own seed")
    for mesa, score in zip(trained, scored, strict=True):
        _check_base_side(mesa, score)
    return [Row(setup, m, b, seed) for m, b in zip(trained, scored, strict=True) for seed in map(int, chosen)]


def _listed(name: str, values: Sequence[T]) -> list[T]:
    if not isinstance(values, Iterable):
        raise TypeError(f"run: `{name}` must be a sequence; got {described(values)}. {_INSTEAD[name]}")
    return list(values)


_TRAINS = "Put a single perturbation in a list; to search a strategy, use a check: check_capability_robust(under=…)"
_INSTEAD = {"perturbations": _TRAINS, "base": _TRAINS, "seeds": "n seeds are range(n), a single one is [seed]"}


def _check_base_side(mesa: Perturbation, base: Perturbation) -> None:
    vain = base.kinds & {"init", "optimizer"}
    if vain and base != mesa:
        raise ValueError(
            f"{base} cannot score a run that was not trained under it: on the base side alone, a perturbation of kind "
            f"{', '.join(sorted(vain))} cannot change L's value. Use a dataset or objective family there, or train "
            "under it as well"
        )


@dataclass
class Work:
    """One training run to be done, and where each of its scores belongs."""

    train: Realization
    scores: list[Realization | None] = field(default_factory=list)
    keys: list[Hashable] = field(default_factory=list)
    rows: list[tuple[int, int]] = field(default_factory=list)

    def add(self, row: int, key: Hashable, score: Realization | None) -> None:
        """Score this run for one more row; alike scores are taken once."""
        if key not in self.keys:
            self.keys.append(key)
            self.scores.append(score)
        self.rows.append((row, self.keys.index(key)))


def work_of(rows: list[Row], own: Realization) -> list[Work]:
    """Return the training runs that the rows need: runs that train alike are one."""
    first = _unperturbed(rows[0], own)
    plains: dict[tuple[TrainingSetup, int], Realization] = {(rows[0].setup, rows[0].seed): first}
    work: dict[tuple[TrainingSetup, int, Hashable], Work] = {}
    for index, row in enumerate(rows):
        of = row.setup, row.seed
        plain = plains[of] = plains.get(of) or _sharing(sharing(realize(*of), own), first)
        train = row.mesa.applied(plain)
        one = work.setdefault((*of, fingerprint(train, plain)), Work(train))
        score = None if row.base == row.mesa else score_of(row.base, plain, one.train)
        one.add(index, None if score is None else fingerprint(score, plain), score)
    return list(work.values())


def _unperturbed(row: Row, own: Realization) -> Realization:
    """Return a row's run without its perturbation; it may be `own`, the unperturbed run of its setup, itself."""
    if row.setup is own.setup and row.seed == own.seed:
        return own
    return sharing(realize(row.setup, row.seed), own)


def _sharing(plain: Realization, first: Realization) -> Realization:
    """Return an unperturbed run that has the very data of another one, of which one copy serves both then."""
    return replace(plain, data=first.data, common=first.common)


_OF_TRAINING = ("seed", "parameters", "optimizer", "scheduler", "batch_size", "noise", "dtype")
"""What of a run has no say in the value of L at a given θ."""


def score_of(base: Perturbation, plain: Realization, train: Realization) -> Realization | None:
    """Return what scores a run on its base side, None where that is what it trains on."""
    score = base.applied(plain)
    if any(getattr(score, name) is not getattr(plain, name) for name in _OF_TRAINING):
        raise ValueError(
            f"{base} changes the init or the optimizer: on the base side alone that cannot change L's value"
        )
    same_data = all(a is b for a, b in zip(score.data or (), train.data or (), strict=True))
    return None if same_data and score.objective == train.objective else score
