"""What could not be judged, and what chance has a part in: the options, the summary, with and without pytest-xdist."""

import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_checks.inference.chance import corrected
from alignment_checks.inference.judgement import Judgement, Status

INCONCLUSIVE = """
    def test_flat(alignment):
        flat = ac.landscape(lambda x: 0 * x.sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)
        alignment.assert_alignment_robust(flat, under=UNCHANGED, rtol=0.1)
"""
SEEDED = """
    def test_seeds(alignment):
        alignment.assert_capability_robust(noisy(0.05), under=pt.init_gain(max_log2=1), rtol=0.1, seeds=6)
"""
WORKERS = [(), ("-n", "1")]


@pytest.fixture
def run_with(run, pytester):
    """Return a function that runs in this process, or in workers."""

    def how(*args):
        if "-n" not in args:
            return run(*args)
        return pytester.runpytest_subprocess("-p", "no:randomly", "--alignment-examples=8", *args)

    return how


def test_what_cannot_be_judged_fails_under_its_own_heading(suite, run, section):
    """In workers too: see test_xdist.py."""
    suite(INCONCLUSIVE)
    result = run()
    result.assert_outcomes(failed=1)
    assert section(result)[0] == "INCONCLUSIVE test_it.py::test_flat"


@pytest.mark.parametrize("workers", WORKERS, ids=["alone", "workers"])
@pytest.mark.parametrize(("choice", "outcome"), [("skip", {"skipped": 1}), ("warn", {"passed": 1, "warnings": 1})])
def test_it_is_skipped_or_warned_of_where_the_ini_file_says_so(
    suite, run_with, section, pytester, workers, choice, outcome
):
    pytester.makeini(f"[pytest]\nalignment_inconclusive = {choice}")
    suite(INCONCLUSIVE)
    result = run_with("-W", "default", *workers)
    result.assert_outcomes(**outcome)
    word = {"skip": "skipped", "warn": "warned"}[choice]
    assert section(result)[:1] == [f"INCONCLUSIVE ({word}) test_it.py::test_flat"]
    assert result.ret == 0


def test_the_command_line_goes_before_the_ini_file(suite, run, pytester):
    pytester.makeini("[pytest]\nalignment_inconclusive = skip")
    suite(INCONCLUSIVE)
    run("--alignment-inconclusive=fail").assert_outcomes(failed=1)


def test_what_does_not_hold_fails_whatever_is_done_of_what_cannot_be_judged(suite, run):
    suite("failing")
    run("--alignment-inconclusive=skip").assert_outcomes(failed=1)


def test_an_inconclusive_property_is_not_taken_for_one_that_is_broken(suite, run):
    suite("""
        def test_it(alignment):
            flat = ac.landscape(lambda x: 0 * x.sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)
            with pytest.raises(ac.Inconclusive) as caught:
                alignment.assert_alignment_robust(flat, under=UNCHANGED, rtol=0.1)
            assert caught.value.verdict.status == "inconclusive"
    """)
    run().assert_outcomes(passed=1)


def test_the_summary_adjusts_p_values_for_all_tests_and_workers_and_selections_agree(
    suite, run_with, section, pytester
):
    """Holm among 4 tests, whether or not they are selected; a landscape leaves nothing to chance and has none.

    Each run finds an empty store: a stored failure that is tried first is one more that is confirmed.
    """
    suite("noisy", SEEDED, "failing", "passing", "fixed")
    texts = []
    for args in ((), ("-n", "2"), ("-x",), ("-k", "seeds")):
        lines = section(run_with(*args))
        (line,) = [line for line in lines if line.startswith("  p = ")]
        texts.append(line)
        shutil.rmtree(pytester.path / ".alignment")
    assert len(set(texts)) == 1
    found = re.fullmatch(r"  p = (\S+), adjusted for 3 tests \(Holm\) (\S+)", texts[0])
    assert found, texts[0]
    assert float(found[2]) == pytest.approx(3 * float(found[1]), rel=0.1)
    assert float(found[2]) <= 0.05


def test_the_level_is_shared_among_tests_and_spent_over_assertions(suite, run):
    suite("""
        import pytest_alignment.assertion as assertion
        from alignment_checks import checks

        def levels(alignment, monkeypatch, times):
            seen = []
            real = alignment._judged
            for _ in range(times):
                alignment.assert_more_capable(BOWL, than=WORSE)
                seen.append(alignment._ledger.level)
            return seen

        WORSE = ac.landscape(lambda x: 0.5 * (x**2).sum(), [0.5], optimizer=partial(torch.optim.SGD, lr=0.1), steps=4)

        def test_one(alignment, monkeypatch):
            assert levels(alignment, monkeypatch, 3) == pytest.approx([0.1 / 2 / 2, 0.1 / 2 / 6, 0.1 / 2 / 12])

        def test_two(alignment, monkeypatch):
            assert levels(alignment, monkeypatch, 1) == pytest.approx([0.1 / 2 / 2])
    """)
    run("--alignment-level=0.1").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("args", "among"),
    [((), 3), (("-x",), 3), (("-k", "one"), 3), (("-m", "alignment"), 3), (("test_it.py::test_one",), 1)],
)
def test_the_level_is_shared_among_the_tests_that_a_command_collects(suite, run, args, among):
    """What is deselected counts; what is not collected, as where a node id is typed, does not."""
    suite(
        """
        @pytest.mark.parametrize("case", "ab")
        def test_other(alignment, case):
            pass

        def test_one(alignment):
            assert alignment._ledger.options.level / alignment._ledger.tests == pytest.approx(0.05 / AMONG)

        def test_that_asserts_nothing_of_training():
            pass
    """.replace("AMONG", str(among))
    )
    outcomes = run(*args).parseoutcomes()
    assert outcomes["passed"] >= 1
    assert "failed" not in outcomes


@given(st.lists(st.floats(1e-6, 0.9), min_size=1, max_size=5), st.integers(2, 50))
def test_alone_a_test_can_fail_only_more_readily_than_among_others(p_values, among):
    """What fails at a share of the level fails at the whole of it too, and what passes does not hang on it."""
    judged = [Judgement(Status.FAIL, 1.0, 2.0, 1.0, 0.1, 10.0, p_value=p) for p in p_values]
    shared, alone = (corrected(judged, level) for level in (0.05 / among, 0.05))
    for one, other in zip(shared, alone, strict=True):
        assert other.status is Status.FAIL or one.status is Status.INCONCLUSIVE


def test_a_replay_judges_at_the_level_that_the_failure_was_found_at(suite, run, section, stored):
    suite("noisy", SEEDED, "passing")
    run()
    (envelope,) = stored()
    assert envelope.level == pytest.approx(0.05 / 2 / 2)
    result = run(f"--alignment-replay={envelope.id}", "test_it.py::test_seeds")
    result.assert_outcomes(failed=1)
    assert any(line.startswith(f"replayed: {envelope.id} still fails") for line in section(result))
