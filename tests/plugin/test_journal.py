"""What is in flight is written down, so that the next run can tell what a process died of."""

import fcntl
import json
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_alignment.journal import FORMAT, Crash, Journal, crashes
from pytest_alignment.portable import plain
from pytest_alignment.results import Key

from alignment_checks.perturbations import Perturbation

KEY = Key("test_it.py::test_it", "capability_robust", "under=label_noise(max_rate=0.1)", 0)


BATCH = [plain(Perturbation("label_noise", rate, 0.1, 7)) for rate in (0.01, 0.02)]


def written(folder):
    """Leave what a process leaves that dies while it trains."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "1-00000000.jsonl"
    path.write_text(json.dumps({"format": FORMAT, **KEY._asdict(), "batch": BATCH}) + "\n")
    return path


def test_it_holds_the_batch_in_flight_and_nothing_else(tmp_path):
    journal = Journal(tmp_path / "home" / "journal", pytest.fail)
    journal.begin(KEY, BATCH)
    (path,) = journal.folder.iterdir()
    first = path.read_text()
    journal.begin(KEY, BATCH[:1])
    assert json.loads(first)["batch"] == BATCH
    assert json.loads(path.read_text())["batch"] == BATCH[:1]
    journal.end()
    assert path.read_text() == ""
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_removed_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    """By another process, which takes it for what a dead one left."""
    before, seen = fcntl.flock, []

    def locked(file, how):
        if how == fcntl.LOCK_EX and not seen:
            seen.append(list(crashes(tmp_path)))
        before(file, how)

    monkeypatch.setattr(fcntl, "flock", locked)
    journal = Journal(tmp_path, pytest.fail)
    journal.begin(KEY, BATCH)
    assert seen == [[]]
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["batch"] == BATCH
    journal.close()


def test_one_that_is_removed_again_and_again_is_said_not_to_be_written(tmp_path, monkeypatch):
    before, said = fcntl.flock, []

    def locked(file, how):
        if how == fcntl.LOCK_EX:
            list(crashes(tmp_path))
        before(file, how)

    monkeypatch.setattr(fcntl, "flock", locked)
    Journal(tmp_path, said.append).begin(KEY, BATCH)
    (message,) = said
    assert "removed as soon as it is made" in message


def test_an_empty_one_is_removed_while_nobody_else_can_lock_it(tmp_path, monkeypatch):
    path = tmp_path / "1-00000000.jsonl"
    path.touch()
    before, locked = type(path).unlink, []

    def unlink(self, **how):
        with self.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(self)
        before(self, **how)

    monkeypatch.setattr(type(path), "unlink", unlink)
    assert list(crashes(tmp_path)) == []
    assert locked == [path]
    assert not path.exists()


def test_one_that_ends_while_it_is_looked_at_is_no_crash(tmp_path, monkeypatch):
    path = written(tmp_path)
    before = type(path).lstat

    def lstat(self):
        self.unlink()
        return before(self)

    monkeypatch.setattr(type(path), "lstat", lstat)
    assert list(crashes(tmp_path)) == []


def test_two_processes_may_leave_at_once(tmp_path, monkeypatch):
    """Each made the .gitignore; the folder of one is gone once the other has left."""
    home = tmp_path / "home"
    one, other = Journal(home / "journal", pytest.fail), Journal(home / "journal", pytest.fail)
    one.begin(KEY, BATCH)
    (home / ".gitignore").unlink()
    other.begin(KEY, BATCH)
    before, left = type(home).rmdir, []

    def rmdir(self):
        if not left:
            left.append(self)
            other.close()
        before(self)

    monkeypatch.setattr(type(home), "rmdir", rmdir)
    one.close()
    assert not home.exists()


def test_where_files_cannot_be_locked_none_is_kept(tmp_path, monkeypatch):
    """A living process's could not be told from a dead one's."""
    monkeypatch.setattr("pytest_alignment.journal.fcntl", None)
    Journal(tmp_path / "journal", pytest.fail).begin(KEY, BATCH)
    assert not (tmp_path / "journal").exists()
    written(tmp_path)
    assert list(crashes(tmp_path)) == []


def test_where_nothing_can_be_written_that_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    journal = Journal(tmp_path / "file" / "journal", said.append)
    for _ in range(2):
        journal.begin(KEY, BATCH)
        journal.end()
    journal.close()
    (message,) = said
    assert message.startswith("cannot be written (")


def test_what_a_dead_process_left_is_found(tmp_path):
    path = written(tmp_path)
    (crash,) = crashes(tmp_path)
    assert crash == Crash(path, KEY, tuple(BATCH))
    crash.forget()
    assert list(crashes(tmp_path)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_what_a_living_process_trains_is_no_crash(tmp_path):
    code = "\n".join(
        [
            "import pathlib, sys",
            "from pytest_alignment.journal import Journal",
            "from pytest_alignment.results import Key",
            f"journal = Journal(pathlib.Path({str(tmp_path)!r}), print)",
            f"journal.begin(Key(*{tuple(KEY)!r}), {BATCH!r})",
            "print('in flight', flush=True)",
            "sys.stdin.read()",
        ]
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"in flight\n"
        assert list(crashes(tmp_path)) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    (crash,) = crashes(tmp_path)
    assert crash.key == KEY


BAD = {
    "not JSON": ("{", "not JSON"),
    "foreign": ('{"format": "else"}', "foreign"),
    "a list": ("[]", "foreign"),
    "empty": (json.dumps({"format": FORMAT, **KEY._asdict(), "batch": []}), "batch"),
    "no key": (json.dumps({"format": FORMAT, "batch": BATCH}), "nodeid"),
    "no perturbation": (json.dumps({"format": FORMAT, **KEY._asdict(), "batch": [3]}), "perturbation"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_said_and_kept(tmp_path, text, message):
    path = tmp_path / "1.jsonl"
    path.write_text(text)
    (said,) = crashes(tmp_path)
    assert message in said
    assert "1.jsonl" in said
    assert path.exists()


@given(st.binary())
def test_anything_else_is_no_crash_of_ours(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("journal")
    (folder / "1.jsonl").write_bytes(value)
    assert all(isinstance(one, str) for one in crashes(folder))


def test_a_batch_whose_members_train_by_themselves_is_said(suite, run, pytester, section):
    suite("""
        def test_it(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=99)
    """)
    folder = pytester.path / ".alignment" / "journal"
    key = KEY._replace(call="under=init_gain(max_log2=1)")
    batch = [plain(Perturbation("init_gain", magnitude, 1.0, 0)) for magnitude in (0.5, 1.0)]
    folder.mkdir(parents=True)
    (folder / "1.jsonl").write_text(json.dumps({"format": FORMAT, **key._asdict(), "batch": batch}))
    result = run()
    result.assert_outcomes(passed=1)
    assert [line for line in section(result) if line == "crash: each of the 2 trains by itself   test_it.py::test_it"]
    assert section(run()) == []


def test_nothing_is_left_of_a_run_that_ends(suite, run, pytester):
    suite("failing", "passing")
    run().assert_outcomes(passed=1, failed=1)
    assert not (pytester.path / ".alignment" / "journal").exists()
    assert (pytester.path / ".alignment" / ".gitignore").read_text() == "*\n"
