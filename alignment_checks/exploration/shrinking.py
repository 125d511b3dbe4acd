"""How a failure is made smaller, in rounds of one batch each: parts dropped, ladders of magnitudes, other seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, islice
from random import Random

from alignment_checks.exploration.knowledge import RIVALS, Knowledge, line_of, order
from alignment_checks.exploration.lines import ALL, Line, shortened
from alignment_checks.exploration.prospects import expected, is_unseeded, nearly
from alignment_checks.exploration.rounds import Plan
from alignment_checks.exploration.sampling import Domain, kind_of
from alignment_checks.inference.judgement import Status
from alignment_checks.perturbations import Perturbation
from alignment_checks.perturbations.composition import acting, active, assembled
from alignment_checks.perturbations.value import LARGEST_SEED

ROUNDS = 16
"""Rounds of shrinking at most."""
ALIKE = 2
"""How many other seeds that come to the same at the same magnitudes show that seeds have no effect."""
FINEST = 64
"""Rungs of a ladder where no more runs come of them than of a coarse one: most rates flip the same few labels."""


class Shrinking:
    """What to judge next of what is known to fail.

    Parameters
    ----------
    state : Knowledge
    plan : Plan
    resolution : float in (0, 1)
    domain : Domain
        Where magnitudes may go.
    random : Random
        Of the seeds that are tried.
    """

    def __init__(self, state: Knowledge, plan: Plan, resolution: float, domain: Domain, random: Random) -> None:
        self.state, self.plan, self.resolution, self.domain = state, plan, resolution, domain
        self.random, self.tried, self.alike = random, 0, False

    def drop_components(self) -> None:
        """Try the proper subsets of the smallest failing compositions, and of the largest, all at once.

        Of the largest it tries also what is left without any family that fails in a smaller one, and may hide another.
        What a filter or an assumption leaves out is not seen: there, only families that were drawn together are tried.
        """
        composed = [delta for deltas in self.state.kinds().values() for delta in deltas if len(active(delta)) > 1]
        tried = dict.fromkeys([*composed[: self.plan.rivals], *composed[-2:]])
        fewer = [assembled(list(subset)) for delta in tried for subset in subsets(active(delta))]
        held = list(filter(self.domain.holds, [*fewer, *self._masked()]))
        self.state.judge(held if self.state.allows(held, self.plan.curve) else [])
        self.state.judge(assembled(active(delta)) for delta in self.state.failing())

    def _masked(self) -> list[Perturbation]:
        """Return the largest failing composition without what is known to fail; none of a single part."""
        guilty = {family for families, _ in self.state.kinds() for family in families}
        left = [part for part in active(self.state.failing()[-1]) if kind_of(part) not in guilty]
        return [assembled(left)] * (len(left) > 1)

    def descend(self) -> None:
        """Shrink the magnitudes of the smallest failures of each kind side by side, in rounds of ladders.

        What the ladders leave of a round is filled with other seeds of δ's own randomness, about where the smallest
        failure is expected to cease to fail; those that fail there are followed too. It ends when no line can go down
        further, and enough seeds have been tried.
        """
        lines = [self._line(delta) for delta in self._rivals()]
        self.state.judge(line.delta for line in lines)
        for _ in range(ROUNDS):
            tries = self._tries(lines)
            moved = [line.moved(move) for line, moves in tries for move in moves]
            ends = self._ends(lines) if self.state.untrained(moved) else []
            runs = self.state.untrained([*moved, *ends])
            own, fresh = self._fresh(lines, self.plan.width - runs) if runs or not moved else ([], [])
            if not (moved or fresh) or not self.state.allows([*moved, *ends, *fresh], self.plan.curve):
                break
            tries = [(line, [*moves, *(own if line.delta == self._smallest() else [])]) for line, moves in tries]
            self.state.judge([*moved, *ends, *fresh])
            lines = self._worth_going_on([*self._stepped(tries), *self._worst(fresh, led=bool(own))])

    def curve(self) -> list[Perturbation]:
        """Return a ladder from 0 to the limit on the line of each kind's smallest failure; none for several parts.

        Of a further kind it leaves out the rungs that something known is next to: shrinking tried what is on its line.
        """
        first, *others = (assembled(active(deltas[0])) for deltas in islice(self.state.kinds().values(), RIVALS))
        ladders = [self._ladder(first), *(self._gaps(self._ladder(other)) for other in others)]
        chosen = [ladder for i, ladder in enumerate(ladders) if self.state.allows(chain(*ladders[: i + 1]))]
        return list(chain(*chosen))

    def _ladder(self, delta: Perturbation) -> list[Perturbation]:
        rungs = [self._at(delta, rung / self.plan.curve) for rung in range(1, self.plan.curve + 1)]
        return [rung for rung in rungs if rung is not None and self.domain.holds(rung)]

    def _gaps(self, ladder: Sequence[Perturbation]) -> list[Perturbation]:
        """Return the rungs of a ladder that are farther than half a step from all that is known on its line."""
        if not ladder:
            return []
        line = [acting(delta) for delta in self.state.known if line_of(delta) == line_of(ladder[0])]
        known = [delta.magnitude or 0.0 for delta in line]
        half = (ladder[0].limit or 0.0) / self.plan.curve / 2
        return [rung for rung in ladder if all(abs((rung.magnitude or 0.0) - at) > half for at in known)]

    def _ends(self, lines: Sequence[Line]) -> list[Perturbation]:
        """Return the curves' ends, lest one turn out to be the worst when all that is reported was trained afresh."""
        ends = [self._at(line.delta, 1.0) for line in lines]
        return [end for end in ends if end is not None and self.domain.holds(end)]

    def _at(self, delta: Perturbation, fraction: float) -> Perturbation | None:
        """Return one that may go anywhere on its line at a fraction of its limit; None of several parts."""
        if len(delta.parts) > 1 or not delta.continuous:
            return None
        return delta.at(math.copysign(delta.limit or 0.0, delta.magnitude or 0.0) * fraction)

    # ---------------------------------------------------------------------------------------------------- along lines

    def _rivals(self) -> list[Perturbation]:
        """Return the smallest failures, at different seeds: several of the first kind, up to two of every other.

        Of what draws nothing there are two sides at most, and the smaller failure may be on either.
        """
        first, *others = [
            sorted({line_of(delta): delta for delta in reversed(deltas)}.values(), key=order)
            for deltas in self.state.kinds().values()
        ]
        wanted = [(first, self.plan.rivals), *((deltas, min(2, self.plan.rivals)) for deltas in others[:RIVALS])]
        sides = [2 * is_unseeded(assembled(active(deltas[0]))) for deltas, _ in wanted]
        return [d for (deltas, most), two in zip(wanted, sides, strict=True) for d in deltas[: max(most, two)]]

    def _smallest(self) -> Perturbation:
        """Return the smallest failure, without the parts that do nothing."""
        return assembled(active(self.state.failing()[0]))

    def _line(self, delta: Perturbation) -> Line:
        return Line.at(assembled(active(delta)), self.state.known[delta].severity)

    def _fresh(self, lines: Sequence[Line], room: int) -> tuple[list[dict[int, float]], list[Perturbation]]:
        """Return the smallest failure at other seeds, about where it is expected to cease to fail.

        The first is at its own seed, by the move along its line that is returned beside them. Once enough seeds were
        tried, those that nearly failed are left.
        """
        smallest = self._smallest()
        if room < 2 or not self._reseedable(smallest):
            going = any(not line.resolved(self.resolution) for line in lines)
            return [], self.state.within(self._nearly(smallest), max(0, room)) if going else []
        line = next((one for one in lines if one.delta == smallest), Line.at(smallest, 0.0))
        first, *moves = line.below(self.resolution, room)
        below = [line.moved(move) for move in [first] * ALIKE + moves[: room - ALIKE]]
        others = [_reseeded(delta, self.random.randrange(LARGEST_SEED + 1)) for delta in below]
        found = self.state.within([line.moved(first), *self._nearly(smallest), *others], room)
        self.tried += len(found)
        return [first], found

    def _reseedable(self, delta: Perturbation) -> bool:
        parts = delta.parts if self.domain.whole and self.tried < self.plan.seeds else ()
        return any(part.seeded for part in parts) and any(part.continuous for part in parts)

    def _worst(self, fresh: Sequence[Perturbation], *, led: bool) -> list[Line]:
        """Return the lines of those that are expected to fail at the smallest magnitudes too.

        Where one leads that is at the seed that is followed anyway, and others come to the same, their randomness has
        no effect.
        """
        own = self.state.known[fresh[0]].value if led else math.nan
        known = [(delta, self.state.known[delta]) for delta in fresh[led:]]
        same = [judgement.value == own for delta, judgement in known if led and delta.size == fresh[0].size]
        if len(same) >= ALIKE and all(same) and own != self.state.known[fresh[0]].reference:
            self.tried, self.alike = self.plan.seeds, True
        failing = [delta for delta, judgement in known if judgement.status is Status.FAIL and judgement.value != own]
        return sorted(map(self._line, failing), key=self._expected)[: self.plan.followed + 1]

    def _nearly(self, smallest: Perturbation) -> list[Perturbation]:
        if self.alike or not self.domain.whole:
            return []
        return nearly(self.state.known, smallest, self.resolution, lambda delta: self.state.untrained([delta]) > 0)

    def _tries(self, lines: Sequence[Line]) -> list[tuple[Line, list[dict[int, float]]]]:
        """Return the moves to judge along each line: as many as fit a round; fewer beside other seeds."""
        going = [line for line in lines if not line.resolved(self.resolution)]
        lowered = [self._lowered(line) for line in lines]
        others = [*self._nearly(self._smallest()), *self._ends(lines)] if going else []
        beside = self.state.untrained(others) + sum(map(len, lowered))
        share = (self.plan.width - beside) // max(1, len(going))
        if any(self._reseedable(line.delta) for line in going):
            share = min(share, self.plan.rungs, self._left_by_seeds(going))
        return [(line, [*low, *self._rungs(line, share)]) for line, low in zip(lines, lowered, strict=True)]

    def _lowered(self, line: Line) -> list[dict[int, float]]:
        """Return the moves of parts to 0, or at once to the least magnitude: no less may be drawn, or do as much."""
        moves = [*line.dropped(self.resolution), *line.lowered(self.domain.least)]
        return [move for move in self._allowed(line, moves) if line.moved(move) not in self.state.known]

    def _left_by_seeds(self, going: Sequence[Line]) -> int:
        """Return how many rungs may be tried before all seeds were, which tell where the least of them fails.

        Several lines, or several parts, take more rounds than seeds do: there seeds fill what the ladders leave.
        """
        alone = len(going) == 1 and len(going[0].low) == 1 and going[0].delta == self._smallest()
        return self.plan.width - (self.plan.seeds - self.tried if alone else 0)

    def _rungs(self, line: Line, count: int) -> list[dict[int, float]]:
        """Return moves that come to `count` runs if there are so many: the ladder is the finer, the more are alike."""
        if count < 1:
            return []
        moves = self._allowed(line, line.rungs(self.resolution, count))
        fine = len(line.low) == 1 and count < FINEST
        finer = self._allowed(line, line.rungs(self.resolution, FINEST)) if fine else []
        if finer and self.state.comes_to(map(line.moved, finer), count):
            return self._ends_of_runs(line, finer)
        coarse = len({self.state.same(line.moved(move)) for move in moves}) < len(moves)
        return self._ends_of_runs(line, self._nearest(line, finer, count)) if finer and coarse else moves

    def _nearest(self, line: Line, moves: Sequence[dict[int, float]], count: int) -> list[dict[int, float]]:
        """Return the moves that come to what is known, or to one of so many runs about where the line ceases to fail.

        Of magnitudes that come to few runs, it is the runs next to that place that tell where it is.
        """
        runs = list(dict.fromkeys(self.state.same(line.moved(move)) for move in moves))
        place = min(moves, key=lambda move: abs(line.moved(move).size - line.expected()))
        at = runs.index(self.state.same(line.moved(place)))
        fresh = [run for run in runs if run not in self.state.trained]
        chosen = set(sorted(fresh, key=lambda run: abs(runs.index(run) - at))[:count])
        return [m for m in moves if (key := self.state.same(line.moved(m))) in chosen or key in self.state.trained]

    def _allowed(self, line: Line, moves: Sequence[dict[int, float]]) -> list[dict[int, float]]:
        """Return the moves that stay in the domain; of one that a filter refuses, as much as it lets pass."""
        found = [move if self.domain.holds(line.moved(move)) else self._shortened(line, move) for move in moves]
        return [move for i, move in enumerate(found) if move and move not in found[:i]]

    def _shortened(self, line: Line, move: Mapping[int, float]) -> dict[int, float]:
        """Return the move up to where a filter refuses it; none where hardly anything is left of it."""
        if not self.domain.conditions or not move.keys() <= {ALL, *line.low}:
            return {}
        found = shortened(move, lambda part: self.domain.holds(line.moved(part)))
        return found if min(found.values()) < 1 - self.resolution else {}

    def _ends_of_runs(self, line: Line, moves: Sequence[dict[int, float]]) -> list[dict[int, float]]:
        """Return the first and the last of consecutive moves that come to the same run."""
        keys = [None, *(self.state.same(line.moved(move)) for move in moves), None]
        return [move for i, move in enumerate(moves) if not keys[i] == keys[i + 1] == keys[i + 2]]

    def _stepped(self, tries: Sequence[tuple[Line, list[dict[int, float]]]]) -> list[Line]:
        """Return the lines after their rungs were judged: better resolved, and moved to the smallest that fails."""
        found = []
        for line, moves in tries:
            judged = [(move, self.state.known[line.moved(move)], self._fails(line, move)) for move in moves]
            found.append(self._moved(line.narrowed(judged), moves))
        return found

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
        """Return the line of each kind's smallest failure, and the most promising of those expected to end below it.

        Of what draws nothing there are two sides at most: the other is followed for as long as it may end below it.
        """
        found = []
        for kind, deltas in self.state.kinds().items():
            smallest = assembled(active(deltas[0]))
            alike = [line for line in lines if self.state.kind(line.delta) == kind]
            own = [line for line in alike if line.delta == smallest] or [self._line(smallest)]
            others = [line for line in alike if line.delta != smallest and order(line.lowest()) <= order(smallest)]
            promising = sorted(others, key=self._expected)
            below = [one for one in promising if self._expected(one)[0] < smallest.size or is_unseeded(one.delta)]
            found += [own[0], *below[: self.plan.followed]]
        return found

    def _expected(self, line: Line) -> tuple[float, float]:
        """Return what lines that are promising come first by: where one is expected to end, and how large it is."""
        return expected(self.state.known, line), line.delta.size


def _reseeded(delta: Perturbation, seed: int) -> Perturbation:
    return assembled([replace(part, seed=seed) if part.seeded else part for part in delta.parts])


def subsets(parts: Sequence[Perturbation]) -> list[tuple[Perturbation, ...]]:
    """Return the proper subsets: all of them while they are few, else the smallest and the largest."""
    sizes = range(1, len(parts)) if len(parts) <= 4 else (1, len(parts) - 1)
    return [subset for size in sizes for subset in combinations(parts, size)]
