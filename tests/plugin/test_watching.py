"""Long work shows itself, and what fails is told at once."""

import io
import re

import pytest
from pytest_alignment import watching
from pytest_alignment.watching import Screen, standing

from alignment_checks.exploration.progress import Progress

SLOW = """
    def test_fails(alignment):
        alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
"""
FAR = Progress((), False, 2, 50, 100, 80, 0, None, None, 20.0)


@pytest.fixture
def at_once(monkeypatch):
    """Show every search, however short."""
    monkeypatch.setattr(watching, "SOON", 0.0)
    monkeypatch.setattr(watching, "OFTEN", 0.0)


def test_the_first_failure_is_printed_at_once_unshrunk(suite, run, at_once):
    suite(SLOW)
    result = run()
    result.assert_outcomes(failed=1)
    (line,) = [line for line in result.outlines if "looking for the smallest" in line]
    assert re.match(r"test_it.py::test_fails fails at init_gain\(log2=\S+\): off by \S+, allowed \S+; looking", line)
    assert result.outlines.index(line) < next(i for i, one in enumerate(result.outlines) if "FAILURES" in one)


def test_without_a_terminal_a_search_that_is_over_soon_shows_its_first_failure_alone(suite, run, at_once):
    suite(SLOW)
    lines = run().outlines
    assert not [line for line in lines if "runs/s" in line]
    assert len([line for line in lines if "looking for the smallest" in line]) == 1


def test_without_a_terminal_a_line_comes_each_half_a_minute_of_a_search(reporting):
    config, out = reporting(io.StringIO())
    clock = [1000.0]
    screen = Screen(config, lambda: clock[0])
    screen.begin()
    for second in range(100):
        clock[0] = 1000.0 + second
        screen.show(lambda: str(second))  # noqa: B023
    assert out.getvalue().split() == ["30", "60", "90"]
    screen.begin()
    clock[0] += 29
    screen.show(pytest.fail)


@pytest.mark.parametrize("drawn", [False, True])
def test_it_moves_within_a_batch(suite, run, at_once, monkeypatch, drawn):
    monkeypatch.setattr(watching, "SELDOM", 0.0)
    given = """
        @settings(max_examples=8, database=None, derandomize=True)
        @given(delta=UNCHANGED)
        def test_it(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """
    suite(given if drawn else "passing")
    shown = [line for line in run().outlines if re.search(r"step \d+ of 4$", line)]
    assert len(shown) >= 5
    assert all(line.startswith("test_it.py::test_") for line in shown)


def test_it_is_silent_in_workers_and_in_processes_that_train(suite, run, at_once, pytester, monkeypatch):
    monkeypatch.setattr(watching, "SELDOM", 0.0)
    seen = watching.Watching(Screen(pytester.parseconfig()), None, None, "t", None)
    told = []
    seen._screen.show = lambda line: told.append(line())
    seen.beat(3, 9)
    config = pytester.parseconfig()
    config.workerinput = {}
    worker = Screen(config)
    worker.show(pytest.fail)
    worker.tell("nothing")
    monkeypatch.setattr(watching.os, "getpid", lambda: -1)
    seen.beat(4, 9)
    assert told == ["t: training, step 3 of 9"]


@pytest.mark.parametrize("args", [["-q"], ["-p", "no:terminal"]])
def test_quiet_means_quiet(suite, run, at_once, args):
    suite(SLOW)
    text = run(*args).stdout.str()
    assert "runs/s" not in text
    assert "looking for the smallest" not in text


def test_a_short_search_shows_nothing(suite, run):
    suite("passing")
    assert "runs/s" not in run().stdout.str()


def test_it_is_shown_also_where_output_is_not_captured(suite, run, at_once):
    suite(SLOW)
    assert "looking for the smallest" in run("-s").stdout.str()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def reporting(pytester):
    """Return a function that returns a config of which the terminal is a given stream, and that stream."""
    from _pytest.terminal import TerminalReporter

    def to(out):
        config = pytester.parseconfig()
        config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(TerminalReporter(config, out), "terminalreporter")
        return config, out

    return to


def test_on_a_terminal_the_line_is_live_and_leaves_nothing(reporting):
    config, out = reporting(Terminal())
    times = iter(range(100))
    screen = Screen(config, lambda: next(times))
    screen.show(lambda: "one")
    screen.show(lambda: "two")
    screen.tell("stays")
    screen.clear()
    assert out.getvalue() == "\r\x1b[2Kone\r\x1b[2Ktwo\r\x1b[2Kstays\n"


def test_it_says_how_far_a_search_has_come():
    assert standing("t", FAR, None) == "t: 80 runs, 4.0 runs/s, 0 failures, about 20 s left"
    assert standing("t", FAR, 25.0) == "t: 80 runs, 4.0 runs/s, 0 failures, about 5 s left"
    assert standing("t", FAR, None, since=8.0) == "t: 80 runs, 4.0 runs/s, 0 failures, about 12 s left"
    assert standing("t", FAR, None, since=30.0) == "t: 80 runs, 4.0 runs/s, 0 failures, about 0 s left"
    failing = Progress((), False, 2, 50, 100, 80, 1, None, None, 20.0)
    assert standing("t", failing, None) == "t: 80 runs, 4.0 runs/s, 1 failure, shrinking"
    assert standing("t", failing, 10.0) == "t: 80 runs, 4.0 runs/s, 1 failure, about 0 s left, shrinking"
    begun = Progress((), False, 0, 0, 100, 0, 0, None, None, 0.0)
    assert standing("t", begun, None) == "t: 0 runs, 0.0 runs/s, 0 failures"


def test_the_users_own_watch_is_told_too(suite, run):
    suite("""
        def test_it(alignment):
            seen = []
            alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1, watch=seen.append)
            assert seen and seen[-1].judged > 1
    """)
    run().assert_outcomes(passed=1)


def test_an_interrupt_prints_what_was_found_so_far(suite, run, section):
    suite("""
        def test_it(alignment):
            def stop(progress):
                if progress.failures:
                    raise KeyboardInterrupt
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1, watch=stop)
    """)
    lines = section(run(no_reraise_ctrlc=True))
    assert lines[0] == "INTERRUPTED test_it.py::test_it"
    assert re.match(r"  smallest failing δ so far   init_gain\(log2=\S+\)      off by \S+, allowed \S+", lines[1])


def test_of_what_fails_unperturbed_that_is_said_and_no_perturbation_is_named(suite, run, section, at_once):
    suite("""
        def test_it(alignment):
            def stop(progress):
                if progress.failures:
                    raise KeyboardInterrupt
            alignment.assert_strongly_aligned(BOWL, worst=0.1, within=3, watch=stop)
    """)
    result = run(no_reraise_ctrlc=True)
    missed = "the highest L within 3 steps is 0.405, allowed 0.1"
    assert section(result)[1] == f"  fails unperturbed      {missed}"
    assert f"test_it.py::test_it fails unperturbed: {missed}" in result.outlines
    assert "identity" not in result.stdout.str()
    assert "looking for the smallest" not in result.stdout.str()
