"""A suite that never asks for `alignment` pays for neither torch nor Hypothesis."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "hypothesis", "alignment_checks", "numpy", "scipy")


def test_importing_the_plugin_is_light():
    code = f"import sys, pytest_alignment; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "args", [[], ["-n", "1"], ["--alignment-examples=5", "--alignment-report=r.json", "-m", "not alignment"]]
)
def test_so_is_a_run_that_does_not_ask(pytester, args):
    pytester.makepyfile(f"""
        import sys

        def test_it():
            assert [name for name in {HEAVY} if name in sys.modules] == []
    """)
    pytester.makeconftest(f"""
        import sys

        def pytest_sessionfinish():  # Hypothesis' own plugin loads it for its terminal summary
            assert [name for name in {HEAVY} if name in sys.modules] == []

        def pytest_unconfigure():
            assert "torch" not in sys.modules
    """)
    result = pytester.runpytest_subprocess("-p", "no:randomly", *args)
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["alignment: device auto, *"])


def test_the_fixture_brings_them_also_where_warnings_are_errors(pytester):
    pytester.makepyfile("""
        import sys

        def test_it(alignment):
            assert "torch" in sys.modules and "hypothesis" in sys.modules
    """)
    pytester.runpytest_subprocess("-p", "no:randomly", "-W", "error").assert_outcomes(passed=1)


def test_the_type_of_the_fixture_is_loaded_by_whoever_names_it():
    code = "import sys, pytest_alignment as p; print('torch' in sys.modules, p.Alignment.__name__, hasattr(p, 'other'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "False Alignment False\n"
