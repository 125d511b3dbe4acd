"""The post's three optimizers on one landscape: what "less aligned" and "less capable" look like, and how they differ.

L(x) = (x + 1)² ((x − 1)² + ε) has its global minimum, L = 0, at x = −1, and a local one near x = 1.

- A starts in the basin of the global minimum and decays its learning rate to 0.
- B is A from another start, in the basin of the local minimum. Both drive what they pursue, G = |L′|, to 0, and rest; B
  rests where the designer is worse off: B is as capable as A, and *less aligned*.
- C is A with a constant learning rate. It orbits the global minimum for ever, and chaotically: C is worse at G, and
  therefore at L. It is *capability-limited*.

Factors α are comparable only at equal L(0) and G(0), so A and B start at different points of equal height and slope.
Reports on A and B note that G is not their own objective: annealed, they would come to rest on a slope as well.
"""

from functools import partial
from math import sqrt

import pytest
import torch

import alignment_checks as ac
from alignment_checks import perturbations as pt

EPSILON = 1 / 16
MIDDLE = (2 * EPSILON) ** (1 / 3) / 2
APART = sqrt(1 - EPSILON / 2 - 3 * MIDDLE**2)
A_START, B_START = MIDDLE - APART, MIDDLE + APART  # −0.634 and 1.134: L = 0.366 and L′ = 1.5625 at both


def valley(x):
    return ((x + 1).square() * ((x - 1).square() + EPSILON)).sum()


def decay(t):
    return 1 / (1 + t / 50)


def abc_setup(start=A_START, **changes):
    """Return A's setup, from another start or with some of its arguments changed."""
    of_a = {
        "optimizer": partial(torch.optim.SGD, lr=0.33),  # above 2 / L″(−1) = 0.246: cannot rest before it decays
        "scheduler": partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=decay),
        "steps": 300,
    }
    return ac.landscape(valley, [start], **{**of_a, **changes})


@pytest.fixture(scope="session")
def a():
    return abc_setup()


@pytest.fixture(scope="session")
def b():
    return abc_setup(B_START)


@pytest.fixture(scope="session")
def c():
    return abc_setup(scheduler=None)


# ------------------------------------------------------------------------------------------------------------- A and B


def test_a_and_b_start_level_and_both_come_to_rest(a, b):
    of_a, of_b = ac.run(a), ac.run(b)
    assert of_a.base[0, 0] == pytest.approx(of_b.base[0, 0], rel=1e-9)  # L(0)
    assert of_a.mesa[0, 0] == pytest.approx(of_b.mesa[0, 0], rel=1e-9)  # G(0)
    assert max(of_a.mesa[0, -1], of_b.mesa[0, -1]) < 1e-9  # both drive G to 0, and yet
    assert of_a.base[0, -1] == pytest.approx(0, abs=1e-9)  # A ends at the global minimum
    assert of_b.base[0, -1] == pytest.approx(0.246, abs=1e-3)  # and B at the local one


def test_a_is_better_aligned_than_b(alignment, a, b):
    # measured: α = 0.243 against 0.077, three times as large
    verdict = alignment.assert_better_aligned(a, than=b, rtol=1.0)
    assert "the one behind is less aligned" in str(verdict)


def test_a_is_no_more_capable_than_b_at_what_both_pursue(a, b):
    c_a, c_b = (ac.capability(ac.run(setup), of="mesa") for setup in (a, b))
    assert c_a == pytest.approx(c_b, rel=0.05)  # measured: 3 % apart, which fades as 1/T


def test_b_breaks_the_vase_and_a_does_not(alignment, a, b):
    # strong alignment: B's first step is far up the wall (L = 0.55), though it ends below its start
    alignment.assert_strongly_aligned(a, worst=0.367, within=300)
    assert ac.check_strongly_aligned(b, worst=0.367, within=300).status == "fail"


def test_alignment_of_a_is_robust_within_its_basin(alignment, a):
    # in dimensionless form; measured: 2.7 % at worst. Literally it doubles, for with the start move L(0) and G(0)
    alignment.assert_alignment_robust(a, under=pt.init_jitter(max_sigma=0.1), rtol=0.05, normalized=True)


# ------------------------------------------------------------------------------------------------------------- A and C


def test_c_orbits_for_ever(c):
    trajectory = ac.run(c)
    late = trajectory.mesa[0, -100:]
    assert late.mean() > 0.8  # G; measured: 1.3, and G(0) is 1.56
    assert len(set(late.round(9))) > 90  # and in no cycle


def test_capability_of_c_is_robust_although_its_orbit_is_chaotic(alignment, c):
    # moved by a millionth, the start leads to another orbit, as good on average; measured: 6 % at worst
    alignment.assert_capability_robust(c, under=pt.init_jitter(max_sigma=1e-6), rtol=0.12)


@pytest.mark.parametrize("of", ["mesa", "base"])
def test_a_is_more_capable_than_c(alignment, a, c, of):
    # measured: five times C's capability at G, and thereby twice C's at L. That α of C is the larger, 0.60 against
    # 0.24, is no merit: where a run hardly improves G, any fall of L looks well aligned
    verdict = alignment.assert_more_capable(a, than=c, of=of, rtol=0.5)
    assert "the one behind is capability-limited" in str(verdict)
