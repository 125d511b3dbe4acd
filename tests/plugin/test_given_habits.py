"""Hypothesis as it is known: every habit of its users keeps working around an assertion on training runs."""

import re

import pytest


def test_explicit_examples(suite, run, stored, written):
    suite(
        "counting",
        """
        @example(delta=pt.Perturbation("init_gain", 0.01, 1.0, 0))
        @FEW
        @given(delta=pt.init_gain(max_log2=0.02))
        def test_passes(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)

        @example(delta=pt.Perturbation("init_gain", 0.5, 1.0, 0))
        @FEW
        @given(delta=pt.init_gain(max_log2=0.02))
        def test_fails(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*ailing explicit example: test_fails(*"])
    assert len(stored()) == 1


def test_assume_note_event_and_statistics(suite, run):
    suite(
        "counting",
        """
        @FEW
        @given(delta=GAIN)
        def test_passes(alignment, delta):
            assume(delta.magnitude > -0.5)
            event("drawn")
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)

        @FEW
        @given(delta=GAIN)
        def test_fails(alignment, delta):
            note("my note")
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    result = run("--hypothesis-show-statistics")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*my note"])
    result.stdout.fnmatch_lines(["*12 passing test cases, 0 failing*", "*drawn"][1:])
    result.stdout.fnmatch_lines(["*- 12 passing, 0 failing*"])


def test_profiles_hold(suite, run, written):
    suite(
        "counting",
        """
        settings.register_profile("three", max_examples=3, database=None, derandomize=True)
        settings.load_profile("three")

        @given(delta=GAIN)
        def test_it(alignment, delta):
            SEEN.append(delta.magnitude)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)

        settings.load_profile("default")
    """,
    )
    run().assert_outcomes(passed=1)
    assert len(written("seen")) == 3 * 3


def test_the_deadline_times_the_body_and_not_the_training(suite, run):
    suite(
        "counting",
        """
        import time

        def slow(realization, magnitude, generator):
            time.sleep(0.03)
            return realization

        @settings(FEW, max_examples=3, deadline=20)
        @given(delta=pt.custom("slow", slow, 1.0))
        def test_trains(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)

        @settings(FEW, max_examples=3, deadline=20, phases=[Phase.generate])
        @given(delta=pt.custom("slow", slow, 1.0))
        def test_sleeps(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
            time.sleep(0.05)
    """,
    )
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*DeadlineExceeded*", "*test_sleeps*"])


def test_parametrized_in_classes_and_with_fixtures(suite, run, written, stored):
    suite(
        "counting",
        """
        @pytest.fixture(scope="module")
        def bowl():
            return BOWL

        class TestClass:
            @pytest.mark.parametrize("rtol", [99, 0.1])
            @FEW
            @given(delta=GAIN)
            def test_it(self, alignment, bowl, rtol, delta):
                alignment.assert_capability_robust(bowl, delta=delta, rtol=rtol)
    """,
    )
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*HealthCheck*")
    assert [envelope.key.nodeid for envelope in stored()] == ["test_it.py::TestClass::test_it[0.1]"]


def test_in_unittest_classes_each_is_trained_when_it_is_asked_for(suite, run):
    suite(
        "counting",
        """
        import unittest

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def fixtures(self, alignment):
                self.alignment = alignment

            @settings(FEW, max_examples=3)
            @given(delta=GAIN)
            def test_it(self, delta):
                self.alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)


EVERYTHING = """
    from hypothesis import HealthCheck, target

    PASSES = dict(rtol=99)

    @example(delta=pt.Perturbation("init_gain", 0.5, 1.0, 0))
    @FEW
    @given(delta=GAIN)
    def test_example(alignment, delta):
        alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)

    @seed(7)
    @settings(FEW, derandomize=False)
    @given(delta=GAIN)
    def test_seed(alignment, delta):
        alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)

    @FEW
    @given(delta=GAIN)
    def test_words(alignment, delta):
        assume(delta.magnitude > -0.9)
        event("drawn")
        note("a note")
        verdict = alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
        target(verdict.nearest.deviation if verdict.nearest else 0.0)

    @FEW
    @given(data=st.data())
    def test_data(alignment, data):
        alignment.assert_capability_robust(BOWL, delta=data.draw(GAIN), rtol=99)

    class TestOuter:
        class TestInner:
            @FEW
            @given(delta=GAIN)
            def test_nested(self, alignment, delta):
                alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)

    @pytest.fixture
    def fresh():
        return BOWL

    @FEW
    @given(delta=GAIN)
    def test_function_scope(alignment, fresh, delta):
        alignment.assert_capability_robust(fresh, delta=delta, rtol=99)

    @settings(FEW, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(delta=GAIN)
    def test_function_scope_allowed(alignment, fresh, delta):
        alignment.assert_capability_robust(fresh, delta=delta, rtol=99)

    @FEW
    @given(delta=GAIN)
    def test_fails(alignment, delta):
        note("its note")
        alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_all_habits_together_alone_and_in_workers(suite, pytester, section, stored, workers):
    """One health check fails, the user's own; nothing else does but what has to."""
    suite("counting", EVERYTHING)
    how = pytester.runpytest_subprocess if workers else pytester.runpytest_inprocess
    options = ("--hypothesis-show-statistics", "--hypothesis-profile=ci", "--hypothesis-seed=3", "-rA")
    result = how("-p", "no:randomly", *options, *workers)
    result.assert_outcomes(passed=6, failed=2)
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.fnmatch_lines_random(
        ["E*FailedHealthCheck: *function-scoped fixture*fresh*", "E*its note", "*- during generate phase*", "*drawn"]
    )
    assert [line for line in section(result) if line.startswith("FAILED")] == ["FAILED test_it.py::test_fails"]
    assert [envelope.key.nodeid for envelope in stored()] == ["test_it.py::test_fails"]
    replay = run_again(pytester, stored()[0].id)
    replay.assert_outcomes(failed=1, deselected=7)


def run_again(pytester, chosen):
    return pytester.runpytest_inprocess("-p", "no:randomly", f"--alignment-replay={chosen}")


def test_a_failure_is_reproduced_by_its_blob(suite, run):
    body = """
        MORE
        @settings(FEW, print_blob=True)
        @given(delta=GAIN)
        def test_fails(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """
    suite("counting", body.replace("MORE", ""))
    (blob,) = set(re.findall(r"@(reproduce_failure\(.*\)) as a decorator", run().stdout.str()))
    suite("counting", "from hypothesis import reproduce_failure", body.replace("MORE", f"@{blob}"))
    again = run()
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["E*CapabilityNotRobust: *"])
    again.stdout.no_fnmatch_line("*DidNotReproduce*")


def test_what_targeting_draws_is_trained_when_it_is_asked_for(suite, run, written):
    suite(
        "counting",
        """
        from hypothesis import target

        @settings(FEW, max_examples=40)
        @given(delta=pt.init_gain(max_log2=1))
        def test_it(alignment, delta):
            verdict = alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
            target(abs(verdict.nearest.deviation) if verdict.nearest else 0.0)
    """,
    )
    run().assert_outcomes(passed=1)
    first, *others = written("launches")
    assert first > 5
    assert others[-1] == 1


@pytest.mark.parametrize("copied", ["functools.wraps(test)(body)", "functools.update_wrapper(body, test, ())"])
def test_below_a_decorator_hypothesis_keeps_its_database_and_what_it_found_there(suite, run, written, pytester, copied):
    suite(
        "counting",
        """
        import functools
        from hypothesis.database import DirectoryBasedExampleDatabase

        AGAIN = pathlib.Path("kept").exists()

        def decorated(test):
            def body(alignment):
                return test(alignment=alignment)
            found = COPIED
            if "wraps" not in "COPIED":
                del found.__wrapped__
            return found

        @decorated
        @settings(max_examples=40, database=DirectoryBasedExampleDatabase("kept"))
        @given(delta=GAIN, n=st.integers(0, 10**9))
        def test_it(alignment, delta, n):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
            assert n != 123457 if AGAIN else n < 123457
    """.replace("COPIED", copied),
    )
    for _ in range(2):
        run("-W", "default").assert_outcomes(failed=1, warnings=0 if "wraps" in copied else 1)
        assert (max(written("launches")) > 2) == ("wraps" in copied)


def test_a_body_that_exits_fails_as_it_does_without_an_assertion(suite, run):
    suite(
        "counting",
        """
        @FEW
        @given(delta=GAIN, n=st.integers(0, 100))
        def test_it(alignment, delta, n):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
            if n > 50:
                raise SystemExit(3)
    """,
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*n=51,*"])


@pytest.mark.parametrize("holder", ["Settings", "sys.modules[__name__]"])
def test_what_each_example_sets_for_its_setup_to_read_is_trained_as_that_example_set_it(suite, run, holder):
    """C_T is in proportion to a small rate, and at the minimum whatever a large one is."""
    suite(
        "counting",
        """
        import sys

        class Settings:
            rate = 0.0

        rate = 0.0

        def descent(params):
            return torch.optim.SGD(params, lr=READ)

        def square(x):
            return x.square().sum()

        @FEW
        @given(delta=pt.learning_rate(max_log2=0.5), chosen=st.sampled_from([0.45, 0.001]))
        def test_it(alignment, delta, chosen):
            HOLDER.rate = chosen
            setup = ac.landscape(square, [1.0], optimizer=descent, steps=20)
            alignment.assert_capability_robust(setup, delta=delta, rtol=0.15)
    """.replace("HOLDER", holder).replace("READ", "rate" if "sys" in holder else "Settings.rate"),
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CapabilityNotRobust*"])
    result.stdout.fnmatch_lines(["*chosen=0.001*"])


@pytest.mark.parametrize(("rtol", "outcome"), [(99, "passed"), (0.1, "failed")])
def test_an_assertion_from_a_thread_of_the_body_is_judged_by_itself(suite, run, rtol, outcome):
    suite(
        "counting",
        """
        from concurrent.futures import ThreadPoolExecutor

        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(alignment.assert_capability_robust, BOWL, delta=delta, rtol=RTOL).result()
    """.replace("RTOL", str(rtol)),
    )
    result = run()
    result.assert_outcomes(**{outcome: 1})
    result.stdout.no_fnmatch_line("*No build context*")
    result.stdout.no_fnmatch_line("*Flaky*")


def test_what_is_to_be_tried_first_beside_delta_is_judged_and_under_given_refused(suite, run):
    suite("""
        @given(delta=STRETCHED)
        def test_it(alignment, delta):
            own = pt.Perturbation("init_gain", 0.5, 1, 0)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1, first=[own])

        def test_alone(alignment):
            small, own = (pt.Perturbation("init_gain", size, 1, 0) for size in (0.01, 0.5))
            with pytest.raises(ac.AlignmentViolation) as error:
                alignment.assert_capability_robust(BOWL, delta=small, rtol=0.1, first=[own])
            assert error.value.verdict.minimal.perturbation == own
    """)
    result = run()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["E *ValueError: first= goes with under=*@example(delta=*"])
