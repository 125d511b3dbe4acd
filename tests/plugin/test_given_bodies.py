"""Under `@given`, bodies of every kind: they target, exit, catch, skip, time out, or assert from threads."""

import pytest


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
        assert (pytester.path / "kept").exists()


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

        @settings(FEW, max_examples=20)
        @given(delta=pt.learning_rate(max_log2=0.5), chosen=st.sampled_from([0.45, 0.001]))
        def test_it(alignment, delta, chosen):
            HOLDER.rate = chosen
            setup = ac.landscape(square, [1.0], optimizer=descent, steps=20)
            alignment.assert_capability_robust(setup, delta=delta, rtol=0.15, backend="lanes")
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

        @settings(FEW, deadline=None)
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


@pytest.mark.parametrize("first", [0.0, 30.0])
def test_two_functions_of_one_name_are_refused_also_where_given_draws_the_same_of_both(suite, run, first):
    """Else the verdict on the one would be taken for the other's."""
    suite(
        """
        from dataclasses import replace
        from hypothesis import find

        def scaled(by):
            def apply(run, magnitude, generator):
                return replace(run, parameters={name: value * (1 + by) for name, value in run.parameters.items()})
            return find(pt.custom("scaled", apply, 1.0), lambda delta: delta.magnitude == 1)

        @given(delta=st.sampled_from([scaled(FIRST), scaled(30.0 - FIRST)]))
        def test_it(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)

        def test_searched(alignment):
            drawn = st.sampled_from([scaled(FIRST), scaled(30.0 - FIRST)])
            alignment.assert_capability_robust(BOWL, under=drawn, rtol=0.1)
    """.replace("FIRST", str(first))
    )
    result = run()
    result.assert_outcomes(failed=2)
    refused = "*ValueError: custom: two different functions both go by the name *scaled*"
    result.stdout.fnmatch_lines(["*_ test_it _*", refused, "*_ test_searched _*", refused])


# ------------------------------------------------------------------------------------------------ bodies of every kind


def test_bodies_that_catch_skip_or_fail_do_as_ever(suite, run):
    suite(
        "counting",
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
        "counting",
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
        "counting",
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
    suite(
        "counting",
        """
        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
    """,
    )
    result = run("-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    assert [line for line in section(result) if line.startswith("given: Hypothesis") and "by itself" in line]
    assert set(written("launches")) <= {1, 2}
