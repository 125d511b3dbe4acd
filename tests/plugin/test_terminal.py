"""What is printed: the header line, and the section after the run."""

import re
from types import SimpleNamespace

import pytest
from pytest_alignment import terminal
from pytest_alignment.ledger import Ledger
from pytest_alignment.results import Key, Result
from pytest_alignment.threads import allotted, workers


def test_the_header_says_what_runs_on_what(suite, run):
    suite("plain")
    result = run()
    result.stdout.fnmatch_lines(["alignment: device auto, one thread, examples 8, store .alignment/examples"])
    run("-q").stdout.no_fnmatch_line("alignment: *")


def test_nothing_else_is_printed_where_no_alignment_test_ran(suite, run, section):
    suite("plain", "failing")
    result = run("-k", "plain")
    assert section(result) == []
    ours = [line for line in result.outlines if "alignment" in line and not line.startswith(("plugins", "rootdir"))]
    assert [line.split(",")[0] for line in ours] == ["alignment: device auto"]


def test_nothing_is_printed_where_all_is_well(suite, run, section):
    suite("passing")
    assert section(run()) == []


def test_a_failure_is_summed_up(suite, run, section, stored):
    suite("passing", "failing")
    lines = section(run("--tb=no", "-q"))
    assert lines[:2] == [
        "FAILED test_it.py::test_fails",
        "  capability is not robust under init_gain(max_log2=1), rtol=0.1",
    ]
    assert lines[2].startswith("  smallest failing δ   init_gain(log2=0.06")
    assert lines[3].startswith("  worst δ found        init_gain(log2=1) ")
    assert lines[4].startswith("  holds up to          init_gain(log2=0.06")
    assert re.fullmatch(r"  off by, up to 1      │?[▁▂▃▄▅▆▇█│]{16,}      │ more than is allowed", lines[5])
    assert lines[6].startswith("  fails too at         init_gain(log2=-0.07")
    assert re.fullmatch(r"  off by, up to -1     │?[▁▂▃▄▅▆▇█│]{16,}", lines[7])
    assert lines[8:] == [f"  replay   pytest 'test_it.py::test_fails' --alignment-replay={stored()[0].id}"]


def test_every_kind_of_failure_of_a_composed_space_is_in_the_section(suite, run, section):
    suite("""
        def test_it(alignment):
            both = pt.compose(STRETCHED, PENALIZED)
            alignment.assert_capability_robust(BOWL, under=both, rtol=0.1)
    """)
    lines = [line.split("(")[0] for line in section(run())]
    smallest, *others = (line.split()[-1] for line in lines if "smallest" in line or "fails too" in line)
    assert sorted([smallest, *others]) == ["init_gain", "init_gain", "l2_penalty"]


def test_failures_stand_in_the_order_of_the_source(suite, run, section):
    suite("""
        @pytest.mark.parametrize("n", [3, 1, 2])
        def test_z(alignment, n):
            alignment.assert_strongly_aligned(BOWL, worst=0.1, within=n)

        class TestA:
            def test_a(self, alignment):
                alignment.assert_more_capable(BOWL, than=BOWL)
    """)
    result = run()
    names = [line.split("::", 1)[1] for line in section(result) if line.startswith("FAILED")]
    assert names == ["test_z[1]", "test_z[2]", "test_z[3]", "TestA::test_a"]


def test_from_another_directory_the_command_still_works(suite, run, pytester, section, monkeypatch):
    (pytester.path / "pytest.ini").write_text("[pytest]\n")
    suite("failing")
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    result = run("..")
    assert "FAILED ../test_it.py::test_fails" in section(result)
    command = next(line for line in section(result) if line.startswith("  replay "))
    assert command.startswith("  replay   pytest '../test_it.py::test_fails' --alignment-replay=")
    run("../test_it.py::test_fails", command.split()[-1]).assert_outcomes(failed=1)


def test_the_section_comes_also_after_an_interrupt(suite, run, section):
    suite(
        "failing",
        """
        def test_interrupted():
            raise KeyboardInterrupt
    """,
    )
    assert section(run(no_reraise_ctrlc=True))[0] == "FAILED test_it.py::test_fails"


def test_no_summary_means_none(suite, run, section):
    suite("failing")
    assert section(run("--no-summary")) == []


@pytest.mark.parametrize(
    ("args", "expected"),
    [([], 1), (["-n", "3"], 3), (["-n", "0"], 1), (["-n", "8", "--maxprocesses=2"], 2), (["-d", "--tx", "5*popen"], 5)],
)
def test_workers_share_the_cores(pytester, monkeypatch, args, expected):
    config = pytester.parseconfig(*args)
    config.hook.pytest_cmdline_main = None  # parsed as far as pytest-xdist needs it, and not run
    from xdist.plugin import pytest_cmdline_main

    pytest_cmdline_main(config)
    monkeypatch.setattr("pytest_alignment.threads._cores", lambda: 12)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert workers(config) == expected
    assert allotted(config) == 12 // expected
    monkeypatch.setattr("pytest_alignment.threads._cores", lambda: 1)
    assert allotted(config) == 1
    monkeypatch.setattr("pytest_alignment.threads._cores", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert allotted(config) == 3
    many = "one thread" if expected == 1 else f"{expected} processes of one thread"
    assert f"device auto, {many}, examples" in terminal.header(Ledger(config))


def test_each_failing_assertion_has_its_own_p_value():
    """Holm's is that of the test, of its least."""
    ledger = SimpleNamespace(shown=str, options=SimpleNamespace(replay=None), interrupted=[], said={})
    found = [
        Result(Key("test_it.py::test_it", "capability_robust", "", i), "fail", "no", raised=True, p_value=p, tests=3)
        for i, p in enumerate((0.012, 0.001))
    ]
    assert [line for line in terminal.summary(ledger, found) if line.startswith("  p = ")] == [
        "  p = 0.012; its test's least, 0.001, adjusted for 3 tests (Holm) 0.003",
        "  p = 0.001, adjusted for 3 tests (Holm) 0.003",
    ]
