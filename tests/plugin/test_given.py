"""Tests that draw for themselves, with `@given`: trained in batches, shrunk, and Hypothesis as it is known."""

import json

import pytest

COUNTING = """
    import json, pathlib
    from hypothesis import assume, event, example, note, seed
    from alignment_checks import experiment

    @pytest.fixture(autouse=True, scope="session")
    def counted():
        launches, before = [], experiment.run_parts
        def run(parts, **how):
            launches.append(sum(len(part.perturbations) for part in parts))
            return before(parts, **how)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(experiment, "run_parts", run)
            yield
        pathlib.Path("launches.json").write_text(json.dumps(launches))

    FEW = settings(max_examples=12, database=None, derandomize=True)
    GAIN = pt.init_gain(max_log2=1)
    SEEN = []

    @pytest.fixture(autouse=True, scope="session")
    def seen():
        yield
        pathlib.Path("seen.json").write_text(json.dumps(SEEN))
"""


@pytest.fixture
def written(pytester):
    """Return a function that reads what the inner run wrote: "launches" or "seen"."""
    return lambda name: json.loads((pytester.path / f"{name}.json").read_text())


@pytest.fixture(autouse=True)
def unseeded(monkeypatch):
    """Have no seed left from an inner run's --hypothesis-seed, which Hypothesis keeps for the whole process."""
    monkeypatch.setattr("hypothesis.core.global_force_seed", None)


@pytest.fixture
def passes(written):
    """Return a function that returns what each pass of a test with one assertion drew: two are dry."""

    def read():
        seen = written("seen")
        assert len(seen) % 3 == 0
        return [seen[i * len(seen) // 3 : (i + 1) * len(seen) // 3] for i in range(3)]

    return read


# ------------------------------------------------------------------------------------------------------------- batches


def test_what_all_examples_draw_is_one_batch(suite, run, written, passes):
    suite(
        COUNTING,
        """
        @FEW
        @given(delta=GAIN, other=st.integers())
        def test_it(alignment, delta, other):
            SEEN.append([delta.magnitude, other])
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
            alignment.assert_alignment_robust(BOWL, delta=delta, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)
    assert len(written("launches")) == 1
    first, second, real = passes()
    assert first == second == real, "a dry pass draws what the real one draws"
    assert 3 < written("launches")[0] <= 13


@pytest.mark.parametrize("how", ["@settings(FEW, derandomize=False)", "@seed(7)\n@settings(FEW, derandomize=False)"])
def test_the_draws_are_foreseen_however_they_are_seeded(suite, run, written, passes, how):
    suite(
        COUNTING,
        """
        HOW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            SEEN.append(delta.magnitude)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
    """.replace("HOW", how.replace("\n", "\n        ")),
    )

    def draws(*args):
        run(*args).assert_outcomes(passed=1)
        assert len(written("launches")) == 1
        first, second, real = passes()
        assert first == second == real
        return real

    first, again = draws("--hypothesis-seed=3"), draws("--hypothesis-seed=3")
    assert first == again
    assert (draws("--hypothesis-seed=4") == first) == ("@seed" in how)


def test_without_a_seed_the_draws_vary_and_are_foreseen_all_the_same(suite, run, written, passes):
    suite(
        COUNTING,
        """
        @settings(FEW, derandomize=False)
        @given(delta=GAIN)
        def test_it(alignment, delta):
            SEEN.append(delta.magnitude)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
    """,
    )
    draws = []
    for _ in range(2):
        run().assert_outcomes(passed=1)
        first, second, real = passes()
        assert len(written("launches")) == 1
        assert first == second == real
        draws.append(real)
    assert draws[0] != draws[1]


BUILT = """
    def built(lr, width=3):
        return ac.TrainingSetup(
            model=lambda: torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1)),
            data=(torch.ones(6, 2), torch.ones(6, 1)),
            objective=lambda outputs, targets: (outputs - targets).square().mean(1),
            optimizer=partial(torch.optim.SGD, lr=lr),
            steps=3,
        )
"""


def test_setups_that_the_body_builds_anew_are_one(suite, run, written):
    suite(
        COUNTING,
        BUILT,
        """
        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            alignment.assert_capability_robust(built(0.1), delta=delta, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)
    assert written("launches")[0] <= 13
    assert len(written("launches")) == 1


def test_setups_that_differ_are_trained_in_one_launch_and_share_batches_where_they_differ_in_the_step(
    suite, run, written
):
    suite(
        COUNTING,
        BUILT,
        """
        from alignment_checks import runs
        from alignment_checks.backends import dispatch

        @pytest.fixture(autouse=True)
        def batches(monkeypatch):
            before = runs.trained
            def trained(jobs, *args, **how):
                SEEN.append(sorted({len(group) for group in dispatch._alike(jobs)}))
                return before(jobs, *args, **how)
            monkeypatch.setattr(runs, "trained", trained)

        @settings(FEW, deadline=None)
        @given(delta=pt.init_gain(max_log2=1).filter(lambda delta: abs(delta.magnitude) > 0.1),
               lr=st.floats(0.01, 0.2), width=st.sampled_from([3, 4]))
        def test_it(alignment, delta, lr, width):
            verdict = alignment.assert_capability_robust(built(lr, width), delta=delta, rtol=99)
            SEEN.append("judged")
            alone = ac.check_capability_robust(built(lr, width), delta=delta, rtol=99, backend="loop")
            assert verdict.nearest.value == pytest.approx(alone.nearest.value, rel=1e-5)
    """,
    )
    run().assert_outcomes(passed=1)
    together = written("seen")[: written("seen").index("judged")]
    assert len(together) == 2, "one of each width"
    assert all(len(groups) == 1 and groups[0] > 4 for groups in together), "whatever their learning rates"


def test_a_setup_that_cannot_be_known_again_is_said_and_trained_by_itself(suite, run, written, section):
    suite(
        COUNTING,
        """
        class Model:
            def __call__(self):
                return torch.nn.Linear(2, 1)

        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            data = (torch.ones(6, 2), torch.ones(6, 1))
            setup = ac.TrainingSetup(Model(), data, torch.nn.functional.mse_loss, partial(torch.optim.SGD, lr=0.1), 3)
            alignment.assert_capability_robust(setup, delta=delta, rtol=99)
    """,
    )
    result = run("-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    assert max(written("launches")) == 2, "nothing is trained that is not asked for"
    assert [line for line in section(result) if line.startswith("given: the setup that test_it builds is another one")]


@pytest.mark.parametrize("assertions", [1, 2, 3])
def test_a_body_of_several_assertions_takes_a_batch_for_each(suite, run, written, assertions):
    line = "\n            alignment.assert_capability_robust(BOWL, delta=deltas[{}], rtol=99)"
    suite(
        COUNTING,
        """
        @FEW
        @given(deltas=st.tuples(GAIN, GAIN, GAIN))
        def test_it(alignment, deltas):
            SEEN.append([delta.magnitude for delta in deltas])
    """.rstrip()
        + "".join(line.format(which) for which in range(assertions)),
    )
    run().assert_outcomes(passed=1)
    assert len(written("launches")) == assertions
    seen = written("seen")
    assert len(seen) % (assertions + 2) == 0
    assert seen[: len(seen) // (assertions + 2)] * (assertions + 2) == seen


def test_an_assertion_after_one_that_fails_is_foreseen_where_the_body_goes_on(suite, run, written):
    suite(
        COUNTING,
        """
        @FEW
        @given(first=st.just(pt.Perturbation("init_gain", 1.0, 1.0, 0)), second=GAIN)
        def test_it(alignment, first, second):
            with pytest.raises(ac.AlignmentViolation):
                alignment.assert_capability_robust(BOWL, delta=first, rtol=0.1)
            alignment.assert_capability_robust(BOWL, delta=second, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)
    assert written("launches")[0] == 2
    assert max(written("launches")[1:]) > 3


def test_what_is_not_foreseen_is_trained_when_it_is_asked_for(suite, run, written):
    suite(
        COUNTING,
        """
        @FEW
        @given(data=st.data(), first=GAIN)
        def test_it(alignment, data, first):
            verdict = alignment.assert_capability_robust(BOWL, delta=first, rtol=99)
            second = data.draw(GAIN) if verdict.status == "pass" else None
            SEEN.append(second.magnitude)
            alignment.assert_capability_robust(BOWL, delta=second, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)
    assert written("launches")[0] > 5
    assert set(written("launches")[1:]) == {1}
    assert len(written("seen")) < 3 * 12, "the dry passes end where the draws begin to differ"


def test_a_search_in_the_body_is_a_batch_by_itself_and_nothing_is_run_twice(suite, run, written):
    suite(
        COUNTING,
        """
        @settings(FEW, max_examples=3)
        @given(steps=st.integers(1, 9))
        def test_it(alignment, steps):
            SEEN.append(steps)
            alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1, atol=steps)
    """,
    )
    run().assert_outcomes(passed=1)
    assert len(written("seen")) == 4, "the dry pass ends at the first search"


# ------------------------------------------------------------------------------------------------------------ failures

FAILING = """
    @FEW
    @given(delta=GAIN, other=st.integers())
    def test_fails(alignment, delta, other):
        alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
"""


def test_a_failure_is_shrunk_in_few_batches_and_stored_once(suite, run, written, stored, section):
    suite(COUNTING, FAILING)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.fnmatch_lines(["E *CapabilityNotRobust: capability is not robust under init_gain(log2=*"])
    (envelope,) = stored()
    assert abs(envelope.perturbation["magnitude"]) == pytest.approx(0.0688, rel=0.02)  # 2^(2m) = 1.1
    assert len(written("launches")) <= 15
    assert len([line for line in section(result) if line.startswith("FAILED")]) == 1
    assert "holds up to" in result.stdout.str()


def test_without_the_shrink_phase_nothing_is_shrunk(suite, run, written):
    suite(COUNTING, FAILING.replace("@FEW", "@settings(FEW, phases=[Phase.generate])"))
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *searched 1 perturbation,*"])
    assert len(written("launches")) <= 3


def test_each_failure_of_a_body_is_found(suite, run, stored):
    suite(
        COUNTING,
        """
        @settings(FEW, max_examples=40)
        @given(delta=GAIN, n=st.integers(0, 50))
        def test_fails(alignment, delta, n):
            if n > 10:
                assert n < 30, "too large"
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Hypothesis found 2 distinct failures*"])
    result.stdout.fnmatch_lines(["*AssertionError: too large*"])
    result.stdout.fnmatch_lines(["*n=30,*"])
    result.stdout.no_fnmatch_line("*Flaky*")
    assert len(stored()) == 1


def test_hypothesis_tries_its_own_stored_failure_first_and_keeps_it(suite, run, written, pytester):
    suite(
        COUNTING,
        """
        from hypothesis.database import DirectoryBasedExampleDatabase

        @settings(max_examples=12, derandomize=False, database=DirectoryBasedExampleDatabase("kept"))
        @given(delta=GAIN)
        def test_fails(alignment, delta):
            SEEN.append(delta.magnitude)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )

    def found():
        run().assert_outcomes(failed=1)
        return {path for path in (pytester.path / "kept").rglob("*") if path.is_file()}, written("seen")

    files, first = found()
    assert files
    again, second = found()
    assert second[0] == first[-1]
    assert files & again
    assert len(written("launches")) <= 15


# ------------------------------------------------------------------------------------------------------------- chance

SEEDED = """
    def nearly_the_same():
        model = torch.nn.Linear(2, 1)
        with torch.no_grad():
            model.weight.mul_(SPREAD).add_(1.0)
        return model

    NOISY = ac.TrainingSetup(
        model=nearly_the_same,
        data=(torch.randn(12, 2, generator=torch.Generator().manual_seed(0)), torch.ones(12, 1)),
        objective=torch.nn.functional.mse_loss,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=4,
    )

    @FEW
    @given(delta=GAIN)
    def test_seeds(alignment, delta):
        alignment.assert_capability_robust(NOISY, delta=delta, rtol=RTOL, seeds=4)
"""
CHOICES = ["fail", "skip", "warn"]


@pytest.mark.parametrize("choice", CHOICES)
def test_over_several_seeds_what_fails_is_confirmed_once_and_is_not_flaky(suite, run, stored, section, choice):
    suite(COUNTING, SEEDED.replace("SPREAD", "0.001").replace("RTOL", "0.1"))
    result = run(f"--alignment-inconclusive={choice}", "-W", "default", "--alignment-level=0.5")
    result.assert_outcomes(failed=1, warnings=result.parseoutcomes().get("warnings", 0))
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.fnmatch_lines(["E*CapabilityNotRobust: capability is not robust under init_gain(*"])
    assert len(stored()) == 1
    assert len([line for line in section(result) if line.startswith("FAILED")]) == 1


@pytest.mark.parametrize(
    ("choice", "outcome"),
    [("fail", {"failed": 1}), ("skip", {"skipped": 1}), ("warn", {"passed": 1, "warnings": 1})],
)
def test_what_cannot_be_told_over_several_seeds_is_not_flaky_either(suite, run, section, choice, outcome):
    suite(COUNTING, SEEDED.replace("SPREAD", "3.0").replace("RTOL", "0.05"))
    result = run(f"--alignment-inconclusive={choice}", "-W", "default")
    result.assert_outcomes(**outcome)
    result.stdout.no_fnmatch_line("*Flaky*")
    said = [line for line in section(result) if line.startswith("INCONCLUSIVE")]
    word = {"fail": "", "skip": " (skipped)", "warn": " (warned)"}[choice]
    assert said == [f"INCONCLUSIVE{word} test_it.py::test_seeds"]


@pytest.mark.parametrize("choice", CHOICES)
def test_what_does_not_fail_again_is_said_to_be_inconclusive_and_is_not_flaky(suite, run, choice):
    """A training process that nobody can repeat: it is another one after the first failure."""
    suite(
        COUNTING,
        """
        class Mood:
            weight = 1.0

        MOOD = Mood()
        MOODY = ac.landscape(
            lambda x: MOOD.weight * (x**2).sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=4
        )

        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            try:
                alignment.assert_capability_robust(MOODY, delta=delta, rtol=0.1)
            except ac.AlignmentViolation:
                MOOD.weight = 0.0
                raise
    """,
    )
    result = run(f"--alignment-inconclusive={choice}", "-W", "default")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.fnmatch_lines(["E*Inconclusive: *"])


def test_a_failure_is_not_hidden_by_what_could_not_be_judged_before(suite, run):
    suite(
        COUNTING,
        """
        FLAT = ac.landscape(lambda x: 0 * x.sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)

        @FEW
        @given(delta=GAIN, flat=st.booleans())
        def test_it(alignment, delta, flat):
            if flat:
                alignment.assert_alignment_robust(FLAT, delta=delta, rtol=0.1)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    for choice in ("skip", "warn"):
        result = run(f"--alignment-inconclusive={choice}", "-W", "ignore")
        result.assert_outcomes(failed=1)
        result.stdout.no_fnmatch_line("*Flaky*")


# -------------------------------------------------------------------------------------------------- Hypothesis's habits


def test_explicit_examples(suite, run, stored, written):
    suite(
        COUNTING,
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
        COUNTING,
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
        COUNTING,
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
        COUNTING,
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
        COUNTING,
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
        COUNTING,
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


# ------------------------------------------------------------------------------------------------ bodies of every kind


def test_bodies_that_catch_skip_or_fail_do_as_ever(suite, run):
    suite(
        COUNTING,
        """
        @FEW
        @given(delta=GAIN)
        def test_catches(alignment, delta):
            try:
                verdict = alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
            except Exception as error:
                verdict = error.verdict
            assert verdict.status in ("pass", "fail")

        @FEW
        @given(delta=GAIN)
        def test_expects(alignment, delta):
            with pytest.raises(ac.AlignmentViolation):
                alignment.assert_strongly_aligned(BOWL, worst=0.0, within=2, delta=delta)

        @FEW
        @given(delta=GAIN)
        def test_skips(alignment, delta):
            pytest.skip("not here")

        @FEW
        @given(delta=GAIN)
        def test_fails_itself(alignment, delta):
            pytest.fail("by itself")

        @FEW
        @given(delta=GAIN)
        def test_is_wrong(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, tolerance=1)
    """,
    )
    result = run()
    result.assert_outcomes(passed=2, skipped=1, failed=2)
    result.stdout.fnmatch_lines(["*Failed: by itself*", "*unexpected keyword argument 'tolerance'*"])


def test_a_timeout_ends_the_dry_pass_too(suite, run):
    suite(
        COUNTING,
        """
        import time

        @pytest.mark.timeout(1)
        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            time.sleep(60)
    """,
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *Timeout*"])


def test_one_that_cannot_be_trained_spoils_no_other(suite, run):
    suite(
        COUNTING,
        """
        def odd(realization, magnitude, generator):
            if magnitude > 0.5:
                raise RuntimeError("not so far")
            return realization

        @settings(FEW, max_examples=40)
        @given(delta=pt.custom("odd", odd, 1.0))
        def test_it(alignment, delta):
            if delta.magnitude > 0.5:
                with pytest.raises(RuntimeError, match="not so far"):
                    alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
            else:
                alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    run().assert_outcomes(passed=1)


def test_a_hypothesis_that_hides_its_draws_is_said(suite, run, written, section, monkeypatch):
    monkeypatch.setattr("pytest_alignment.dry.SETTINGS", "_no_such_attribute")
    suite(COUNTING, FAILING.replace("rtol=0.1", "rtol=99"))
    result = run("-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    assert [line for line in section(result) if line.startswith("given: Hypothesis") and "by itself" in line]
    assert set(written("launches")) <= {1, 2}
