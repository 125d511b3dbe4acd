"""What fails under `@given`: shrunk in few batches, stored once, and never flaky, also where chance has a part."""

import pytest

FAILING = """
    @FEW
    @given(delta=GAIN, other=st.integers())
    def test_fails(alignment, delta, other):
        alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
"""


def test_a_failure_is_shrunk_in_few_batches_and_stored_once(suite, run, written, stored, section):
    suite("counting", FAILING)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.fnmatch_lines(["E *CapabilityNotRobust: capability is not robust under init_gain(log2=*"])
    (envelope,) = stored()
    assert abs(envelope.perturbation["magnitude"]) == pytest.approx(0.0688, rel=0.02)  # 2^(2m) = 1.1
    assert len(written("launches")) <= 15
    assert len([line for line in section(result) if line.startswith("FAILED")]) == 1
    assert "holds up to" in result.stdout.str()


@pytest.mark.parametrize("drawn", [2, 8])
def test_a_failure_to_the_other_side_is_shrunk_as_far_as_the_first(suite, run, stored, drawn):
    """C is quadratic in θ(0): 2^(2m) is 1.1 at 0.0688, and 0.9 at -0.0760; nothing nearly as small is drawn."""
    suite(
        "counting",
        f"""
        @seed({drawn})
        @settings(database=None)
        @given(delta=GAIN, other=st.integers())
        def test_fails(alignment, delta, other):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    result = run()
    result.assert_outcomes(failed=1)
    (envelope,) = stored()
    found = [one["magnitude"] for one in (envelope.perturbation, *envelope.others)]
    assert found == [pytest.approx(0.0688, rel=0.02), pytest.approx(-0.0760, rel=0.02)]


def test_without_the_shrink_phase_nothing_is_shrunk(suite, run, written):
    suite("counting", FAILING.replace("@FEW", "@settings(FEW, phases=[Phase.generate])"))
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *searched 1 perturbation,*"])
    assert len(written("launches")) <= 3


def test_each_failure_of_a_body_is_found(suite, run, stored):
    suite(
        "counting",
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


COMPOSED = """
    def unchanged(realization, magnitude, generator):
        return realization

    IDLE = [pt.custom(name, unchanged, 1.0) for name in ("first", "second", "third")]

    @settings(FEW, max_examples=30)
    @given(DELTA)
    def test_fails(alignment, delta):
        ASSUMED
        alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
"""


@pytest.mark.parametrize("delta", ["pt.compose(GAIN, *IDLE)", "st.one_of(pt.compose(GAIN, *IDLE), IDLE[0])"])
def test_components_that_are_not_needed_are_dropped_though_no_example_was_drawn_without_them_all(
    suite, run, written, stored, delta
):
    suite("counting", COMPOSED.replace("DELTA", delta).replace("ASSUMED", ""))
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    assert envelope.perturbation["family"] == "init_gain"
    assert 0.0687 <= abs(envelope.perturbation["magnitude"]) <= 0.0768  # 2^(2m) is 1.1 or 0.9
    assert len(written("launches")) <= 15


def test_the_heading_has_no_parts_that_do_nothing(suite, run):
    """Hypothesis shrinks what is not needed to 0, and a composition goes on to have it."""
    suite("counting", COMPOSED.replace("DELTA", "pt.compose(GAIN, *IDLE)").replace("ASSUMED", ""))
    result = run()
    result.stdout.re_match_lines(
        [r"E .*CapabilityNotRobust: capability is not robust under init_gain\(log2=[^,]*\), rtol"]
    )
    result.stdout.re_match_lines([r"  capability is not robust under init_gain\(log2=[^,]*\), rtol=0.1"])


def test_where_hypothesis_does_not_show_its_strategies_that_is_said(suite, run, section, monkeypatch):
    monkeypatch.setattr("pytest_alignment.dry.STRATEGIES", "another_name")
    suite("counting", COMPOSED.replace("DELTA", "pt.compose(GAIN, *IDLE)").replace("ASSUMED", ""))
    result = run("-W", "default")
    result.assert_outcomes(failed=1, warnings=1)
    assert [line for line in section(result) if "does not show what it draws from" in line]


@pytest.mark.parametrize(
    ("delta", "assumed"),
    [
        ("delta=pt.compose(GAIN, *IDLE).filter(lambda delta: sum(p.magnitude != 0 for p in delta.parts) > 2)", ""),
        ("delta=pt.compose(GAIN, *IDLE)", "assume(sum(part.magnitude != 0 for part in delta.parts) > 2)"),
    ],
)
def test_no_component_is_dropped_that_a_filter_or_an_assumption_may_ask_for(suite, run, stored, delta, assumed):
    suite("counting", COMPOSED.replace("DELTA", delta).replace("ASSUMED", assumed))
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    assert sum(part["magnitude"] != 0 for part in envelope.perturbation["components"]) > 2


FAR = "GAIN.filter(lambda delta: assume(not 0.05 < abs(delta.magnitude) < 0.3))"


@pytest.mark.parametrize("delta", [FAR, f"pt.compose({FAR}, *IDLE)"])
def test_a_failure_is_shrunk_to_what_the_filter_of_its_strategy_lets_through(suite, run, stored, delta):
    """It would fail from 0.0688 on, which no example draws."""
    suite("counting", COMPOSED.replace("DELTA", delta).replace("ASSUMED", ""))
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    parts = envelope.perturbation["components"] or [envelope.perturbation]
    (gain,) = [abs(part["magnitude"]) for part in parts if part["family"] == "init_gain"]
    assert gain == pytest.approx(0.3, rel=0.01)


def test_what_a_filter_raises_while_a_failure_is_shrunk_is_told_once_and_not_flaky(suite, run):
    suite(
        "counting",
        """
        NEVER = {}

        @FEW
        @given(delta=GAIN.filter(lambda delta: not 0.0687 < abs(delta.magnitude) < 0.0768 or NEVER["mine"]))
        def test_fails(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.fnmatch_lines(["E *KeyError: 'mine'", "E *raised by a condition that a strategy is filtered by, *"])
    raised = [line for line in result.outlines if line.startswith("E ") and "raised by a condition" in line]
    assert len(raised) == 1


def test_no_component_is_dropped_without_which_the_body_asks_for_something_else(suite, run, stored):
    suite(
        "counting",
        COMPOSED.replace("DELTA", "delta=pt.compose(GAIN, *IDLE)").replace(
            "ASSUMED", "if delta.parts[1].magnitude <= 0.1:\n            return"
        ),
    )
    run().assert_outcomes(failed=1)
    (envelope,) = stored()
    first = [part for part in envelope.perturbation["components"] if ["name", "first"] in part["options"]]
    assert [part["magnitude"] > 0.1 for part in first] == [True]


def test_hypothesis_tries_its_own_stored_failure_first_and_keeps_it(suite, run, written, pytester):
    suite(
        "counting",
        """
        from hypothesis.database import DirectoryBasedExampleDatabase

        @settings(max_examples=12, database=DirectoryBasedExampleDatabase("kept"))
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


@pytest.mark.parametrize("loose", ["rtol=99.0", "rtol=0.1, side='better'"])
def test_what_is_reported_was_asked_with_the_arguments_that_fail(suite, run, stored, loose):
    suite(
        "counting",
        """
        @settings(FEW, max_examples=40)
        @given(delta=GAIN)
        def test_fails(alignment, delta):
            how = dict(rtol=0.1) if abs(delta.magnitude) > 0.5 else dict(LOOSE)
            alignment.assert_capability_robust(BOWL, delta=delta, **how)
    """.replace("LOOSE", loose),
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    (envelope,) = stored()
    assert abs(envelope.perturbation["magnitude"]) > 0.5


@pytest.mark.parametrize("raised", ["RuntimeError('wrapped') from error", "ExceptionGroup('', [error])"])
def test_a_violation_that_is_raised_as_something_else_is_stored_and_summed_up(suite, run, stored, section, raised):
    suite(
        "counting",
        """
        @FEW
        @given(delta=GAIN)
        def test_fails(alignment, delta):
            try:
                alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
            except AssertionError as error:
                raise RAISED
    """.replace("RAISED", raised),
    )
    result = run()
    result.assert_outcomes(failed=1)
    assert len(stored()) == 1
    assert len([line for line in section(result) if line.startswith("FAILED")]) == 1


def test_what_cannot_be_trained_fails_its_own_example_alone(suite, run):
    suite(
        "counting",
        """
        import dataclasses

        def heavy(parameters):
            raise RuntimeError("too heavy")

        def burdened(realization, magnitude, generator):
            return dataclasses.replace(realization, optimizer=heavy) if magnitude > 0.5 else realization

        @settings(FEW, max_examples=40)
        @given(delta=pt.custom("burdened", burdened, 1.0), n=st.integers(0, 3))
        def test_fails(alignment, delta, n):
            assert n < 3, "too large"
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
    """,
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*RuntimeError: too heavy*"])
    result.stdout.fnmatch_lines(["*AssertionError: too large*"])
    result.stdout.no_fnmatch_line("*Flaky*")


def test_a_stored_failure_is_kept_for_replay_until_another_takes_its_place(suite, run, stored, section):
    """Hypothesis tries its own first; that all examples pass does not say that the stored one would."""
    suite("counting", FAILING)
    run().assert_outcomes(failed=1)
    (first,) = stored()
    suite("counting", FAILING.replace("rtol=0.1", "rtol=99"))
    run().assert_outcomes(passed=1)
    assert stored() == [first]
    result = run(f"--alignment-replay={first.id}")
    result.assert_outcomes(passed=1)
    assert [line for line in section(result) if line.startswith(f"replayed: {first.id} no longer fails")]
    suite("counting", FAILING.replace("rtol=0.1", "rtol=0.2"))
    run().assert_outcomes(failed=1)
    (second,) = stored()
    assert second.id != first.id
