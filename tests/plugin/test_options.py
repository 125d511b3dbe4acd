"""The options, their ini twins, and the marker."""

import json

import pytest
from pytest_alignment import options

BAD = {
    "device": (["gpu", "cuda:x", "CUDA", "cpu "], "expected a device, one of auto, cpu, cuda"),
    "examples": (["0", "-1", "1.5", "many", "1_000"], "expected how many perturbations to draw, at least 1"),
    "max-time": (["0", "-1", "soon", "inf", "nan", "0.0"], "expected seconds for each assertion, a number above 0"),
    "replay": (["ALL", "3fa9", "test_it.py", "zzzzzz"], "expected the id that a failure ends with"),
    "report": ([".", "r.xml", "report"], "expected a file to write, its name ending in .html, .md, .json"),
    "inconclusive": (["pass", "FAIL", "xfail"], "expected one of fail, skip, warn"),
    "level": (["0", "1", "0.6", "-0.1", "nan", "5%"], "expected a probability above 0, at most 0.5"),
}


@pytest.mark.parametrize(("short", "value"), [(short, value) for short in BAD for value in BAD[short][0]])
def test_a_bad_value_is_refused_before_anything_runs(suite, pytester, short, value):
    suite("failing")
    result = pytester.runpytest_inprocess(f"--alignment-{short}={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--alignment-{short}: {BAD[short][1]}" in result.stderr.str()
    assert repr(value) in result.stderr.str()
    result.stdout.no_fnmatch_line("*collected*")


@pytest.mark.parametrize("short", BAD)
def test_so_is_a_bad_value_in_the_ini_file(suite, pytester, short):
    suite("failing")
    name = f"alignment_{short.replace('-', '_')}"
    pytester.makeini(f"[pytest]\n{name} = {BAD[short][0][0]}")
    result = pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*ini option {name}: *"])


def test_an_option_without_a_value_does_not_take_the_next_argument(suite, pytester):
    suite("passing")
    result = pytester.runpytest_inprocess("--alignment-replay", "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--alignment-replay=3fa9c1" in result.stderr.str()


@pytest.mark.parametrize("source", ["ini", "toml", "command line"])
def test_each_option_can_stand_in_the_ini_file_or_on_the_command_line(pytester, source):
    given = {"device": "cpu", "examples": "7", "max_time": "2.5", "replay": "all", "report": "r.md"}
    given |= {"inconclusive": "skip", "level": "0.01"}
    if source == "ini":
        pytester.makeini("[pytest]\n" + "\n".join(f"alignment_{name} = {value}" for name, value in given.items()))
    if source == "toml":
        lines = [f"alignment_{name} = {value if value == '7' else json.dumps(value)}" for name, value in given.items()]
        pytester.makefile(".toml", pytest="[pytest]\n" + "\n".join(lines))
    if source == "toml" and pytest.version_tuple < (9,):
        pytest.skip("pytest 9 reads pytest.toml")
    flags = [f"--alignment-{name.replace('_', '-')}={value}" for name, value in given.items()]
    args = flags if source == "command line" else []
    read = options.read(pytester.parseconfig(*args))
    assert read == options.Options("cpu", 7, 2.5, "all", pytester.path / "r.md", None, "skip", 0.01)


def test_the_command_line_goes_before_the_ini_file(pytester):
    pytester.makeini("[pytest]\nalignment_examples = 7\nalignment_device = cuda")
    read = options.read(pytester.parseconfig("--alignment-examples=9", "--hypothesis-seed=5"))
    assert read == options.Options("cuda", 9, None, None, None, "5")


def test_without_any_the_defaults_hold(pytester):
    assert options.read(pytester.parseconfig()) == options.Options("auto", 100, None, None, None, None)


def test_they_are_in_the_help(pytester):
    text = pytester.runpytest_inprocess("--help").stdout.str()
    metavars = {"device": "DEVICE", "examples": "N", "max-time": "SECONDS", "replay": "ID|all", "report": "PATH"}
    metavars |= {"inconclusive": "fail|skip|warn", "level": "P"}
    for short, metavar in metavars.items():
        assert f"--alignment-{short}={metavar}" in text
        assert f"alignment_{short.replace('-', '_')} " in text


def test_max_time_ends_a_search_in_time_and_says_so(suite, run):
    suite("""
        import time

        def slow(realization, magnitude, generator):
            time.sleep(0.02)
            return realization

        def test_it(alignment):
            for more in ({}, {"max_time": 1e9}):
                verdict = alignment.assert_capability_robust(BOWL, under=pt.custom("slow", slow, 1.0), rtol=9, **more)
                assert verdict.stopped_early == (not more)
    """)
    run("--alignment-max-time=0.01", "--alignment-examples=30").assert_outcomes(passed=1)


@pytest.mark.parametrize("ends", [True, False], ids=["in time", "never"])
def test_max_time_ends_the_examples_of_given_in_time_and_says_so(suite, run, written, section, ends):
    suite(
        "counting",
        """
        import time

        def slow(realization, magnitude, generator):
            time.sleep(0.01)
            return realization

        @settings(FEW, max_examples=60, deadline=None)
        @given(delta=pt.custom("slow", slow, 1.0))
        def test_it(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=9)
    """,
    )
    result = run("-W", "default", *["--alignment-max-time=0.01"] * ends)
    result.assert_outcomes(passed=1, warnings=int(ends))
    result.stdout.no_fnmatch_line("*HealthCheck*")
    assert len(written("launches")) == (1 if ends else 2)
    found = [
        line for line in section(result) if line.startswith("given: test_it stopped early: the time ran out after ")
    ]
    assert len(found) == ends


def test_the_assertions_of_a_body_have_their_time_each_and_what_fails_by_then_is_reported(suite, run, written):
    suite(
        "counting",
        """
        @settings(FEW, max_examples=60, deadline=None)
        @given(delta=GAIN, lr=st.floats(0.01, 0.1))
        def test_it(alignment, delta, lr):
            bowl = ac.landscape(lambda x: (x**2).sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=lr), steps=4)
            alignment.assert_capability_robust(bowl, delta=delta, rtol=9, max_time=1e-6)
            alignment.assert_capability_robust(bowl, delta=delta, rtol=0.1, max_time=1e-6)
    """,
    )
    result = run("-W", "default")
    result.assert_outcomes(failed=1, warnings=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.no_fnmatch_line("*HealthCheck*")
    result.stdout.fnmatch_lines(["E *CapabilityNotRobust: capability is not robust under init_gain(log2=*"])


@pytest.mark.parametrize("explicit", ["", "@example(delta=A) @example(delta=B)"], ids=["drawn", "explicit"])
def test_as_many_examples_of_given_are_judged_as_hypothesis_asks_for_however_long_they_take(suite, run, explicit):
    """Each has a setup of its own, so that none is trained before it is asked for."""
    suite(
        "counting",
        """
        A, B = (pt.Perturbation("init_gain", size, 1, 0) for size in (0.25, 0.5))

        EXPLICIT
        @settings(max_examples=60, database=None, derandomize=True)
        @given(delta=GAIN)
        def test_it(alignment, delta):
            own = object()
            bowl = ac.landscape(lambda x: (own is not None) * (x**2).sum(), [1.0], optimizer=BOWL.optimizer, steps=4)
            alignment.assert_capability_robust(bowl, delta=delta, rtol=9, max_time=1e-6)
            SEEN.append(delta.magnitude)
    """.replace("EXPLICIT", explicit.replace(" ", "\n        ")),
    )
    result = run("-W", "default")
    result.assert_outcomes(passed=1, warnings=2)
    judged = 13 if explicit else 11
    result.stdout.fnmatch_lines([f"given: test_it stopped early: the time ran out after {judged} examples"])


def test_device_and_examples_reach_the_search_unless_the_test_says_otherwise(suite, pytester):
    suite("""
        from alignment_checks import checks
        from alignment_checks.properties import searched

        def test_it(alignment, monkeypatch):
            seen = []
            monkeypatch.setattr(searched, "search", lambda *a, **k: seen.append(k["examples"]) or 1 / 0)
            for more in ({"device": "cpu"}, {"device": "cpu", "examples": 3}):
                with pytest.raises(ZeroDivisionError):
                    alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1, **more)
            assert seen == [12, 3]
            monkeypatch.undo()
            with pytest.raises(ValueError, match="xpu"):
                alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
            alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1, device="cpu")
    """)
    result = pytester.runpytest_inprocess("-p", "no:randomly", "--alignment-examples=12", "--alignment-device=xpu:3")
    result.assert_outcomes(passed=1)


# -------------------------------------------------------------------------------------------------------------- marker


def test_the_marker_selects_what_uses_the_fixture(suite, run):
    suite(
        "passing",
        "plain",
        """
        @pytest.fixture
        def through(alignment):
            return alignment

        def test_through(through):
            pass

        @pytest.mark.usefixtures("alignment")
        class TestClass:
            def test_it(self):
                pass
    """,
    )
    run("-m", "alignment", "--strict-markers").assert_outcomes(passed=3, deselected=1)
    run("-m", "not alignment").assert_outcomes(passed=1, deselected=3)
    run("--markers").stdout.fnmatch_lines(["@pytest.mark.alignment: *"])
