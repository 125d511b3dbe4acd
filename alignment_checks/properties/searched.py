"""`Property`: what must stay true of a setup under every δ, and the verdict of a search for what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from alignment_checks.exploration.confirmation import Searched
from alignment_checks.exploration.progress import Budget, Watch
from alignment_checks.exploration.rounds import FRUGAL, WIDE
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.inference.quantities import Quantity
from alignment_checks.inference.readings import Reading
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties.experiment import Experiment, needed
from alignment_checks.properties.judging import Judge, check_normalizable, close
from alignment_checks.properties.memory import Memory
from alignment_checks.properties.options import Options, Strategy
from alignment_checks.properties.sides import Sides
from alignment_checks.properties.wording import (
    Describe,
    caveats,
    doubts,
    finding,
    one_run,
    points,
    settling,
    unperturbed,
)
from alignment_checks.search import drawn, search
from alignment_checks.setups.realization import realize
from alignment_checks.training import TrainingSetup
from alignment_checks.verdict import Outlook, Verdict

SAMPLE = 24
"""Draws by which a strategy is asked whether it makes training random."""
PATIENCE = 15.0
"""Seconds below which nothing is made ready for runs that are yet to come: compiling takes a third of them."""


def _nothing(reading: Reading) -> tuple[str, ...]:  # noqa: ARG001
    return ()


@dataclass(frozen=True)
class Property:
    """What must stay true of a setup under every δ of a strategy.

    Attributes
    ----------
    setup : TrainingSetup
    strategy : strategy of Perturbation
    sides : Sides
        Where δ is applied.
    quantity : Quantity
        What is read of a run.
    judge : callable
        From the unperturbed reading and one under δ to the judgement of that δ.
    holds, fails : str
        What a verdict says of it.
    within : int, optional
        Take the highest L over t = 1 … within; None is T.
    describe : callable
        From a reading to more lines about it.
    """

    setup: TrainingSetup
    strategy: Strategy
    sides: Sides
    quantity: Quantity
    judge: Judge
    holds: str
    fails: str
    within: int | None = None
    describe: Describe = _nothing

    def searched(self, options: Options) -> Verdict:
        """Search the strategy for what breaks the property, and return the verdict."""
        budget = Budget(options.max_time)
        check_normalizable(self.quantity, self.setup)
        seeds = self._seeds(options)
        experiment = self._experiment(seeds, options)
        again, before = experiment.afresh(), experiment.runs

        def trained() -> int:
            return experiment.runs - before + (again.runs if again is not experiment else 0)

        result = self._search(experiment, again, options, budget, _counting(options.watch, trained))
        if options.horizon == "limit" and not result.stopped:
            _know_limit(experiment, result)
        verdict = self._verdict(experiment, again if result.confirmed else experiment, result)
        asked = options.seeds_of(self.setup)
        notes = [one_run(len(asked))] * (len(seeds) < len(asked)) + list(verdict.notes)
        return replace(verdict, notes=tuple(notes), runs=trained(), seconds=budget.spent)

    def _seeds(self, options: Options) -> list[int]:
        """Return the seeds that tell something of the setup, or of what is tried."""
        asked = options.seeds_of(self.setup)
        random = len(asked) > 1 and self.sides.mesa and self._randomizes(options)
        return asked if random else needed(asked, self.setup)

    def _randomizes(self, options: Options) -> bool:
        """Return whether what is tried makes a run depend on its seed: by noise, or by minibatches."""
        plain = realize(self.setup, self.setup.seed)
        given = () if options.examples else tuple(options.first)
        for delta in given if given and all(one.is_whole for one in given) else drawn(self.strategy, SAMPLE, 0):
            self.sides.check(delta)
            run = delta.applied(plain)
            if run.noise or run.batch_size is not None:
                return True
        return False

    def _experiment(self, seeds: Sequence[int], options: Options) -> Experiment:
        memory = options.memory or Memory()
        return memory.experiment(
            self.setup,
            self.sides,
            seeds,
            device=options.device,
            backend=options.backend,
            within=self.within,
            horizon=options.horizon,
            planned=options.examples if options.max_time is None or options.max_time > PATIENCE else 0,
        )

    def _search(
        self, experiment: Experiment, again: Experiment, options: Options, budget: Budget, watch: Watch | None
    ) -> Searched:
        return search(
            self.strategy,
            partial(self._judged, experiment.readings),
            partial(self._judged, again.fresh),
            examples=options.examples,
            random_seed=options.random_seed,
            resolution=options.resolution,
            first=options.first,
            budget=budget,
            shrink=options.shrink,
            plan=FRUGAL if experiment.device_type == "cpu" else WIDE,
            watch=watch,
            level=options.level,
            same=experiment.key,
            same_seeds=again is experiment,
            drawn_from=options.drawn_from,
        )

    def _judged(
        self, measure: Callable[[Sequence[Perturbation]], list[Reading]], deltas: Sequence[Perturbation]
    ) -> list[Judgement]:
        reference, *found = measure([IDENTITY, *deltas])
        return [self.judge(reference, reading) for reading in found]

    def _verdict(self, experiment: Experiment, again: Experiment, result: Searched) -> Verdict:
        status = _status(result)
        told = again if result.minimal else experiment
        shown = result.minimal or result.undecided
        minimal, worst, *others = (
            None if one is None else finding(again, self.quantity, self.describe, one)
            for one in (result.minimal, result.worst, *result.others)
        )
        nearest = finding(experiment, self.quantity, self.describe, result.nearest) if result.nearest else None
        return Verdict(
            status=status,
            statement=self.holds,
            denial=self.fails,
            minimal=minimal,
            worst=worst,
            others=tuple(one for one in others if one is not None),
            curve=points(result.curve),
            curve_others=tuple(map(points, result.curve_others)),
            holds_up_to=result.holds_up_to,
            runs=0,
            seconds=0.0,
            searched=result.judged,
            steps=self.setup.steps,
            where=experiment.where,
            numbers=() if minimal else unperturbed(experiment, self.quantity, self.describe, result),
            notes=(*doubts(result, status), *caveats(self.setup)),
            stopped_early=result.stopped,
            nearest=nearest,
            p_value=None if worst is None else worst.p_value,
            outlook=Outlook(partial(settling, told, self.quantity, None if shown is None else shown[0])),
        )


def robust(
    setup: TrainingSetup,
    strategy: Strategy,
    sides: Sides,
    quantity: Quantity,
    options: Options,
    says: tuple[str, str],
    what: str,
) -> Verdict:
    """Return the verdict on "quantity ≈ under every δ"; `says` is the verb, affirmed and denied."""
    tolerance = options.tolerance
    holds, fails = (f"{quantity} {verb} {what}, {tolerance}" for verb in says)

    def judge(reference: Reading, reading: Reading) -> Judgement:
        return close(quantity, reference, reading, tolerance)

    return Property(setup, strategy, sides, quantity, judge, holds, fails).searched(options)


def _counting(watch: Watch | None, trained: Callable[[], int]) -> Watch | None:
    """Return `watch` told also of the runs trained, which only the experiments know."""
    return None if watch is None else lambda progress: watch(replace(progress, runs=trained()))


def _know_limit(experiment: Experiment, result: Searched) -> None:
    """Have the experiment know what it takes to say how many more steps would settle the limit."""
    open_ = result.undecided[0] if result.undecided and not result.minimal else IDENTITY
    if experiment.excerpt(open_) is None:
        experiment.fresh([open_])


def _status(result: Searched) -> Status:
    if result.minimal is not None:
        return Status.FAIL
    return Status.INCONCLUSIVE if result.undecided is not None or result.unconfirmed else Status.PASS
