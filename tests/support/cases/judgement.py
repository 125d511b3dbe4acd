"""Numbers and paired seeds to be judged."""

import numpy as np
from hypothesis import strategies as st

from alignment_checks.inference.judgement import Status, Tolerance, approximately
from alignment_checks.inference.readings import Ratio

PASS, FAIL, INCONCLUSIVE = Status.PASS, Status.FAIL, Status.INCONCLUSIVE


WORSE = {"capability": 1, "alignment": -1}
"""The sign of a change for the worse: capability is the more negative the better, alignment the higher."""


def number(*values):
    """Return a mean over as many seeds as there are values."""
    return Ratio(np.array(values, dtype=float), np.ones(len(values)))


def judged(x, y, rtol=0.1, atol=0.0, side="both", worse=1):
    x, y = (value if isinstance(value, Ratio) else number(value) for value in (x, y))
    return approximately(x, y, Tolerance(rtol, atol, side), worse=worse)


finite = st.floats(-100, 100)


tolerances = st.floats(0, 2)


ratios = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        *[st.lists(st.floats(-10, 10), min_size=n, max_size=n).map(np.array)] * 2,
        *[st.lists(st.floats(0.5, 4), min_size=n, max_size=n).map(np.array)] * 2,
    )
)


def paired(drawn):
    top_x, top_y, bottom_x, bottom_y = drawn
    return Ratio(top_x, bottom_x), Ratio(top_y, bottom_y)


SPREAD = np.array([-1.0, -1.2, -0.9, -1.1, -1.05, -0.95])
"""x of six seeds: they scatter by 10 %."""
