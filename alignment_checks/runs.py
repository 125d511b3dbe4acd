"""`run`: which runs there are to train, by which backend, in which batches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch

from alignment_checks.backends.dispatch import trained
from alignment_checks.backends.footprint import footprint
from alignment_checks.backends.job import Job, Record
from alignment_checks.backends.path import LARGEST, Path
from alignment_checks.backends.path import along as scored_along
from alignment_checks.backends.path import follow as path_of
from alignment_checks.backends.path import size as path_size
from alignment_checks.backends.reproducible import noted, remarks, reproducible
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.randomness.seeding import derive, isolated
from alignment_checks.rows import Row, rows_of, score_of, work_of
from alignment_checks.setups.devices import check_float64, resolved
from alignment_checks.setups.realization import Realization, realize
from alignment_checks.setups.surveys import Surveys
from alignment_checks.setups.trainable import Surveyed, check_changes, surveyed
from alignment_checks.training import TrainingSetup
from alignment_checks.trajectory import End, Run, Series, Trajectory, settled

BACKENDS = ("auto", "lanes", "loop")
CHUNK = 4096
"""So many runs are made ready at a time: what they start from, and the data that are their own, are then in memory."""
KEPT_NUMBERS = 2**24
"""Final parameters are kept up to this many numbers; beyond that they are trained again when asked for."""


def run(
    setup: TrainingSetup,
    perturbations: Sequence[Perturbation] | None = None,
    *,
    base: Sequence[Perturbation] | None = None,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    backend: str = "auto",
) -> Trajectory:
    """Train perturbations × seeds, perturbation-major, all at once.

    Parameters
    ----------
    setup : TrainingSetup
    perturbations : sequence of Perturbation, optional
        What the runs train under; None is the identity alone.
    base : sequence of Perturbation, optional
        As long: what the runs are scored under, L(t). None scores each run under what it trains under. Runs that train
        alike are trained once, however many ways they are scored.
    seeds : sequence of int, optional
        None is the setup's own.
    device : str
        "auto" is the accelerator that torch reports, if it computes in float64, else the CPU.
    backend : {"auto", "lanes", "loop"}
        "auto" is lanes where they can and cost less, else the loop: `Trajectory.runs` says which and why.

    Returns
    -------
    Trajectory

    Raises
    ------
    TypeError, ValueError
        If an argument is not of that form, or the setup cannot be trained at all (see `TrainingSetup`).
    RuntimeError
        If `backend="lanes"` and lanes cannot train it.

    Examples
    --------
    >>> from functools import partial
    >>> from alignment_checks import landscape
    >>> bowl = landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.25), steps=2)
    >>> run(bowl).base
    array([[1.    , 0.25  , 0.0625]])
    """
    part = Part(setup, perturbations, base, seeds)
    return run_parts([part], device=device, backend=backend, planned=0)[0]


@dataclass(frozen=True, eq=False)
class Part:
    """What `run` takes of one setup among several."""

    setup: TrainingSetup
    perturbations: Sequence[Perturbation] | None = None
    base: Sequence[Perturbation] | None = None
    seeds: Sequence[int] | None = None


def run_parts(
    parts: Sequence[Part], *, device: str, backend: str, planned: int, surveys: Surveys | None = None
) -> list[Trajectory]:
    """Return what `run` does of each part; runs of setups that keep `company` share batches.

    They are some of as many runs as `planned`: whether compiling pays depends on it. Of what `surveys` holds nothing is
    found out again.
    """
    asked = [rows_of(part.setup, part.perturbations, part.base, part.seeds) for part in parts]
    if backend not in BACKENDS:
        raise ValueError(f"run: `backend` must be one of {', '.join(BACKENDS)}; got {backend!r}")
    how = _How(resolved(device), backend, max(planned, sum(map(len, asked))), surveys or Surveys())
    groups: dict[Hashable, list[int]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(company(part.setup), []).append(index)
    found: dict[int, Trajectory] = {}
    for members in groups.values():
        found.update(zip(members, _run([asked[index] for index in members], how), strict=True))
    return [found[index] for index in range(len(parts))]


def company(setup: TrainingSetup) -> Hashable:
    """Return what setups must have in common for their runs to share batches: the very same functions and tensors.

    Two models of equal shapes may still compute two things, which `lanes.structure` does not see. What may differ are
    the optimizer, the scheduler, the batch size, the infimum and the seed.
    """
    functions = tuple(map(id, (setup.model, setup.objective, setup.mesa_objective)))
    data = tuple((part.data_ptr(), part.shape, part.stride(), part.dtype) for part in setup.data or ())
    return functions, data, setup.steps, setup.record_every, setup.dtype


@dataclass(frozen=True)
class _How:
    """How runs are to be trained."""

    device: torch.device
    backend: str
    planned: int
    surveys: Surveys

    def surveyed(self, setup: TrainingSetup) -> Surveyed:
        """Return the unperturbed run of a setup under its own seed, having seen that it can be trained."""
        return self.surveys.once(setup, (setup.seed, "surveyed"), lambda: surveyed(setup))


def _run(parts: Sequence[list[Row]], how: _How, *, keep_ends: bool | None = None) -> list[Trajectory]:
    """Train the rows of setups that keep company, and return a trajectory of each; by default, small ends are kept."""
    rows = [row for part in parts for row in part]
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    with isolated(derive("runs"), starts_over=True):
        numbers = 2 * len(rows) * sum(value.numel() for value in how.surveyed(rows[0].setup).run.parameters.values())
        keep = numbers <= KEPT_NUMBERS if keep_ends is None else keep_ends
        with reproducible(how.device) as threads:
            found = iter([one for chunk in chunks for one in _records(chunk, how, threads, keep_ends=keep)])
    return [_kept(part, list(islice(found, len(part))), how) for part in parts]


def _kept(rows: list[Row], found: Sequence[_Found], how: _How) -> Trajectory:
    """Return the trajectory of one setup's rows; ends that were not kept are trained for when they are asked for."""
    kept = tuple(one.end for one in found if one.end is not None)

    def ends() -> tuple[End, ...]:
        return kept if len(kept) == len(rows) else _run([rows], how, keep_ends=True)[0].end

    return _trajectory(rows[0].setup, rows, found, ends)


def _trajectory(
    setup: TrainingSetup, rows: Sequence[Row], found: Sequence[_Found], ends: Callable[[], tuple[End, ...]]
) -> Trajectory:
    t = np.array(setup.recorded)
    base, mesa, outcomes = settled(np.stack([f.base for f in found]), np.stack([f.mesa for f in found]), t)
    runs = tuple(
        Run(row.mesa, row.base, row.seed, f.backend, f.reason, outcome, f.infimum)
        for row, f, outcome in zip(rows, found, outcomes, strict=True)
    )
    return Trajectory(setup, base, mesa, runs, found[0].resolution, ends, t)


# ------------------------------------------------------------------------------------- scored along a kept trajectory


def follow(setup: TrainingSetup, seeds: Sequence[int], *, device: str = "auto") -> list[Path] | None:
    """Train the unperturbed setup under each seed, and keep its weights at every t for `along`.

    Returns
    -------
    list of Path, or None where they are too large to keep, or weights are not all that later calls depend on
    """
    where, found = resolved(device), surveyed(setup)
    drawn = found.randomness(found.run)
    jobs = [Job(realize(setup, seed), (None,), drawn, found.branches) for seed in seeds]
    check_float64([job.train for job in jobs], where, random=any(job.random for job in jobs))
    if sum(map(path_size, jobs)) > LARGEST:
        return None
    with isolated(derive("runs"), starts_over=True), reproducible(where):
        return None if footprint(found.run).keeps else [path_of(job, where) for job in jobs]


def along(paths: Sequence[Path], base: Sequence[Perturbation], *, device: str = "auto") -> Trajectory:
    """Return the trajectory of runs that train unperturbed and are scored under each of `base`, without training any.

    Equal to `run(setup, [IDENTITY] * len(base), base=base)`.
    """
    setup, where = paths[0].job.train.setup, resolved(device)
    rows = rows_of(setup, [IDENTITY] * len(base), base, [path.job.train.seed for path in paths])
    with isolated(derive("runs"), starts_over=True), reproducible(where):
        surveys = Surveys()
        columns = [_scored_along(path, base, where, surveys) for path in paths]
    found = [column[index] for index in range(len(base)) for column in columns]
    return _trajectory(setup, rows, found, lambda: tuple(f.end for f in found if f.end is not None))


def _scored_along(path: Path, base: Sequence[Perturbation], device: torch.device, surveys: Surveys) -> list[_Found]:
    plain = path.job.train
    scores = [score_of(delta, plain, plain) for delta in base]
    changed = [score for score in scores if score is not None]
    _check_objectives(changed, surveys)
    notes: list[str] = []
    with remarks(notes):
        series = iter(scored_along(path, changed, device)) if changed else iter(())
    (record,) = noted([path.record], notes)
    rows = [path.record.base[0] if score is None else next(series) for score in scores]
    return [
        _found(replace(record, base=row[None]), 0, score or plain, keep_end=True)
        for row, score in zip(rows, scores, strict=True)
    ]


# ------------------------------------------------------------------------------------------------------ rows are found


@dataclass(frozen=True, eq=False)
class _Found:
    """What was recorded of one row."""

    base: Series
    mesa: Series
    end: End | None
    backend: str
    reason: str | None
    infimum: float | None
    resolution: float


def _records(rows: list[Row], how: _How, threads: int, *, keep_ends: bool) -> list[_Found]:
    own = how.surveyed(rows[0].setup)
    work = work_of(rows, own.run)
    first = work[0].train
    _check_objectives([run for one in work for run in (one.train, *one.scores) if run is not None], how.surveys)
    random = [
        how.surveys.once(first.setup, (one.train.objective.structure, "randomness"), partial(own.randomness, one.train))
        for one in work
    ]
    jobs = [Job(one.train, tuple(one.scores), drawn, own.branches) for one, drawn in zip(work, random, strict=True)]
    check_float64([job.train for job in jobs], how.device, random=any(job.random for job in jobs))
    found: dict[int, _Found] = {}
    for index, record in trained(
        jobs, how.device, how.backend, planned=how.planned, processes=threads, surveys=how.surveys
    ):
        one = work[index]
        for row, score in one.rows:
            found[row] = _found(record, score, one.scores[score] or one.train, keep_end=keep_ends)
    return [found[row] for row in range(len(rows))]


def _check_objectives(runs: Sequence[Realization], surveys: Surveys) -> None:
    """Raise if an objective as a perturbation makes it cannot be computed; those that differ in numbers are one."""
    for run in runs:
        if run.objective.changes:
            surveys.once(run.setup, (run.objective.structure, "computed"), partial(check_changes, run))


def _found(record: Record, index: int, score: Realization, *, keep_end: bool) -> _Found:
    resolution = torch.finfo(next(iter(score.parameters.values())).dtype).eps
    end = record.end if keep_end else None
    return _Found(record.base[index], record.mesa, end, record.backend, record.reason, score.infimum, resolution)
