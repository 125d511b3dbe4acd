"""What is reported of a search: failures that were trained afresh and failed again, and what else became of it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from alignment_checks.exploration.knowledge import RIVALS, Evaluate, Knowledge, line_of, order
from alignment_checks.exploration.progress import Judged
from alignment_checks.inference.chance import corrected
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.composition import acting

CONFIRMATIONS = 3
"""How often other perturbations are confirmed where none of the first was, if chance has a part in it."""
SPENT = 0.75
"""The part of the level that is left which each such time spends."""
LOOKS = 6
"""So many that scatter over seeds left open are looked at again: where more are, the tolerance lies where the truth
does, and other seeds would leave it open too."""
SURE = 0.01
"""By chance alone, what does not hold may be so far inside on the seeds of such a look, counted on both sides."""
Curve = tuple[tuple[float, Judgement], ...]
"""What was judged at each magnitude."""


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes
    ----------
    minimal, worst : (Perturbation, Judgement) or None
        The smallest failing perturbation and the worst; both failed again when trained afresh.
    others : tuple of (Perturbation, Judgement)
        The smallest failure of every other kind: other families, or a deviation to the other side.
    curve : tuple of (magnitude, Judgement)
        What was judged at the seed of the smallest, from 0 to the limit; empty where it has several parts.
    curve_others : tuple of tuple of (magnitude, Judgement)
        The same of each of `others`.
    undecided : (Perturbation, Judgement) or None
        Of those that could not be judged, the most severe; the smallest, where none has a number.
    open : int
        How many could not be judged.
    holds_up_to : float or None
        The largest magnitude below which everything tried of the one family held; None where there is no one family.
    judged : int
        Perturbations judged.
    launches : int
        Batches evaluated one after the other.
    unconfirmed : tuple of (Perturbation, Judgement)
        Failed once, and not when trained afresh.
    looked_again : tuple of (Perturbation, Judgement)
        What the seeds of the search left open, as other seeds judge it.
    nearest : (Perturbation, Judgement) or None
        Where nothing failed: the most severe of what passed.
    planned : int
        Perturbations that are judged where nothing fails.
    stopped : bool
        Whether the time ran out first.
    confirmed : bool
        Whether what failed was trained afresh; only a search that ran out of time leaves that out.
    """

    minimal: Judged | None
    worst: Judged | None
    others: tuple[Judged, ...]
    curve: Curve
    curve_others: tuple[Curve, ...]
    undecided: Judged | None
    holds_up_to: float | None
    judged: int
    launches: int
    open: int = 0
    unconfirmed: tuple[Judged, ...] = ()
    looked_again: tuple[Judged, ...] = ()
    nearest: Judged | None = None
    planned: int = 0
    stopped: bool = False
    confirmed: bool = True

    @property
    def perturbed(self) -> bool:
        """Whether anything but the unperturbed run was judged."""
        told = [one for one in (self.minimal, self.nearest, self.undecided, *self.unconfirmed) if one is not None]
        return self.judged > 1 or not all(delta.is_identity for delta, _ in told)


class Confirmation:
    """Trains what a search found afresh, and says what is to be reported.

    Parameters
    ----------
    state : Knowledge
        All that the search judged.
    """

    def __init__(self, state: Knowledge) -> None:
        self.state, self.chance = state, state.chance
        self.confirmed: dict[Perturbation, Judgement] = {}
        self.unconfirmed: list[Judged] = []
        self.looked_again: list[Judged] = []

    def outcome(self, confirm: Evaluate, beside: Sequence[Perturbation] = ()) -> Searched:
        """Train the smallest of each kind and the worst failures afresh, and return what was found.

        Where chance has a part in them, `confirm` judges by seeds that took no part in the search, and the level is
        shared among those that it judges: however many were searched, no more were tested. Where there are no other
        seeds, all that can be searched count.

        Where the time is over, what failed is returned as it is: `Searched.confirmed` is False. What chance has a part
        in then counts as unconfirmed. `beside` is judged in the first batch of `confirm`.

        Where nothing failed, what scatter over seeds left open is looked at again: see `_look_again`.
        """
        self._count_all(beside)
        left = 1.0
        for chosen in self._doubtful():
            if not self.state.budget.affords():
                return self._out_of_time(chosen)
            left_over = [] if self.confirmed or self.unconfirmed else self.state.new(beside)
            self.state.tell([*chosen, *left_over], confirming=True)
            share, left = SPENT * left, (1 - SPENT) * left
            found = confirm([*chosen, *left_over])
            self.state.learn(left_over, found[len(chosen) :])
            self._note(chosen, self._allowed(found[: len(chosen)], share))
        self._look_again(confirm)
        return self._found()

    def _count_all(self, beside: Sequence[Perturbation]) -> None:
        """Allow for all that are judged, where they are more than was foreseen and no other seeds confirm."""
        foreseen, judged = self.chance.among, len(self.state.trained) + self.state.untrained(beside)
        if foreseen is not None and judged > foreseen:
            known, self.chance = self.state.known, replace(self.chance, among=judged)
            self.state.chance = self.chance
            self.state.known = {d: self.chance.allowing(j, judged, foreseen) for d, j in known.items()}

    def _allowed(self, judgements: Sequence[Judgement], share: float) -> list[Judgement]:
        """Return what was judged afresh, allowing for how many that are."""
        if self.chance.among is not None:
            return [self.chance.allowing(judgement, self.chance.among) for judgement in judgements]
        return corrected(judgements, self.chance.level, share)

    def _note(self, chosen: Sequence[Perturbation], judgements: Sequence[Judgement]) -> None:
        for delta, judgement in zip(chosen, judgements, strict=True):
            if judgement.status is Status.FAIL:
                self.confirmed[delta] = judgement
            elif self.chance.among is not None and judgement.p_value is not None:
                self.state.doubt(delta, judgement)  # it is outside again, and that may be chance
            else:
                self.unconfirmed.append((delta, judgement))
                self.state.forget(delta)

    def _look_again(self, confirm: Evaluate) -> None:
        """Judge what scatter over seeds left open once more, by the seeds that confirm, and by those alone.

        Of a hundred perturbations that hold, one that happens to scatter widely would leave the whole property open. It
        was picked for what its own seeds show; the others took no part in that, so they alone are an honest sample, and
        the two together would not be. What does not hold passes by chance at the first look in 2.5 % of the cases, the
        part of a 95 % interval on the side where that is wrong, and here, by a 99 % interval, in 0.5 %: in 3 %
        together, as there is no third look. Of the level for failures nothing was spent until here: these share it.
        """
        chosen = self._open()
        if not chosen or self.state.stopped:
            return
        if not self.state.budget.affords():
            self.state.stopped = True
            for delta in chosen:
                self.state.doubt(delta, replace(self.state.known[delta], needs="more time to ask other seeds"))
            return
        self.state.tell(chosen, confirming=True)
        for delta, found in zip(chosen, corrected(confirm(chosen), self.chance.level), strict=True):
            sure = found.p_inside is None or found.p_inside <= SURE
            judgement = found if sure else replace(found, status=Status.INCONCLUSIVE)
            self.looked_again.append((delta, judgement))
            if judgement.status is Status.FAIL:
                self.confirmed[delta] = judgement
            if judgement.status is not Status.INCONCLUSIVE:
                self.state.doubt(delta, judgement)

    def _open(self) -> list[Perturbation]:
        """Return what is worth looking at again: nothing where the verdict is another, or stays open, in any case."""
        open_ = self._undecided()
        runs: dict[Hashable, Perturbation] = {}
        for delta in sorted(open_, key=order):
            runs.setdefault(self.state.same(delta), delta)
        hopeless = not all(judgement.scattered for judgement in open_.values()) or len(runs) > LOOKS
        decided = self.confirmed or self.unconfirmed or self.chance.among is not None
        return [] if decided or hopeless else list(runs.values())

    def _doubtful(self) -> Iterator[list[Perturbation]]:
        """Yield, round by round, what is to be confirmed, until all that is reported was."""
        for rounds in count():
            chosen = [delta for delta in self._candidates() if delta not in self.confirmed]
            by_chance = any(self._by_chance(delta) for delta in chosen)
            if not chosen or (by_chance and (self.confirmed or rounds == CONFIRMATIONS)):
                return
            yield chosen

    def _by_chance(self, delta: Perturbation) -> bool:
        """Return whether other seeds have to confirm a failure."""
        return self.chance.confirmable(self.state.known[delta].p_value)

    def _candidates(self) -> list[Perturbation]:
        """Return the smallest failure of each kind, and the worst; where chance has a part, larger ones as well.

        A smallest failure owes something to the luck of its seeds: others are not likely to confirm it.
        """
        if not self.state.failing():
            return []
        first, *others = self.state.kinds().values()
        worst = max(self.state.failing(), key=lambda delta: (self.state.known[delta].severity, -delta.size))
        ladder = _ladder(first) if self._by_chance(first[0]) else []
        return list(dict.fromkeys([first[0], *(deltas[0] for deltas in others[: RIVALS - 1]), *ladder, worst]))

    def _out_of_time(self, chosen: Sequence[Perturbation]) -> Searched:
        """Return what was found where there is no time to train it afresh."""
        self.state.stopped = True
        known = {delta: self.state.known[delta] for delta in chosen}
        lucky = {delta: judgement for delta, judgement in known.items() if self._by_chance(delta)}
        certain = {delta: judgement for delta, judgement in known.items() if delta not in lucky}
        self.state.known = {delta: one for delta, one in self.state.known.items() if delta not in lucky}
        self.confirmed.update(certain)
        self.unconfirmed += [(d, replace(j, needs="more time to train it afresh")) for d, j in lucky.items()]
        return self._found(afresh=not certain)

    # ----------------------------------------------------------------------------------------------- what is reported

    def _found(self, *, afresh: bool = True) -> Searched:
        state, confirmed = self.state, self.confirmed
        kinds = [[delta for delta in deltas if delta in confirmed] for deltas in state.kinds().values()]
        smallest = [(deltas[0], confirmed[deltas[0]]) for deltas in kinds if deltas]
        minimal = smallest[0] if smallest else None
        return Searched(
            minimal=minimal,
            worst=_most_severe(confirmed.items()),
            others=tuple(smallest[1:]),
            curve=self._curve(minimal[0]) if minimal else (),
            curve_others=tuple(self._curve(delta) for delta, _ in smallest[1:]),
            undecided=_most_severe(self._undecided().items()),
            holds_up_to=self._holds_up_to(minimal[0] if minimal else None),
            judged=len(state.known) + len(self.unconfirmed),
            launches=state.launches,
            open=len(self._undecided()),
            unconfirmed=tuple(self.unconfirmed),
            looked_again=tuple(self.looked_again),
            nearest=None if minimal or self.unconfirmed else self._nearest(),
            planned=state.planned,
            stopped=state.stopped,
            confirmed=afresh,
        )

    def _undecided(self) -> dict[Perturbation, Judgement]:
        return {delta: j for delta, j in self.state.known.items() if j.status is Status.INCONCLUSIVE}

    def _nearest(self) -> Judged | None:
        again = {self.state.same(delta) for delta, _ in self.looked_again}  # it is told by the seeds of the search
        passed = ((delta, j) for delta, j in self.state.known.items() if j.status is Status.PASS)
        return _most_severe((d, j) for d, j in passed if not (d.is_identity or self.state.same(d) in again))

    def _curve(self, smallest: Perturbation) -> Curve:
        if (
            len(smallest.parts) > 1
            or not smallest.continuous
            or any(delta == smallest for delta, _ in self.looked_again)
        ):
            return ()  # of what was not shrunk, no ladder was judged either
        line = [(d, j) for d, j in self.state.known.items() if line_of(d) == line_of(smallest)]
        curve = {acting(d).magnitude or 0.0: j for d, j in line}  # a composition may have parts at 0 beside it
        return tuple(sorted(curve.items(), key=lambda point: abs(point[0]))) if len(curve) > 1 else ()

    def _holds_up_to(self, minimal: Perturbation | None) -> float | None:
        """Return the largest magnitude that held, below the smallest that did not, where one family was tried."""
        known = self.state.known
        singles = {(d.family, d.options) for d in known if d != IDENTITY}
        if minimal is None and len(singles) != 1:
            return None
        which = next(iter(singles)) if minimal is None else (minimal.family, minimal.options)
        if which[0] in ("compose", "identity"):
            return None
        tried = [(abs(d.magnitude or 0.0), j.status) for d, j in known.items() if (d.family, d.options) == which]
        bound = min((magnitude for magnitude, status in tried if status is not Status.PASS), default=math.inf)
        return max((magnitude for magnitude, _ in tried if magnitude < bound), default=None)


def _most_severe(judged: Iterable[Judged]) -> Judged | None:
    """Return what is most severe, the smallest of those that are alike; None of nothing."""
    return max(judged, key=lambda one: (one[1].severity, -one[0].size), default=None)


def _ladder(failing: Sequence[Perturbation]) -> list[Perturbation]:
    """Return failures of one kind, smallest first, at about equal ratios of size up to the largest."""
    sizes = [max(delta.size, 1e-12) for delta in failing]
    rungs = [sizes[0] * (max(sizes) / sizes[0]) ** (rung / (RIVALS - 1)) for rung in range(RIVALS)]
    return [next(d for d, size in zip(failing, sizes, strict=True) if size >= 0.999 * rung) for rung in rungs]
