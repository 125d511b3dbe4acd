"""One setup trained and scored under perturbations, every run remembered."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from alignment_checks.backends.dispatch import TOO_FEW
from alignment_checks.backends.layouts import structure
from alignment_checks.backends.path import Path
from alignment_checks.inference.horizons import Horizon, at_limit
from alignment_checks.inference.readings import Reading, readings
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.composition import active
from alignment_checks.properties.sides import Sides
from alignment_checks.runs import KEPT_NUMBERS, Part, along, follow, run, run_parts
from alignment_checks.setups.devices import resolved
from alignment_checks.setups.fingerprints import fingerprint
from alignment_checks.setups.realization import draws_randomness, realize
from alignment_checks.setups.sameness import alike
from alignment_checks.setups.surveys import Surveys
from alignment_checks.training import TrainingSetup, writes
from alignment_checks.trajectory import End, Trajectory


def needed(seeds: Sequence[int], *setups: TrainingSetup) -> list[int]:
    """Return the seeds that tell something: the first alone where none of the setups depends on its seed.

    Full-batch training without randomness of its own depends on it through the init alone.
    """
    return list(seeds) if any(_depends_on_seed(setup, seeds) for setup in setups) else list(seeds[:1])


def _depends_on_seed(setup: TrainingSetup, seeds: Sequence[int]) -> bool:
    if len(seeds) == 1:
        return False
    first, *others = (realize(setup, seed) for seed in seeds)
    if setup.batch_size is not None or draws_randomness(first):
        return True
    return any(fingerprint(replace(other, seed=first.seed), first) != () for other in others)


class Experiment:
    """Readings of one setup, each perturbation trained once however often it is asked for.

    Perturbations that come to the same run (a rate so small that no label flips) are one.

    Parameters
    ----------
    setup : TrainingSetup
    sides : Sides
    seeds : sequence of int
    device, backend : str
        As in `run`.
    within : int, optional
        Take the highest L over t = 1 … within; None is T.
    steps : int, optional
        Read the runs up to this t; None is T.
    horizon : {"finite", "limit"}
        Read C and α at the last step, or as T → ∞.
    planned : int
        About how many runs there are going to be: see `run_parts`.
    """

    def __init__(
        self,
        setup: TrainingSetup,
        sides: Sides,
        seeds: Sequence[int],
        device: str = "auto",
        backend: str = "auto",
        *,
        within: int | None = None,
        steps: int | None = None,
        horizon: Horizon = "finite",
        planned: int = 0,
    ) -> None:
        self.setup, self.sides, self.seeds = setup, sides, list(seeds)
        self.device, self.backend, self.within, self.planned = device, backend, within, planned
        self.steps, self.horizon = steps or setup.steps, horizon
        self.plain = realize(setup, self.seeds[0])
        self.known: dict[Hashable, Reading] = {}
        self.excerpts: dict[Hashable, Trajectory] = {}
        self.backends: dict[tuple[str, str | None], None] = {}
        self.in_lanes: set[Hashable] = set()
        self.batched: set[Hashable] = set()
        self.runs = 0
        self.paths: list[Path] | None = None
        self.surveys = Surveys()
        self._writes = writes(setup)
        self._functions: dict[int, tuple[object, Hashable]] = {}
        self._keys: dict[Hashable, tuple[list[object], Hashable]] = {}

    @property
    def is_outdated(self) -> bool:
        """Whether the data of its setup was written into since: what it trains now is not what it knows."""
        return writes(self.setup) != self._writes

    @property
    def where(self) -> str:
        """The device, and the backends that were used, with the reason where it was not lanes."""
        used = {name for name, reason in self.backends if reason != TOO_FEW} or {"loop"}
        reasons = sorted({reason for _, reason in self.backends if reason not in (None, TOO_FEW)})
        shown = ", ".join(sorted(used)) + "".join(f": {reason}" for reason in reasons)
        return f"{self.device_type} ({shown})"

    @property
    def device_type(self) -> str:
        """What torch calls the kind of the device: cpu, cuda, and so on."""
        return resolved(self.device).type

    def readings(self, deltas: Sequence[Perturbation]) -> list[Reading]:
        """Return the reading under each perturbation, training in one batch what is not known yet."""
        for delta in deltas:
            self.sides.check(delta)
        keys = [self.key(delta) for delta in deltas]
        unknown = {key: delta for key, delta in zip(keys, deltas, strict=True) if key not in self.known}
        if unknown:
            self.measured(list(unknown.values()), keep=[IDENTITY])
        return [self.known[key] for key in keys]

    def fresh(self, deltas: Sequence[Perturbation]) -> list[Reading]:
        """Return the reading under each perturbation, measured anew; it is the one remembered from then on.

        What lanes measured before they measure again: a few runs alone would go to the loop, and differ by rounding,
        which a chaotic run makes much of.
        """
        found: dict[Perturbation, Reading] = {}
        ways = {delta: self._way(delta) for delta in deltas}
        for way in dict.fromkeys(ways.values()):
            alike = [delta for delta, same in ways.items() if same == way]
            found.update(zip(alike, self.measured(alike, keep=alike, backend=way), strict=True))
        return [found[delta] for delta in deltas]

    def _way(self, delta: Perturbation) -> str:
        """Return the backend that measures anew; what was not measured yet goes with what it shares a batch with."""
        key = self.key(delta)
        like = key not in self.known and structure(delta.applied(self.plain)) in self.batched
        return "lanes" if key in self.in_lanes or like else self.backend

    def afresh(self) -> Experiment:
        """Return the experiment that confirms what this one found: under seeds that took no part in finding it.

        With one seed that is this one itself: what it says is about that one run.
        """
        if len(self.seeds) == 1:
            return self
        others = [max(self.seeds) + 1 + i for i in range(len(self.seeds))]
        again = Experiment(
            self.setup,
            self.sides,
            others,
            self.device,
            self.backend,
            within=self.within,
            steps=self.steps,
            horizon=self.horizon,
            planned=self.planned,
        )
        again.surveys = self.surveys
        return again

    def excerpt(self, delta: Perturbation) -> Trajectory | None:
        """Return the runs of one perturbation that was measured anew, or of the identity; None if it was neither."""
        return self.excerpts.get(self.key(delta))

    def measured(
        self, deltas: Sequence[Perturbation], keep: Sequence[Perturbation], backend: str | None = None
    ) -> list[Reading]:
        """Train under each perturbation, and return the readings; `keep` says of which a report may say more."""
        return self.note(self._trajectory(deltas, backend or self.backend), deltas, keep)

    def note(
        self, trajectory: Trajectory, deltas: Sequence[Perturbation], keep: Sequence[Perturbation]
    ) -> list[Reading]:
        """Remember the readings of a trajectory under each perturbation, and more of those that are to be kept."""
        self.backends.update({(r.backend, r.reason): None for r in trajectory.runs})
        keys, n = [self.key(delta) for delta in deltas], len(self.seeds)
        of_key = dict(zip(keys, deltas, strict=True))
        batched = {key: of_key[key] for i, key in enumerate(keys) if trajectory.runs[i * n].backend == "lanes"}
        self.in_lanes.update(batched)
        self.batched.update(structure(delta.applied(self.plain)) for delta in batched.values())
        kept = {self.key(delta) for delta in keep}
        excerpts = {k: self._excerpt(trajectory, i * n) for i, k in enumerate(keys) if k in kept}
        self.excerpts.update(excerpts)
        found = readings(trajectory.until(self.steps), n, within=self.within)
        if self.horizon == "limit":
            found = [at_limit(reading, trajectory, i * n) for i, reading in enumerate(found)]
        self.known.update(zip(keys, found, strict=True))
        return found

    def _excerpt(self, trajectory: Trajectory, begin: int) -> Trajectory:
        """Return the runs of one perturbation, so that the others need not be kept; their ends, if they are at hand."""
        rows = slice(begin, begin + len(self.seeds))
        first = trajectory.runs[begin]
        numbers = 2 * len(trajectory.runs) * sum(value.numel() for value in self.plain.parameters.values())
        kept = trajectory.end[rows] if numbers <= KEPT_NUMBERS else None

        def ends() -> tuple[End, ...]:
            if kept is not None:
                return kept
            trained, scored = [first.perturbation], [first.base]
            return run(self.setup, trained, base=scored, seeds=self.seeds, device=self.device).end

        base, mesa = trajectory.base[rows].copy(), trajectory.mesa[rows].copy()
        return replace(trajectory, base=base, mesa=mesa, runs=trajectory.runs[rows], ends=ends)

    def key(self, delta: Perturbation) -> Hashable:
        """Return what perturbations that come to the same run share.

        What the user's own code made of a run cannot be compared from one call to the next: there it is what was asked.
        Nor is that code run before its batch is told: if the process dies of it, it is known who did it.
        """
        moved = active(delta)
        if any("custom" in part.kinds for part in moved):
            return tuple((p.family, p.options, p.magnitude, p.seed, self._function(p.payload)) for p in moved)
        held = [part.payload for part in moved]  # δ are equal whose functions go by one name: these are what differs
        asked = delta, tuple(map(id, held))
        if asked not in self._keys:  # found out once: it makes the data that the run trains on
            self._keys[asked] = held, fingerprint(delta.applied(self.plain), self.plain)
        return self._keys[asked][1]

    def _function(self, payload: object) -> Hashable:
        """Return what stands for a function, or for what else a perturbation carries, found out once."""
        if id(payload) not in self._functions:
            self._functions[id(payload)] = payload, alike(payload)  # held, so that no other gets its id
        return self._functions[id(payload)][1]

    def _trajectory(self, deltas: Sequence[Perturbation], backend: str) -> Trajectory:
        paths = None if self.sides.mesa else self._followed()
        if paths is not None:
            return along(paths, deltas, device=self.device)
        return run_parts(
            [self.part(deltas)], device=self.device, backend=backend, planned=self.planned, surveys=self.surveys
        )[0]

    def part(self, deltas: Sequence[Perturbation]) -> Part:
        """Return what is to be trained, and count it as trained."""
        placed = [self.sides.placed(delta) for delta in deltas]
        self.runs += len(self.seeds) * (len(deltas) if self.sides.mesa else 1)
        return Part(self.setup, [mesa for mesa, _ in placed], [base for _, base in placed], self.seeds)

    def _followed(self) -> list[Path] | None:
        """Train the unperturbed runs once and return them with their weights, None if those are too large to keep."""
        if self.paths is None and self.backend != "lanes":
            self.paths = follow(self.setup, self.seeds, device=self.device)
            self.runs += len(self.seeds) if self.paths is not None else 0
        return self.paths


def measure_together(asked: Mapping[Experiment, Sequence[Perturbation]]) -> None:
    """Have each experiment know the readings under its perturbations, all trained at once where that can be."""
    groups: dict[tuple[str, str], list[Experiment]] = {}
    for experiment, deltas in asked.items():
        if experiment.sides.mesa:
            groups.setdefault((experiment.device, experiment.backend), []).append(experiment)
        else:  # nothing is trained but the unperturbed run, which is scored along its weights
            experiment.measured(deltas, keep=[IDENTITY])
    for (device, backend), members in groups.items():
        parts = [experiment.part(asked[experiment]) for experiment in members]
        planned = sum(experiment.planned for experiment in members)
        trajectories = run_parts(parts, device=device, backend=backend, planned=planned, surveys=members[0].surveys)
        for experiment, trajectory in zip(members, trajectories, strict=True):
            experiment.note(trajectory, asked[experiment], keep=[IDENTITY])
