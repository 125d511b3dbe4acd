"""A process that dies while it trains is followed up by the next run, until the culprit is known."""

import os
import signal
import time
import warnings

import pytest
from pytest_alignment.journal import crashes

DEADLY = """
    import os, signal

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def deadly(realization, magnitude, generator):
        if os.environ.get("DEADLY") and 0.4 < magnitude < 1:  # not at the limit, which is tried before any draw
            die()
        return realization

    LOST = pt.custom("deadly", deadly, 1.0)

    def test_before(alignment):
        alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=99)

    def test_dies(alignment):
        alignment.assert_capability_robust(BOWL, under=LOST, rtol=0.1)
"""


@pytest.fixture
def killed(run):
    """Return a function that runs pytest in a process that dies, and returns what it died of."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork")

    def run_in_fork(*args, when=None):
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # there may be idle threads
            child = os.fork()
        if child == 0:
            try:
                run(*args)
            finally:
                os._exit(0)
        while when is not None and not when.exists():
            time.sleep(0.02)
        if when is not None:
            when.unlink()
            os.kill(child, signal.SIGKILL)
        return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run_in_fork


def test_a_killed_run_is_followed_up_until_the_culprit_is_known(suite, run, killed, pytester, section, monkeypatch):
    suite(DEADLY)
    folder = pytester.path / ".alignment" / "journal"
    monkeypatch.setenv("DEADLY", "1")
    assert killed() == signal.SIGKILL
    (crash,) = crashes(folder)
    assert crash.key.nodeid == "test_it.py::test_dies"
    assert len(crash.batch) > 2

    assert killed() == signal.SIGKILL
    (culprit,) = crashes(folder)
    assert len(culprit.batch) == 1
    assert 0.4 < culprit.batch[0]["magnitude"] < 1

    named = run("-W", "default")
    named.assert_outcomes(passed=1, failed=1, warnings=1)
    (line,) = [line for line in section(named) if line.startswith("crash: ")]
    assert line.startswith("crash: the process died while it trained deadly(")
    assert line.endswith("   test_it.py::test_dies")
    named.stdout.fnmatch_lines(
        ["E *inconclusive: whether capability_robust(under=*) holds", "E *the process died while it trained deadly(*"]
    )

    monkeypatch.delenv("DEADLY")
    run().assert_outcomes(passed=2)
    assert not folder.exists()


FATAL = """
    import ctypes, os, pathlib, time

    def die():
        HOW

    def function(x):
        if os.environ.get("DEADLY") and float(x.detach().abs().max()) > 1.6:
            die()
        return 0.5 * (x**2).sum()

    FRAGILE = ac.landscape(function, [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=4)

    def test_dies(alignment):
        alignment.assert_capability_robust(FRAGILE, under=STRETCHED, rtol=99, backend="loop")
"""


WAYS = {
    "segmentation fault": ("ctypes.string_at(0)", signal.SIGSEGV),
    "abort": ("os.abort()", signal.SIGABRT),
    "killed for memory": ("pathlib.Path('full').touch(); time.sleep(600)", signal.SIGKILL),
}


@pytest.mark.parametrize(("how", "died"), WAYS.values(), ids=WAYS)
def test_however_it_dies_in_the_middle_of_training_the_culprit_is_named(
    suite, run, killed, pytester, section, monkeypatch, how, died
):
    """The killer of processes that take too much memory comes from outside, at any time, and cannot be caught."""
    suite(FATAL.replace("HOW", how))
    monkeypatch.setenv("DEADLY", "1")
    full = pytester.path / "full"
    for batch_is_one in (False, True):
        assert killed("-p", "no:faulthandler", "-s", when=full if died is signal.SIGKILL else None) == died
        (crash,) = crashes(pytester.path / ".alignment" / "journal")
        assert (len(crash.batch) == 1) == batch_is_one
    assert crash.batch[0]["magnitude"] > 0.67  # 2^0.678 = 1.6
    named = run("-W", "default")
    named.assert_outcomes(failed=1)
    (line,) = [line for line in section(named) if line.startswith("crash: ")]
    assert line.startswith("crash: the process died while it trained init_gain(log2=")


def test_under_given_the_foreseen_batch_is_in_the_journal(suite, run, killed, pytester, monkeypatch):
    suite(
        DEADLY.split("def test_before")[0],
        """
        @settings(max_examples=20, deadline=None, database=None, derandomize=True)
        @given(delta=LOST)
        def test_dies(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    folder = pytester.path / ".alignment" / "journal"
    monkeypatch.setenv("DEADLY", "1")
    assert killed() == signal.SIGKILL
    (crash,) = crashes(folder)
    assert len(crash.batch) > 3

    assert killed() == signal.SIGKILL
    (culprit,) = crashes(folder)
    assert [0.4 < delta["magnitude"] < 1 for delta in culprit.batch] == [True]
    run("-W", "default").stdout.fnmatch_lines(["crash: the process died while it trained deadly(*"])
    monkeypatch.delenv("DEADLY")
    run().assert_outcomes(passed=1)


def test_after_a_crash_each_example_of_given_is_trained_by_itself(suite, killed, pytester, monkeypatch):
    """What another setup died of is not found by training the batch under the setup of the first example."""
    suite("""
        import os, signal

        def function(x, lethal):
            if lethal and os.environ.get("DEADLY"):
                os.kill(os.getpid(), signal.SIGKILL)
            return 0.5 * (x**2).sum()

        @settings(max_examples=20, deadline=None, database=None, derandomize=True)
        @given(delta=STRETCHED, lethal=st.booleans())
        def test_dies(alignment, delta, lethal):
            setup = ac.landscape(
                partial(function, lethal=lethal), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=4
            )
            alignment.assert_capability_robust(setup, delta=delta, rtol=99)
    """)
    folder = pytester.path / ".alignment" / "journal"
    monkeypatch.setenv("DEADLY", "1")
    sizes = []
    for _ in range(2):
        assert killed() == signal.SIGKILL
        (crash,) = crashes(folder)
        sizes.append(len(crash.batch))
    assert sizes[0] > 3
    assert sizes[1] <= 2, "0, and the one"
