"""The keywords that all properties share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import TypedDict

from hypothesis.strategies import SearchStrategy

from alignment_checks.arguments import described, is_int, is_number
from alignment_checks.exploration.progress import Watch
from alignment_checks.inference.chance import LEVEL
from alignment_checks.inference.horizons import HORIZONS, Horizon
from alignment_checks.inference.judgement import Direction, Tolerance
from alignment_checks.measures import Side
from alignment_checks.perturbations import Perturbation
from alignment_checks.properties.memory import Memory
from alignment_checks.runs import BACKENDS
from alignment_checks.training import TrainingSetup, check_setup

Strategy = SearchStrategy[Perturbation]


class Judging(TypedDict, total=False):
    """The keywords common to all checks.

    Attributes
    ----------
    rtol, atol : float
        When x′ ≈ x: |x′ − x| ≤ atol + rtol·|x|. At least one has to be given where a property says "≈".
    side : {"both", "worse"}
        "worse" counts deterioration only. Comparisons and strong alignment have one direction, and refuse the choice.
    normalized : bool, optional
        Judge the dimensionless form. None: literal under Definition 3, dimensionless under Definition 4, and wherever
        setups of different size, objective or mesa-objective are compared. Both are always reported.
    of : {"base", "mesa"}
        Whose capability. α is a ratio of both, strong alignment a bound on L: without that choice, they refuse "mesa".
    examples : int
        Perturbations that Hypothesis draws; 0 judges `first` alone. Their magnitudes are spread over up to 1.28 places
        for each, the corners of the domain are tried as well, and where nothing fails up to as many again, near the
        worst.
    seeds : int or sequence of int
        Repeat over so many seeds (init, minibatch order, dropout), paired: the same seed with δ and without. What fails
        is confirmed over as many other seeds, which took no part in finding it. With one seed, the verdict is about
        that one run and says nothing of others. Training that does not depend on the seed needs, and takes, one.
    horizon : {"finite", "limit"}
        Judge C_T and α_T at the setup's steps, or their limits as T → ∞, whose intervals then decide. That of one
        random run is one of confidence: what fails by it is corrected for the number searched, as no other seeds
        confirm it.
    level : float
        How often chance alone, in the seeds or in such a limit, may make a property that holds fail. A pass rests on 95
        % intervals.
    resolution : float
        Relative resolution of the smallest failing magnitude.
    random_seed : int
        Of the draws: the same seed draws the same perturbations everywhere.
    device, backend : str
        As in `run`.
    first : sequence of Perturbation
        Tried before any drawn one, and after `delta`.
    max_time : float, optional
        Seconds that the search may take, looked at before each batch: once they are over, the best failure so far is
        reported, and the verdict says "stopped early". A pass then holds for what was tried by then, and says how much
        of the plan that is; 0 and the limits of the families are always tried.
    watch : callable, optional
        Told of the search's `alignment_checks.exploration.progress.Progress` before each batch trains, and after it.
    memory : alignment_checks.properties.memory.Memory, optional
        Remembers what was trained: pass the same one to several checks, and none trains what another has.
    shrink : bool
        Shrink also what fails of `delta` or of `first` with `examples=0`, which are else judged as they are.
    drawn_from : sequence of strategies of Perturbation
        What drew `delta`: it is shrunk to what their filters let through.
    """

    rtol: float
    atol: float
    side: Direction
    normalized: bool | None
    of: Side
    examples: int
    seeds: int | Sequence[int]
    resolution: float
    random_seed: int
    device: str
    backend: str
    first: Sequence[Perturbation]
    max_time: float | None
    watch: Watch | None
    memory: Memory | None
    shrink: bool
    drawn_from: Sequence[Strategy]
    horizon: Horizon
    level: float


_CHOICES: dict[str, tuple[tuple[object, ...], str]] = {
    "of": (("base", "mesa"), "'base' (the designer's L) or 'mesa' (the process's own G)"),
    "normalized": ((None, True, False), "True, False, or None for the form that the property is judged in by default"),
    "backend": (BACKENDS, f"one of {', '.join(BACKENDS)}"),
    "horizon": (HORIZONS, "'finite' (C_T at the setup's steps) or 'limit'"),
}


@dataclass(frozen=True)
class Options:
    """`Judging`, with its defaults, checked once."""

    rtol: float | None = None
    atol: float = 0.0
    side: Direction = "both"
    normalized: bool | None = None
    of: Side = "base"
    examples: int = 100
    seeds: int | Sequence[int] = 1
    resolution: float = 0.01
    random_seed: int = 0
    device: str = "auto"
    backend: str = "auto"
    first: Sequence[Perturbation] = ()
    max_time: float | None = None
    watch: Watch | None = None
    memory: Memory | None = None
    shrink: bool = False
    drawn_from: Sequence[Strategy] = ()
    horizon: Horizon = "finite"
    level: float = LEVEL

    def __post_init__(self) -> None:
        for name, (values, wanted) in _CHOICES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"`{name}` must be {wanted}; got {getattr(self, name)!r}")
        if not is_int(self.examples) or self.examples < 0:
            raise ValueError(f"`examples` must be an int, at least 0; got {self.examples!r}")
        if not is_number(self.resolution) or not 0 < self.resolution < 1:
            raise ValueError(f"`resolution` must be a number between 0 and 1; got {self.resolution!r}")
        if self.max_time is not None and not (is_number(self.max_time) and self.max_time > 0):
            raise ValueError(f"`max_time` must be a number of seconds above 0, or None; got {self.max_time!r}")
        if not is_number(self.level) or not 0 < self.level <= 0.5:
            raise ValueError(f"`level` must be a number above 0, at most 0.5; got {self.level!r}")
        _check_seeds(self.random_seed, self.seeds)
        Tolerance(0.0 if self.rtol is None else self.rtol, self.atol, self.side)

    @classmethod
    def of_keywords(cls, judging: Judging) -> Options:
        """Return what the keywords of a check say; raise TypeError where one is none."""
        known = [field.name for field in fields(cls)]
        for name in judging:
            if name not in known:
                public = [one for one in known if one not in _BETWEEN_US]
                raise TypeError(f"got an unexpected keyword argument {name!r}: {_meant(name, public)}")
        return cls(**judging)

    def alone(self, delta: Perturbation | None) -> Options:
        """Return these options for one given perturbation: tried before `first`, with no draws, shrunk where asked."""
        if delta is None:
            return self
        return replace(self, examples=0, first=(delta, *(other for other in self.first if other != delta)))

    @property
    def beside(self) -> Sequence[Perturbation]:
        """What is judged for its own sake beside a given perturbation: not what only helps to shrink it."""
        return () if self.shrink else tuple(self.first)

    def undivided(self, why: str) -> Options:
        """Return these options for a property that is not of one side, and has no `of` to choose."""
        if self.of != "base":
            raise ValueError(
                f"{why}: there is no `of` to choose; got of={self.of!r}. Leave it out, or judge C_M alone: "
                "capability_robust(..., of='mesa')"
            )
        return self

    def one_sided(self, why: str) -> Options:
        """Return these options for a property that has one direction, and no `side` to choose."""
        if self.side != "both":
            raise ValueError(f"{why}: there is no `side` to choose; got side={self.side!r}. Leave it out")
        return self

    @property
    def tolerance(self) -> Tolerance:
        """When x′ ≈ x."""
        if self.rtol is None and self.atol == 0:
            raise ValueError("say how close counts as ≈: pass rtol= (such as rtol=0.1), atol=, or both")
        return Tolerance(self.rtol or 0.0, self.atol, self.side)

    @property
    def margin(self) -> Tolerance:
        """By how much one setup has to beat another, or L may be above a bound: nothing, unless said."""
        return Tolerance(self.rtol or 0.0, self.atol)

    def seeds_of(self, setup: TrainingSetup) -> list[int]:
        """Return the seeds to run: the setup's own and those that follow it, or those given."""
        return [setup.seed + i for i in range(self.seeds)] if isinstance(self.seeds, int) else list(self.seeds)


_BETWEEN_US = frozenset({"drawn_from", "memory", "shrink", "watch"})
"""Keywords for those who build upon the checks, as the pytest plugin does: no test needs them."""
_ELSEWHERE = {
    **dict.fromkeys(("mesa_under", "base_under"), "it is for capability_robust, alignment_robust and inner_aligned"),
    "under": "a property that generalizes takes `to`, a strategy of objectives; a comparison takes none",
    "to": "it is for capability_generalizes and alignment_generalizes; a strategy goes to `under` here",
    "floor": "it is for inner_aligned",
    "worst": "it is for strongly_aligned",
    "within": "it is for strongly_aligned",
    "than": "it is for more_capable and better_aligned",
    "delta": "a comparison takes none",
}
"""Keywords of single properties, for whoever gives them to another."""


def _meant(name: str, known: list[str]) -> str:
    """Return what was perhaps meant by a keyword that there is none of."""
    like = get_close_matches(name, known, 1)
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    return f"did you mean `{like[0]}`?" if like else f"expected some of {', '.join(known)}"


def _check_seeds(random_seed: int, seeds: int | Sequence[int]) -> None:
    if not is_int(random_seed):
        raise ValueError(f"`random_seed` must be an int; got {random_seed!r}")
    if isinstance(seeds, (bool, str)) or not isinstance(seeds, (int, Sequence)):
        raise TypeError(f"`seeds` must be an int, or a sequence of seeds; got {described(seeds)}")
    if isinstance(seeds, int) and seeds < 1:
        raise ValueError(f"`seeds` must be at least 1, or a sequence of seeds; got {seeds!r}")
    if isinstance(seeds, Sequence) and not (seeds and all(isinstance(seed, int) and seed >= 0 for seed in seeds)):
        raise ValueError(f"`seeds` must be ints from 0, at least one; got {seeds!r:.60}")
    if isinstance(seeds, Sequence) and len(set(seeds)) < len(seeds):
        raise ValueError(
            f"`seeds` must be distinct: repeating a run is no further evidence; got {seeds!r:.60}. Name each once"
        )


def shortest(*setups: TrainingSetup) -> int:
    """Return the T of these setups, the least where they differ; raise TypeError if one is no setup."""
    for setup in setups:
        check_setup(setup)
    return min(setup.steps for setup in setups)


def check_number(name: str, value: float) -> None:
    """Raise ValueError if an argument is no number."""
    if not is_number(value) or math.isnan(value):
        raise ValueError(f"`{name}` must be a number; got {value!r}")
