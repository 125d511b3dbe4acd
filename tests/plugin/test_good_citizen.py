"""Living with pytest's own features, and with other plugins."""

import pytest


def test_warnings_may_be_errors(suite, run):
    suite("passing", "failing")
    result = run("-W", "error")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E *CapabilityNotRobust: capability is not robust*"])


def test_with_randomly_and_timeout(suite, pytester, section, stored):
    suite("failing", "passing", "plain")
    texts = []
    for seed in (1, 2):
        result = pytester.runpytest_inprocess(f"--randomly-seed={seed}", "--timeout=100", "--alignment-examples=8")
        result.stdout.fnmatch_lines([f"Using --randomly-seed={seed}"])
        result.assert_outcomes(passed=2, failed=1)
        texts.append(section(result))
        for file in pytester.path.glob(".alignment/examples/*/*"):
            file.unlink()
    assert texts[0] == texts[1], "the draws do not depend on the order, nor on the seed of the order"


def test_a_timeout_is_a_timeout(suite, run, pytester, stored):
    suite("""
        import time

        def slow(run, magnitude, generator):
            time.sleep(60)

        @pytest.mark.timeout(1)
        def test_it(alignment):
            alignment.assert_capability_robust(BOWL, under=pt.custom("slow", slow, 1.0), rtol=0.1)
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *Timeout*"])
    assert stored() == []


def test_in_classes_and_parametrized(suite, run, stored):
    suite("""
        class TestClass:
            @pytest.mark.parametrize("setup", [BOWL, BOWL], ids=["a", "b"])
            def test_it(self, alignment, setup):
                alignment.assert_capability_robust(setup, under=STRETCHED, rtol=0.1)
    """)
    run().assert_outcomes(failed=2)
    assert sorted(e.key.nodeid for e in stored()) == [f"test_it.py::TestClass::test_it[{p}]" for p in "ab"]
    assert len({e.id for e in stored()}) == 2


def test_in_unittest_classes(suite, run, stored):
    suite("""
        import unittest

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def given(self, alignment):
                self.alignment = alignment

            def test_it(self):
                self.alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
    """)
    run().assert_outcomes(failed=1)
    assert [e.key.nodeid for e in stored()] == ["test_it.py::TestCase::test_it"]


def test_asked_for_by_name(suite, run):
    suite("""
        def test_it(request):
            alignment = request.getfixturevalue("alignment")
            alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
    """)
    run().assert_outcomes(passed=1)


def test_last_failed_and_exit_first(suite, run):
    suite("failing", "passing", "plain")
    result = run("-x")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    again = run("--lf")
    again.assert_outcomes(failed=1)
    assert again.ret == pytest.ExitCode.TESTS_FAILED


def test_stepwise(suite, run, stored):
    suite("plain", "failing", "passing")
    first = run("--stepwise")
    first.assert_outcomes(passed=1, failed=1)
    run("--stepwise").assert_outcomes(failed=1, deselected=1)
    suite("plain", "fixed", "passing")
    run("--stepwise").assert_outcomes(passed=2, deselected=1)
    assert stored() == []


def test_an_xfail_that_is_run_as_any_test_fails_and_is_stored(suite, run, section, stored):
    suite("""
        @pytest.mark.xfail
        def test_known(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)

        @pytest.mark.xfail(strict=True)
        @settings(max_examples=8, database=None, derandomize=True)
        @given(delta=STRETCHED)
        def test_drawn(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """)
    run().assert_outcomes(xfailed=2)
    assert stored() == []
    result = run("--runxfail")
    result.assert_outcomes(failed=2)
    assert len(stored()) == 2
    assert [line for line in section(result) if line.startswith("FAILED")] == [
        "FAILED test_it.py::test_known",
        "FAILED test_it.py::test_drawn",
    ]


def test_in_whatever_order_the_same_is_found(suite, run, pytester, section):
    """What pytest-randomly does, also where that is not installed."""
    suite(
        "failing",
        "passing",
        """
        @settings(max_examples=8, database=None, derandomize=True)
        @given(delta=STRETCHED)
        def test_drawn(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    texts = []
    for order in ("", "items.reverse()", "items.append(items.pop(0))"):
        pytester.makeconftest(f"def pytest_collection_modifyitems(items):\n    {order or 'pass'}")
        result = run("-p", "no:cacheprovider")
        result.assert_outcomes(passed=1, failed=2)
        texts.append(section(result))
        for file in pytester.path.glob(".alignment/examples/*/*"):
            file.unlink()
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest 9 has subtests")
def test_subtests(suite, run, stored, section):
    suite("""
        def test_it(alignment, subtests):
            for rtol in (0.1, 99, 0.5):
                with subtests.test(rtol=rtol):
                    alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=rtol)
    """)
    result = run()
    assert len([line for line in section(result) if line.startswith("FAILED")]) == 2
    assert [e.key.occurrence for e in sorted(stored(), key=lambda e: e.key)] == [0, 2]


def test_without_other_plugins(suite, run):
    suite("failing", "passing")
    result = run("-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "no:cacheprovider", "-p", "no:timeout")
    result.assert_outcomes(passed=1, failed=1)


def test_without_a_terminal(suite, run, stored):
    suite("failing", "passing")
    assert run("-p", "no:terminal").ret == pytest.ExitCode.TESTS_FAILED
    assert len(stored()) == 1


def test_doctests_and_other_items_are_left_alone(pytester, run):
    pytester.makepyfile(it='"""\n>>> 1\n1\n"""')
    run("--doctest-modules", "it.py").assert_outcomes(passed=1)


def test_collect_only(suite, run, stored):
    suite("failing")
    run()
    result = run("--collect-only", "-q", f"--alignment-replay={stored()[0].id}")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["test_it.py::test_fails"])
