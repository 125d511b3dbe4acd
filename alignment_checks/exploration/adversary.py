"""Rounds that move toward the worst seen while nothing fails: a violation in a pocket of the domain draws them in.

What guides them is severity, the deviation in units of what is allowed: a margin that is a number for what passes too.
Where it is the same everywhere there is nothing to move toward, and only the even spread of the draws counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from alignment_checks.exploration.knowledge import Knowledge
from alignment_checks.exploration.sampling import Domain, placed, places, randomness, shape
from alignment_checks.inference.judgement import Status
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.perturbations.value import LARGEST_SEED

ROUNDS = 4
"""Rounds at most; together they judge at most as many perturbations as were drawn."""
ELITES = 4
"""How many of the worst are followed."""
MOST = 64
"""Perturbations of one round, at most."""


def pursue_worst(state: Knowledge, domain: Domain, examples: int, random_seed: int) -> None:
    """Judge perturbations near the worst ones, in rounds, until one fails or none is in reach.

    A round ends the pursuit if, at the pace at which severity grew, the rounds left could not reach 1.

    Parameters
    ----------
    state : Knowledge
        What was judged; nothing of it fails.
    domain : Domain
        Nothing is moved in one that is not whole.
    examples : int
        The most that is judged, over all rounds.
    random_seed : int
    """
    width = min(MOST, examples // ROUNDS)
    before = _highest(state)
    if not domain.whole or width == 0 or before is None:
        return
    for left in reversed(range(ROUNDS)):
        random = randomness("adversary", random_seed, left)
        proposals = _proposals(state, domain, width, examples, left, random)
        state.planned += len(proposals)
        state.judge(proposals)
        after = _highest(state)
        if state.failing() or after is None or not _within_reach(before, after, left):
            return
        before = after


def _highest(state: Knowledge) -> float | None:
    """Return the largest severity of what passes; None where it is the same for all that were perturbed."""
    found = {j.severity for d, j in state.known.items() if not d.is_identity and math.isfinite(j.severity)}
    return max(found) if len(found) > 1 else None


def _within_reach(before: float, after: float, left: int) -> bool:
    """Return whether severity reaches 1 in the rounds left if it goes on to grow as it did, by steps or by ratios."""
    grows = [after + left * (after - before)]
    grows += [after * (after / before) ** left] if before > 0 else []
    return after > before and max(grows) >= 1


def _proposals(
    state: Knowledge, domain: Domain, width: int, examples: int, left: int, random: Random
) -> list[Perturbation]:
    """Return what to judge next: up the slope and around the elites, the same at other seeds, and crossings."""
    elites = _elites(state)
    reach = max(1, examples) ** (-1 / max(1, len(places(elites[0])))) * 0.6 ** (ROUNDS - 1 - left)
    uphill = [one for elite in elites for one in _uphill(state, domain, elite, reach)]
    others = [_reseeded(elite, random) for elite in elites]
    crossed = [_crossed(random.sample(alike, 2), random) for alike in _alike(elites) for _ in alike]
    found = dict.fromkeys([*uphill, *others, *crossed])
    for _ in range(4 * width):
        if len(found) >= width:
            break
        parent = elites[min(int(random.expovariate(1)), len(elites) - 1)]
        found[_near(parent, domain, reach, random)] = None
    return [one for one in found if one not in state.known and not one.is_identity][:width]


def _elites(state: Knowledge) -> list[Perturbation]:
    known = [(d, j.severity) for d, j in state.known.items() if j.status is not Status.FAIL and not d.is_identity]
    ranked = sorted((one for one in known if math.isfinite(one[1])), key=lambda one: -one[1])
    return [delta for delta, _ in ranked[:ELITES]]


def _alike(elites: Sequence[Perturbation]) -> list[list[Perturbation]]:
    """Return the groups of elites that differ in magnitudes and seeds alone, of two at least."""
    groups: dict[object, list[Perturbation]] = {}
    for elite in elites:
        groups.setdefault(shape(elite), []).append(elite)
    return [group for group in groups.values() if len(group) > 1]


def _uphill(state: Knowledge, domain: Domain, elite: Perturbation, reach: float) -> list[Perturbation]:
    """Return steps of three lengths along the slope of severity, fitted to what was judged nearest to an elite."""
    here = np.array(places(elite))
    alike = [(places(d), j.severity) for d, j in state.known.items() if shape(d) == shape(elite)]
    finite = [(at, severity) for at, severity in alike if math.isfinite(severity)]
    if len(finite) < len(here) + 2 or not len(here):
        return []
    nearest = sorted(finite, key=lambda one: float(((np.array(one[0]) - here) ** 2).sum()))[: 2 * len(here) + 2]
    away = np.array([at for at, _ in nearest]) - here
    rows = np.hstack([away, np.ones((len(away), 1))])
    slope = np.linalg.lstsq(rows, np.array([severity for _, severity in nearest]), rcond=None)[0][:-1]
    steepest = float(np.abs(slope).max())
    if steepest == 0 or not math.isfinite(steepest):
        return []
    return [_clipped(elite, domain, here + length * reach * slope / steepest) for length in (0.5, 1.0, 2.0)]


def _near(parent: Perturbation, domain: Domain, reach: float, random: Random) -> Perturbation:
    return _clipped(parent, domain, np.array([at + random.gauss(0, reach) for at in places(parent)]))


def _clipped(delta: Perturbation, domain: Domain, at: NDArray[np.float64]) -> Perturbation:
    ends = np.array([domain.ends(part) for part in delta.parts if part.scalable]).reshape(-1, 2)
    return placed(delta, np.clip(at, ends[:, 0], ends[:, 1]).tolist())


def _crossed(parents: Sequence[Perturbation], random: Random) -> Perturbation:
    """Return a perturbation with each part from one of its parents."""
    return assembled([random.choice(alike) for alike in zip(*(one.parts for one in parents), strict=True)])


def _reseeded(delta: Perturbation, random: Random) -> Perturbation:
    return assembled([replace(p, seed=random.randrange(LARGEST_SEED + 1)) if p.seeded else p for p in delta.parts])
