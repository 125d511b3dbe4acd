"""How a failure is made smaller, in rounds of one batch each: parts dropped, ladders of magnitudes, other seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from alignment_checks.judgement import Status
from alignment_checks.knowledge import RIVALS, Knowledge, active, line_of, order
from alignment_checks.lines import ALL, Line
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.rounds import Plan
from alignment_checks.sampling import Domain

ROUNDS = 16
"""Rounds of shrinking at most."""
PATH = (1.0, 0.97, 0.93, 0.87, 0.8, 0.65, 0.5, 0.25)
"""How far all parts go together toward where each of them could go by itself."""


class Shrinking:
    """What to judge next of what is known to fail.

    Parameters
    ----------
    state : Knowledge
    plan : Plan
    resolution : float in (0, 1)
    domain : Domain
        Where magnitudes may go.
    """

    def __init__(self, state: Knowledge, plan: Plan, resolution: float, domain: Domain) -> None:
        self.state, self.plan, self.resolution, self.domain = state, plan, resolution, domain

    def drop_components(self) -> None:
        """Try the proper subsets of the smallest failing compositions, and of the largest, all at once."""
        composed = [delta for delta in self.state.failing() if len(active(delta)) > 1]
        tried = [*composed[: self.plan.rivals], *composed[-2:]]
        self.state.judge(assembled(list(subset)) for delta in tried for subset in _subsets(active(delta)))
        self.state.judge(assembled(active(delta)) for delta in self.state.failing())

    def descend(self, seeds: Sequence[int]) -> None:
        """Shrink the magnitudes of the smallest failures of each kind side by side, a ladder of each in a round.

        Other seeds of δ's own randomness are tried along with the second round, where the first one's ladders tell
        about where the property begins to fail; those that fail there are followed too.
        """
        lines = [self._line(delta) for delta in self._rivals()]
        self.state.judge(line.delta for line in lines)
        for round_ in range(ROUNDS):
            tries = [(line, self._rungs(line)) for line in lines]
            fresh = self._fresh(lines, seeds) if round_ == 1 else []
            if round_ > 1 and not any(moves for _, moves in tries):
                break
            curve = self._curve(self._expected(lines)) if round_ == 2 and lines else []
            self.state.judge([*(line.moved(move) for line, moves in tries for move in moves), *fresh, *curve])
            lines = self._worth_going_on([*self._stepped(tries), *self._worst(fresh)])

    def reseed(self, seeds: Sequence[int]) -> None:
        """Try the smallest failure just below its magnitude at other seeds, and follow those that fail there too."""
        fresh = self._reseeded(Line.at(self.state.failing()[0], 0.0), {ALL: 1 - self.resolution}, seeds)
        self.state.judge(fresh)
        lines = self._worst(fresh)
        for _ in range(ROUNDS):
            tries = [(line, self._rungs(line)) for line in lines]
            if not any(moves for _, moves in tries):
                break
            self.state.judge(line.moved(move) for line, moves in tries for move in moves)
            lines = self._worth_going_on(self._stepped(tries))

    def climb(self) -> None:
        """Judge what is missing of a ladder from 0 to the limit on the line of the smallest failure."""
        self.state.judge(self._curve(self.state.failing()[0]))

    # ---------------------------------------------------------------------------------------------------- along lines

    def _rivals(self) -> list[Perturbation]:
        """Return the smallest failures, at different seeds: several of the first kind, up to two of every other."""
        first, *others = [
            sorted({line_of(delta): delta for delta in reversed(deltas)}.values(), key=order)
            for deltas in self.state.kinds().values()
        ]
        chosen = first[: self.plan.rivals]
        return [*chosen, *(delta for deltas in others[:RIVALS] for delta in deltas[: min(2, self.plan.rivals)])]

    def _expected(self, lines: Sequence[Line]) -> Perturbation:
        """Return where the line is now that is expected to end as the smallest."""
        return min(lines, key=lambda line: order(line.moved(line.expected(self.resolution)))).delta

    def _curve(self, minimal: Perturbation) -> list[Perturbation]:
        """Return the magnitudes of the degradation curve; none for several parts.

        Once other seeds have been tried, it is likely which line will end as the smallest: its curve is judged along
        with the next round, and `climb` has seldom anything left to do.
        """
        if len(minimal.parts) > 1 or not minimal.continuous:
            return []
        top = math.copysign(minimal.limit or 0.0, minimal.magnitude or 0.0)
        ladder = [minimal.at(top * (rung / self.plan.curve)) for rung in range(1, self.plan.curve + 1)]
        return list(filter(self.domain.holds, ladder))

    def _line(self, delta: Perturbation) -> Line:
        return Line.at(assembled(active(delta)), self.state.known[delta].severity)

    def _fresh(self, lines: Sequence[Line], seeds: Sequence[int]) -> list[Perturbation]:
        """Return the smallest failure at other seeds, about where its line is expected to cease to fail."""
        if not lines:
            return []
        smallest = min(lines, key=lambda line: order(line.delta))
        return self._reseeded(smallest, smallest.expected(self.resolution), seeds)

    def _reseeded(self, line: Line, move: Mapping[int, float], seeds: Sequence[int]) -> list[Perturbation]:
        if not self.domain.whole or not line.low or not any(part.seeded for part in line.delta.parts):
            return []
        own = line.moved(move)
        return [own, *(_reseeded(own, seed) for seed in seeds)] if seeds else []

    def _worst(self, fresh: Sequence[Perturbation]) -> list[Line]:
        """Return the lines of those that fail most: they are likely to fail at smaller magnitudes too.

        The first is at the seed that is followed anyway; where others come to the same, their randomness has no effect.
        """
        own = self.state.known[fresh[0]].value if fresh else math.nan
        known = [(delta, self.state.known[delta]) for delta in fresh[1:]]
        failing = [delta for delta, judgement in known if judgement.status is Status.FAIL and judgement.value != own]
        worst = sorted(failing, key=lambda delta: -self.state.known[delta].severity)
        return [self._line(delta) for delta in worst[: self.plan.rivals]]

    def _rungs(self, line: Line) -> list[dict[int, float]]:
        rungs = line.rungs(self.resolution, self.plan.rungs)
        return [move for move in rungs if self.domain.holds(line.moved(move))]

    def _stepped(self, tries: Sequence[tuple[Line, list[dict[int, float]]]]) -> list[Line]:
        """Return the lines after their rungs were judged: better resolved, and moved to the smallest that fails.

        Where several parts can each go down by themselves, going down together is judged first, in one batch.
        """
        found = []
        for line, moves in tries:
            judged = [(move, self.state.known[line.moved(move)], self._fails(line, move)) for move in moves]
            narrowed, least = line.narrowed(judged)
            together = [move for move, _, failed in judged if ALL in move and failed]
            path = [move for move in _path(least) if self.domain.holds(line.moved(move))]
            found.append((narrowed, [*({i: f} for i, f in least.items() if f < 1), *together], path))
        self.state.judge(line.moved(move) for line, _, path in found for move in path)
        return [self._moved(line, [*moves, *path]) for line, moves, path in found]

    def _moved(self, line: Line, moves: Sequence[dict[int, float]]) -> Line:
        failing = [move for move in moves if self._fails(line, move)]
        if not failing:
            return line
        best = min(failing, key=lambda move: order(line.moved(move)))
        return line.stepped(best, self.state.known[line.moved(best)].severity)

    def _fails(self, line: Line, move: Mapping[int, float]) -> bool:
        return self._fails_alike(line.moved(move), line.delta)

    def _fails_alike(self, delta: Perturbation, other: Perturbation) -> bool:
        judgement = self.state.known[delta]
        alike = (judgement.deviation > 0) == (self.state.known[other].deviation > 0)
        return judgement.status is Status.FAIL and alike

    def _worth_going_on(self, lines: Sequence[Line]) -> list[Line]:
        """Drop the lines that cannot end below the smallest known failure of their kind."""
        best = {kind: order(deltas[0]) for kind, deltas in self.state.kinds().items()}
        return [line for line in lines if order(line.lowest()) <= best.get(self.state.kind(line.delta), (0, 0.0))]


def _path(least: Mapping[int, float]) -> list[dict[int, float]]:
    """Return the moves of all parts toward the smallest fraction of each; none where only one can move."""
    if sum(fraction < 1 for fraction in least.values()) < 2:
        return []
    return [{i: 1 - way * (1 - fraction) for i, fraction in least.items()} for way in PATH]


def _reseeded(delta: Perturbation, seed: int) -> Perturbation:
    return assembled([replace(part, seed=seed) if part.seeded else part for part in delta.parts])


def _subsets(parts: Sequence[Perturbation]) -> list[tuple[Perturbation, ...]]:
    """Return the proper subsets: all of them while they are few, else the smallest and the largest."""
    sizes = range(1, len(parts)) if len(parts) <= 4 else (1, len(parts) - 1)
    return [subset for size in sizes for subset in combinations(parts, size)]
