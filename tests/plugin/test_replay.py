"""--alignment-replay, and what becomes of a stored failure on the next run of its test."""

import re
import shlex
import shutil
from dataclasses import replace

import pytest


def test_an_id_reruns_that_perturbation_alone(suite, run, stored, section):
    suite("failing", "passing", "plain")
    first = run()
    first.assert_outcomes(failed=1, passed=2)
    (envelope,) = before = stored()
    replay = run(f"--alignment-replay={envelope.id}")
    replay.assert_outcomes(failed=1, deselected=2)
    assert replay.ret == first.ret == pytest.ExitCode.TESTS_FAILED
    replay.stdout.fnmatch_lines(["E *searched 1 perturbation,*"])
    assert f"  replay   pytest 'test_it.py::test_fails' --alignment-replay={envelope.id}" in section(replay)
    assert stored() == before
    smallest = [line for line in section(first) if "smallest" in line]
    assert smallest == [line for line in section(replay) if "smallest" in line]


def test_what_lanes_have_found_lanes_replay_though_so_few_runs_would_go_to_the_loop(suite, run, stored):
    suite("failing")
    run().stdout.fnmatch_lines(["E *runs of 4 steps in * on cpu (lanes)"])
    (envelope,) = stored()
    assert envelope.backend == "lanes"
    run(f"--alignment-replay={envelope.id}").stdout.fnmatch_lines(["E *searched 1 perturbation,* on cpu (lanes)"])


def test_what_lanes_have_found_and_cannot_train_now_is_replayed_by_the_loop(suite, run, stored, pytester):
    """Nor does a store that claims so break a test."""
    suite("""
        class Branching(torch.nn.Linear):
            def forward(self, x):
                y = super().forward(x)
                return y if float(y.detach().sum()) < 1e9 else 2 * y

        X = torch.linspace(-1, 1, 8)[:, None]
        SETUP = ac.TrainingSetup(partial(Branching, 1, 1), (X, X), torch.nn.functional.mse_loss, BOWL.optimizer, 4)

        def test_fails(alignment):
            alignment.assert_capability_robust(SETUP, under=STRETCHED, rtol=0.1)
    """)
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    assert envelope.backend == "loop"
    (path,) = [path for path in pytester.path.rglob("*") if path.is_file() and path.read_bytes() == envelope.to_bytes()]
    path.write_bytes(replace(envelope, backend="lanes").to_bytes())
    result = run(f"--alignment-replay={envelope.id}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *it was found in lanes, which cannot train it now: *", "E * on cpu (loop*"])


def test_the_backend_that_a_test_asks_for_is_that_of_its_replay(suite, run, stored):
    suite("""
        def test_fails(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1, backend="loop")
    """)
    run()
    (envelope,) = stored()
    run(f"--alignment-replay={envelope.id}").stdout.fnmatch_lines(["E *searched 1 perturbation,* on cpu (loop*)"])


def test_the_printed_command_is_the_one_to_type(suite, run, stored):
    suite("""
        @pytest.mark.parametrize("name", ["it's", "a b"])
        def test_fails(alignment, name):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
    """)
    result = run()
    said = [line.strip().removeprefix("replay   ") for line in result.outlines if line.startswith("  replay ")]
    commands = set(said)  # where CI is set, pytest's own summary repeats them
    for command in commands:
        program, *args = shlex.split(command)
        assert program == "pytest"
        run(*args).assert_outcomes(failed=1)
    assert len(commands) == 2


def test_each_distinct_failure_is_replayed_by_a_command_of_its_own(suite, run, stored):
    """Of a gain both the larger and the smaller start fail, to two sides."""
    suite("""
        def test_fails(alignment):
            alignment.assert_capability_robust(BOWL, under=pt.init_gain(max_log2=1), rtol=0.1)
    """)
    result = run()
    said = [line.removeprefix("E").strip() for line in result.outlines if line.startswith("E ")]
    found = [line for line in said if line.startswith(("smallest", "fails too at"))]
    (envelope,) = before = stored()
    ids = [one.id for one in envelope.each()]
    assert [line.split("--alignment-replay=")[-1] for line in found[1:]] == ids[1:]
    assert f"replay   pytest 'test_it.py::test_fails' --alignment-replay={ids[0]}" in said
    deltas = [re.search(r"init_gain\(.*?\)", line).group() for line in found]
    signs = {delta.partition("=")[2].startswith("-") for delta in deltas}
    assert signs == {True, False}
    for which, delta in zip(ids, deltas, strict=True):
        again = run(f"--alignment-replay={which}")
        again.assert_outcomes(failed=1)
        again.stdout.fnmatch_lines([f"E *smallest failing δ   {delta}", "E *searched 1 perturbation,*"])
        again.stdout.fnmatch_lines([f"replayed: {which} still fails*"])
    assert stored() == before


def test_other_assertions_of_the_test_are_not_judged(suite, run, stored):
    suite("""
        def test_it(alignment):
            one = alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
            with pytest.raises(ac.AlignmentViolation):
                alignment.assert_capability_robust(BOWL, under=pt.init_gain(max_log2=0.9), rtol=0.1)
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
    """)
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    suite(
        """
        def test_it(alignment):
            one = alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
            assert one.status == "inconclusive" and one.runs == 0
            assert one.notes == ("not judged: replaying ID",)
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
            assert False
    """.replace("ID", envelope.id)
    )
    result = run(f"--alignment-replay={envelope.id}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *CapabilityNotRobust*", f"replayed: {envelope.id} still fails*"])


def test_equal_assertions_are_told_apart(suite, run, stored):
    suite("""
        def test_it(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=99)
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
    """)
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    assert envelope.key.occurrence == 1
    result = run(f"--alignment-replay={envelope.id}")
    result.assert_outcomes(failed=1)


def test_all_replays_every_stored_failure(suite, run, stored, section):
    suite(
        "failing",
        "passing",
        """
        class TestClass:
            def test_too(self, alignment):
                alignment.assert_alignment_robust(BOWL, under=STRETCHED, rtol=0.1)
    """,
    )
    run().assert_outcomes(failed=2, passed=1)
    before = stored()
    result = run("--alignment-replay=all")
    result.assert_outcomes(failed=2, deselected=1)
    replayed = [line.split()[1] for line in section(result) if line.startswith("replayed: ")]
    assert sorted(replayed) == sorted(one.id for envelope in before for one in envelope.each())
    assert len(replayed) == 4
    assert stored() == before


def test_all_of_an_empty_store(suite, run, section):
    suite("passing")
    result = run("--alignment-replay=all")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert section(result) == ["nothing to replay: the store .alignment/examples is empty"]


def test_an_unknown_id_names_those_there_are(suite, run, stored, pytester):
    suite("failing")
    assert (
        "the store .alignment/examples has no such failure; it is empty"
        in run("--alignment-replay=abcdef").stderr.str()
    )
    run()
    result = run("--alignment-replay=abcdef")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    known = ", ".join(f"{one.id} (test_it.py::test_fails)" for one in stored()[0].each())
    assert known.count("test_fails") == 2
    assert f"it has {known}" in result.stderr.str()
    result.stdout.no_fnmatch_line("*collected*")


def test_a_changed_setup_is_said_not_refused(suite, run, stored, section):
    path = suite("failing")
    run()
    (envelope,) = stored()
    path.write_text(path.read_text().replace("steps=4", "steps=5"))
    result = run(f"--alignment-replay={envelope.id}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *  the setup has changed since {envelope.id} was stored"])
    assert "  the setup has changed since this was stored" in section(result)


DRAWN = """
    from hypothesis import example
    from hypothesis.database import DirectoryBasedExampleDatabase

    @settings(max_examples=20, database=DirectoryBasedExampleDatabase("kept"))
    EXPLICIT
    @given(delta=STRETCHED, steps=st.integers(3, 9))
    def test_fails(alignment, delta, steps):
        setup = ac.landscape(torch.square, [1.0], optimizer=BOWL.optimizer, steps=steps)
        alignment.assert_capability_robust(setup, delta=delta, rtol=0.1 if steps > 6 else 99)
"""


@pytest.mark.parametrize("explicit", ["", "@example(delta=ac.Perturbation('init_gain', 1.0, 1.0, 0), steps=3)"])
def test_the_setup_that_failed_was_drawn_and_is_not_said_to_have_changed(suite, run, stored, section, explicit):
    suite(DRAWN.replace("EXPLICIT", ""))
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    suite(DRAWN.replace("EXPLICIT", explicit))
    result = run(f"--alignment-replay={envelope.id}")
    result.assert_outcomes(failed=1)
    (line,) = [line for line in section(result) if line.startswith("replayed: ")]
    assert line.startswith(f"replayed: {envelope.id} still fails   ")
    result.stdout.fnmatch_lines(["E * C_7(L) = *", "E * steps=7,*"])
    result.stdout.no_fnmatch_line("*setup has changed*")


def test_the_failing_example_is_shown_with_the_setup_that_fails(suite, run, stored, pytester):
    """Hypothesis has nothing stored, and draws it again."""
    suite(DRAWN.replace("EXPLICIT", ""))
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    shutil.rmtree(pytester.path / "kept")
    result = run(f"--alignment-replay={envelope.id}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * C_7(L) = *", "E * steps=7,*"])
    result.stdout.no_fnmatch_line("*Flaky*")


def test_another_setup_than_failed_may_be_drawn_where_hypothesis_has_none_stored_and_that_is_said(
    suite, run, stored, section, pytester
):
    suite(DRAWN.replace("EXPLICIT", ""))
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    shutil.rmtree(pytester.path / "kept")
    suite(DRAWN.replace("EXPLICIT", "").replace("(3, 9)", "(3, 6)"))
    result = run(f"--alignment-replay={envelope.id}")
    result.assert_outcomes(passed=1)
    (line,) = [line for line in section(result) if line.startswith("replayed: ")]
    said = f"replayed: {envelope.id} no longer fails, but the setup has changed, or another was drawn, since   "
    assert line.startswith(said)


def test_a_replay_that_no_longer_fails_passes_and_says_so(suite, run, stored, section):
    suite("failing")
    run()
    before = stored()
    suite("fixed")
    result = run("--alignment-replay=all")
    result.assert_outcomes(passed=1)
    assert [line.split("   ")[0] for line in section(result)] == [
        f"replayed: {one.id} no longer fails" for one in before[0].each()
    ]
    assert stored() == before, "a replay never changes the store"


def test_what_cannot_be_replayed_is_said(suite, run, stored, section):
    suite("failing")
    run()
    suite("""
        def test_fails(alignment):
            alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
    """)
    result = run("--alignment-replay=all")
    result.assert_outcomes(passed=1)
    assert section(result) == [
        f"not replayed: {one.id}   test_it.py::test_fails was not run, or no longer asserts capability_robust "
        "with under=init_gain(max_log2=1)"
        for one in stored()[0].each()
    ]
