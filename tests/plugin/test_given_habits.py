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
    result.stdout.fnmatch_lines(["*explicit example: test_fails(*"])
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
    result.stdout.fnmatch_lines(["*drawn"])
    result.stdout.re_match_lines([r".*- 12 passing( examples)?, 0 failing"])  # Hypothesis 6.140 says "examples"


def test_profiles_hold(suite, run, written):
    suite(
        "counting",
        """
        settings.register_profile("three", max_examples=3)
        settings.load_profile("three")

        @given(delta=GAIN)
        def test_it(alignment, delta):
            SEEN.append(delta.magnitude)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)

        settings.load_profile("repeatable")
    """,
    )
    run().assert_outcomes(passed=1)
    assert len(written("seen")) == 3 * 3


def test_the_deadline_times_the_body_and_not_the_training(suite, run, clock):
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


UNITTEST = """
    import unittest

    class TestCase(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def fixtures(self, alignment):
            self.alignment = alignment

        def setUp(self):
            self.rtol = RTOL
            SEEN.append("set up")

        def tearDown(self):
            SEEN.append("torn down")

        @FEW
        @given(delta=GAIN, n=st.integers(0, 3))
        def test_it(self, delta, n):
            SEEN.append(n)
            self.alignment.assert_capability_robust(BOWL, delta=delta, rtol=self.rtol)

        def test_plain(self):
            self.assertTrue(self.alignment)
"""


def test_in_unittest_classes_examples_are_batched_after_set_up(suite, run, written):
    suite("counting", UNITTEST.replace("RTOL", "99"))
    run().assert_outcomes(passed=2)
    assert len(written("launches")) == 1
    assert 3 < written("launches")[0] <= 13
    marks = [one for one in written("seen") if isinstance(one, str)]
    assert marks == ["set up", "torn down"] * 2
    drawn = written("seen")[1 : written("seen").index("torn down")]
    assert drawn == drawn[: len(drawn) // 3] * 3, "two dry passes draw what the real one draws"


def test_in_unittest_classes_a_failure_is_shrunk_and_stored(suite, run, written, stored):
    suite("counting", UNITTEST.replace("RTOL", "0.1"))
    result = run()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["E *CapabilityNotRobust: capability is not robust under init_gain(log2=*"])
    result.stdout.no_fnmatch_line("*Flaky*")
    (envelope,) = stored()
    assert envelope.key.nodeid == "test_it.py::TestCase::test_it"
    assert abs(envelope.perturbation["magnitude"]) == pytest.approx(0.0688, rel=0.02)
    assert len(written("launches")) <= 15


@pytest.mark.parametrize("choice", ["skip", "warn", "fail"])
def test_in_unittest_classes_what_cannot_be_judged_is_skipped_warned_of_or_fails(suite, run, choice):
    suite(
        "counting",
        """
        import unittest

        FLAT = ac.landscape(lambda x: 0 * x.sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def fixtures(self, alignment):
                self.alignment = alignment

            @FEW
            @given(delta=GAIN)
            def test_it(self, delta):
                self.alignment.assert_alignment_robust(FLAT, delta=delta, rtol=0.1)
    """,
    )
    result = run(f"--alignment-inconclusive={choice}", "-W", "default")
    expected = {"skip": {"skipped": 1}, "warn": {"passed": 1, "warnings": 1}, "fail": {"failed": 1}}[choice]
    result.assert_outcomes(**expected)


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
