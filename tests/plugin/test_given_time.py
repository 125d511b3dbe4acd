"""`max_time` under `@given`: each assertion of a body has its own, and what it leaves no time for ends there."""

import pytest

TWO = """
    import time

    def slow(realization, magnitude, generator):
        time.sleep(0.002)
        return realization

    @settings(FEW, max_examples=60)
    @given(delta=pt.custom("slow", slow, 1.0))
    def test_it(alignment, delta):
        for lr, seconds in ((0.1, FIRST), (0.2, SECOND)):
            bowl = ac.landscape(lambda x: (x**2).sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=lr), steps=4)
            alignment.assert_capability_robust(bowl, delta=delta, rtol=9, max_time=seconds)
            SEEN.extend([] if alignment._ledger.is_dry else [lr])
"""


@pytest.mark.parametrize(
    ("first", "second", "judged"),
    [("1e-6", "1e6", (15, 15)), ("1e6", "1e-6", (60, 15)), ("None", "1e-6", (60, 15)), ("1e6", "None", (60, 60))],
)
def test_each_assertion_of_a_body_has_its_own_time(suite, run, written, first, second, judged):
    """A first batch of 16 runs, 0 among them, is always trained; one with time left judges all that reach it."""
    suite("counting", TWO.replace("FIRST", first).replace("SECOND", second))
    result = run("-W", "default")
    result.assert_outcomes(passed=1, warnings=int(judged[1] < 60))
    assert tuple(written("seen").count(lr) for lr in (0.1, 0.2)) == judged


def test_after_its_time_hypothesis_runs_no_more_examples_than_were_asked_for(suite, run, written):
    suite(
        "counting",
        """
        @settings(FEW, max_examples=60)
        @given(delta=GAIN, n=st.integers())
        def test_it(alignment, delta, n):
            SEEN.append(n)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=9, max_time=1e-6)
    """,
    )
    result = run("-W", "default", "--hypothesis-show-statistics")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.re_match_lines([r".*- 60 passing[a-z ]*, 0 failing[a-z ]*, (and )?0 invalid .*"])
    result.stdout.fnmatch_lines(["*%, not judged: the time of an alignment assertion was over"])
    assert len(written("seen")) <= 3 * 60


def test_what_fails_after_the_time_of_an_assertion_is_reported_as_ever(suite, run):
    """An example that ends early passes; the user's own assertion before it fails all the same, and is shrunk."""
    suite(
        "counting",
        """
        @settings(FEW, max_examples=60)
        @given(delta=GAIN, n=st.integers(0, 1000))
        def test_it(alignment, delta, n):
            assert n < 900
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=9, max_time=1e-6)
    """,
    )
    result = run("-W", "default")
    result.assert_outcomes(failed=1, warnings=1)
    result.stdout.fnmatch_lines([">*assert n < 900", "E * n=900,*"])
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.no_fnmatch_line("*dry.py*")
