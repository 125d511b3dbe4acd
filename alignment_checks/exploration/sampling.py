"""Where in the domain of a strategy to look: its corners, and places spread evenly between them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import cycle, islice, product

import numpy as np
from numpy.typing import NDArray

from alignment_checks.exploration.conditions import Condition, as_drawn
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import active, assembled
from alignment_checks.randomness.seeding import derive

Kind = tuple[str, tuple[tuple[str, object], ...]]
"""A family and its options."""
CORNERS = 64
"""Corners tried of one set of families, at most."""
FILLED = 1.28
"""How many places there are at most for each draw, a prime number of them: of cubes that are a hundredth of three
families' domain, 127 places miss one in a hundred, and a hundred places one in ten."""


def kind_of(part: Perturbation) -> Kind:
    """Return what a single perturbation has in common with others of its family."""
    return part.family, part.options


def shape(delta: Perturbation) -> tuple[Kind, ...]:
    """Return what a perturbation has in common with those that differ in magnitudes and seeds alone."""
    return tuple(map(kind_of, delta.parts))


@dataclass(frozen=True)
class Domain:
    """Where the magnitudes of a strategy lie, as far as its draws show.

    Attributes
    ----------
    whole : bool
        Whether the strategy draws everything up to the limits of its families; what was filtered or mapped does not.
    signed : frozenset of Kind
        The families that were drawn below 0.
    ranges : mapping from (Kind, whether below 0) to (float, float)
        The least and the largest |magnitude| drawn; looked at only where the domain is not whole.
    sets : frozenset of frozenset of Kind
        The families that were drawn together, those at 0 counted and not; looked at only there as well.
    conditions : tuple of callable
        What all that the strategy draws meets, by its filters.
    forms : tuple of Perturbation
        One draw of each set of families, by which conditions are asked of what has fewer parts.
    """

    whole: bool
    signed: frozenset[Kind] = frozenset()
    ranges: dict[tuple[Kind, bool], tuple[float, float]] = field(default_factory=dict)
    sets: frozenset[frozenset[Kind]] = frozenset()
    conditions: tuple[Condition, ...] = ()
    forms: tuple[Perturbation, ...] = ()

    @classmethod
    def of(cls, draws: Iterable[Perturbation], *, whole: bool, conditions: tuple[Condition, ...] = ()) -> Domain:
        """Return the domain that draws show."""
        draws = list(draws)
        sizes: dict[tuple[Kind, bool], list[float]] = {}
        for part in (part for delta in draws for part in delta.parts):
            sizes.setdefault((kind_of(part), (part.magnitude or 0.0) < 0), []).append(abs(part.magnitude or 0.0))
        for kind in [kind for kind, below in sizes if below and 0.0 in sizes.get((kind, False), [])]:
            sizes[kind, True].append(0.0)  # which is of neither side: what is drawn of each reaches down to it
        ranges = {which: (min(found), max(found)) for which, found in sizes.items()}
        sets = {frozenset(shape(delta)) for delta in draws}
        sets |= {frozenset(map(kind_of, active(delta))) for delta in draws}
        signed = frozenset(kind for kind, below in ranges if below)
        forms = tuple({shape(delta): delta for delta in reversed(draws)}.values())
        return cls(whole, signed, ranges, frozenset(sets), conditions, forms)

    def holds(self, delta: Perturbation) -> bool:
        """Return whether its families were drawn together, each part that is not 0 where it lies, and filters agree."""
        moved = active(delta)
        drawn = frozenset(map(kind_of, moved)) in self.sets and all(map(self._holds, moved))
        return self.whole or (drawn and self._meets_conditions(delta))

    def _meets_conditions(self, delta: Perturbation) -> bool:
        whole = as_drawn(delta, self.forms)
        return all(condition(whole) for condition in self.conditions)

    def _holds(self, part: Perturbation) -> bool:
        which = kind_of(part), (part.magnitude or 0.0) < 0
        least, largest = self.ranges.get(which, (0.0, math.inf))
        return least <= abs(part.magnitude or 0.0) <= largest

    def least(self, part: Perturbation) -> float:
        """Return the least |magnitude| that is tried at once: what was drawn of the family, to that side of 0.

        Where all can be drawn, only what may do as much next to 0 as anywhere goes there at once; others are infinity.
        """
        if self.whole:
            return math.inf if part.vanishes else 0.0
        return self.ranges.get((kind_of(part), (part.magnitude or 0.0) < 0), (0.0, math.inf))[0]

    def ends(self, part: Perturbation) -> tuple[float, float]:
        """Return the ends of a single perturbation's domain in units of its limit: (−1 or 0, 1)."""
        return (-1.0 if kind_of(part) in self.signed else 0.0), 1.0


def placed(delta: Perturbation, places: Sequence[float]) -> Perturbation:
    """Return δ with its scalable parts at the given magnitudes, in units of their limits."""
    units = iter(places)
    return assembled([part.at(next(units) * (part.limit or 0.0)) if part.scalable else part for part in delta.parts])


def places(delta: Perturbation) -> list[float]:
    """Return the magnitudes of δ's scalable parts, in units of their limits: what `placed` takes."""
    return [(part.magnitude or 0.0) / (part.limit or 1.0) for part in delta.parts if part.scalable]


# ------------------------------------------------------------------------------------------------------------- corners


def corners(draws: Sequence[Perturbation], domain: Domain) -> list[Perturbation]:
    """Return the corners of each drawn set of families, where the domain reaches to them."""
    if not domain.whole:
        return []
    shapes = {shape(delta): delta for delta in reversed(draws)}
    return [corner for delta in shapes.values() for corner in _corners(delta, domain)[:CORNERS]]


def _corners(delta: Perturbation, domain: Domain) -> list[Perturbation]:
    """Return all at their upper ends, all at their lower ones, the other corners, and each part alone."""
    ends = [domain.ends(part) for part in delta.parts if part.scalable]
    upper, lower = [high for _, high in ends], [low or 1.0 for low, _ in ends]
    alone = [[end * (i == j) for j in range(len(ends))] for i, pair in enumerate(ends) for end in pair]
    vertices = list(product(*[(high, low) for low, high in ends])) if len(ends) <= 8 else []
    found = [placed(delta, at) for at in (upper, lower, *vertices, *alone)]
    return [one for one in dict.fromkeys(found) if not one.is_identity]


# ------------------------------------------------------------------------------------------------------ spread evenly


def spread(draws: Sequence[Perturbation], domain: Domain, random_seed: int) -> list[Perturbation]:
    """Return draws of the same families and seeds, with magnitudes that lie evenly in the domain.

    Hypothesis prefers simple numbers, and independent draws leave gaps: of intervals as wide as a hundredth of the
    domain, a hundred of its draws miss a third. There are up to a quarter more places than
    draws.
    """
    groups: dict[tuple[Kind, ...], list[Perturbation]] = {}
    for delta in draws:
        groups.setdefault(shape(delta), []).append(delta)
    evenly = [_evenly(group, domain, random_seed) for group in groups.values()]
    return [delta for _, _, delta in sorted((rank / len(one), g, d) for g, one in enumerate(evenly) for rank, d in one)]


def _evenly(group: Sequence[Perturbation], domain: Domain, random_seed: int) -> list[tuple[int, Perturbation]]:
    ends = [domain.ends(part) for part in group[0].parts if part.scalable]
    if not domain.whole or not ends:
        return list(enumerate(group))
    random = randomness("spread", random_seed, shape(group[0]))
    points = lattice(_prime(len(group)), len(ends), [random.random() for _ in ends])
    low, high = np.array(ends).T
    seeded = islice(cycle(group), len(points))
    found = zip(seeded, (low + (high - low) * points).tolist(), strict=True)
    return list(enumerate(placed(delta, at) for delta, at in found))


def lattice(count: int, dimensions: int, shift: Sequence[float]) -> NDArray[np.float64]:
    """Return points of [0, 1)^dimensions that lie evenly, any first few of them too, array `[count, dimensions]`.

    A rank-1 lattice of Korobov's form (Sloan and Joe, *Lattice Methods for Multiple Integration*, 1994), its generator
    chosen for the largest distance between neighbors: in each single dimension the points are `count` equal steps.
    """
    steps = _steps(_generator(count, dimensions), count, dimensions)
    first = next(k for k in range(round(0.618 * count), 2 * count) if math.gcd(k, count) == 1) if count > 1 else 1
    index = np.arange(count) * first % count
    points: NDArray[np.float64] = (index[:, None] * steps / count + np.array(shift)) % 1
    return points


@lru_cache
def _generator(count: int, dimensions: int) -> int:
    """Return the multiplier of the lattice whose nearest points are farthest apart, on the torus."""
    candidates = [a for a in range(1, count) if math.gcd(a, count) == 1] or [1]
    index = np.arange(1, max(2, count))
    return max(candidates[:: 1 + len(candidates) // 128], key=lambda a: _nearest(a, index, count, dimensions))


def _nearest(multiplier: int, index: NDArray[np.int64], count: int, dimensions: int) -> float:
    steps = _steps(multiplier, count, dimensions)
    away = index[:, None] * steps / count % 1
    return float((np.minimum(away, 1 - away) ** 2).sum(1).min())


def _steps(multiplier: int, count: int, dimensions: int) -> NDArray[np.int64]:
    return np.array([pow(multiplier, power, count) for power in range(dimensions)])


def _prime(least: int) -> int:
    """Return the largest prime up to a little more than `least`; `least` itself where there is none."""
    top = max(least, int(FILLED * least))
    primes = [n for n in range(least, top + 1) if n > 1 and all(n % k for k in range(2, math.isqrt(n) + 1))]
    return max(primes, default=least)


def randomness(*parts: object) -> random.Random:
    """Return a generator of numbers that depend on `parts` alone."""
    return random.Random(derive(*parts))  # noqa: S311 - no secrets here
