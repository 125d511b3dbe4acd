"""Judgements that cost nothing: failures planted where the search has to find them."""

from alignment_checks import perturbations as pt
from alignment_checks.inference.judgement import Judgement, Status
from alignment_checks.perturbations import IDENTITY
from alignment_checks.search import search

NOISE = pt.label_noise(max_rate=0.5)


GAIN = pt.init_gain(max_log2=2.0)


MOST_LAUNCHES = 15


class Planted:
    """An `evaluate` that fails where it was told to, and keeps what it was asked."""

    def __init__(self, fails, severity=lambda delta: delta.size, side=lambda delta: 1.0):
        self.fails, self.severity, self.side = fails, severity, side
        self.batches = []

    def __call__(self, deltas):
        self.batches.append(list(deltas))
        return [self.judged(delta) for delta in deltas]

    def judged(self, delta):
        if not self.fails(delta):
            return Judgement(Status.PASS, 1.0, 1.0, 0.0, 0.5, 0.0)
        return Judgement(Status.FAIL, 1.0, 2.0, self.side(delta), 0.5, 1.0 + self.severity(delta))

    @property
    def seen(self):
        return [delta for batch in self.batches for delta in batch]


def magnitude(delta):
    return delta.magnitude or 0.0


def beyond(bound):
    return lambda delta: abs(magnitude(delta)) >= bound


def found(strategy, fails, **options):
    """Return what a search finds, and the `evaluate` that it asked; of 40 draws unless told otherwise."""
    evaluate = Planted(fails)
    return search(strategy, evaluate, Planted(fails), **{"examples": 40, **options}), evaluate


class Graded(Planted):
    """An `evaluate` of which severity is a margin: it fails from 1 on, and says how near to it what passes comes."""

    def __init__(self, margin):
        super().__init__(lambda delta: margin(delta) >= 1, margin)

    def judged(self, delta):
        severity = 0.0 if delta == IDENTITY else self.severity(delta)
        status = Status.FAIL if self.fails(delta) and delta != IDENTITY else Status.PASS
        return Judgement(status, 1.0, 1.0 + severity, severity, 1.0, severity)
