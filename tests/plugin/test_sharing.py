"""The store is the user's choice, and what one machine has found another replays."""

import shlex
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pytest_alignment.envelope import Envelope

CHOICE = """
from hypothesis.database import DirectoryBasedExampleDatabase, MultiplexedDatabase, ReadOnlyDatabase

def pytest_alignment_database(config):
    return {}
"""
SHARED = "DirectoryBasedExampleDatabase('shared')"


def values(folder):
    """Return the envelopes that a directory's database holds."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [Envelope.from_bytes(f.read_bytes()) for f in files if f.read_bytes().startswith(b"{")]


def test_a_failure_found_in_ci_is_replayed_from_what_ci_shares(suite, run, pytester, section, monkeypatch):
    pytester.makeconftest(CHOICE.format(SHARED))
    suite("failing")
    monkeypatch.setenv("CI", "true")  # Hypothesis's profile for it has no database; ours stores all the same
    run("--hypothesis-profile=ci").assert_outcomes(failed=1)
    monkeypatch.delenv("CI")
    (envelope,) = values(pytester.path / "shared")
    assert not (pytester.path / ".alignment").exists()

    pytester.makeconftest(CHOICE.format(f"MultiplexedDatabase(ReadOnlyDatabase({SHARED}))"))
    replay = run(f"--alignment-replay={envelope.id}")
    replay.assert_outcomes(failed=1)
    assert [line for line in section(replay) if line.startswith(f"replayed: {envelope.id} still fails")]
    replay.stdout.fnmatch_lines(["alignment: *, store of pytest_alignment_database"])
    assert values(pytester.path / "shared") == [envelope]


def test_where_one_part_can_only_be_read_the_other_is_written(suite, run, pytester, section):
    here = "DirectoryBasedExampleDatabase('here')"
    pytester.makeconftest(CHOICE.format(f"MultiplexedDatabase({here}, ReadOnlyDatabase({SHARED}))"))
    suite("failing")
    result = run()
    result.assert_outcomes(failed=1)
    assert len(values(pytester.path / "here")) == 1
    assert not (pytester.path / "shared").exists()
    assert not [line for line in section(result) if line.startswith("store: ")]


def test_what_is_fixed_but_cannot_be_forgotten_is_said(suite, run, pytester, section):
    pytester.makeconftest(CHOICE.format(SHARED))
    suite("failing")
    run()
    pytester.makeconftest(CHOICE.format(f"ReadOnlyDatabase({SHARED})"))
    suite("fixed")
    result = run("-W", "ignore")
    result.assert_outcomes(passed=1)
    assert [line.split(" ")[0] for line in section(result)] == ["fixed:", "fixed:", "store:"]  # to either side
    assert "the store is read-only: what no longer fails stays in it" in section(result)[2]
    assert len(values(pytester.path / "shared")) == 1


def test_none_leaves_the_directory(suite, run, pytester, stored):
    pytester.makeconftest(CHOICE.format(None))
    suite("failing")
    run()
    assert len(stored()) == 1


def test_what_is_no_database_is_refused(suite, run, pytester):
    pytester.makeconftest(CHOICE.format("'redis://here'"))
    suite("failing")
    result = run("--alignment-replay=all")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "expected a hypothesis.database.ExampleDatabase, or None for the directory; got str" in (
        result.stderr.str() + result.stdout.str()
    )


# ------------------------------------------------------------------------------------------------ from CI to the laptop

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def machines(suite, pytester, monkeypatch):
    """Return a function that runs pytest in one of two checkouts, "ci" and "laptop", set up as the README says."""
    conftest = README.split("```python\n# conftest.py\n")[1].split("```")[0]
    assert "GitHubArtifactDatabase" in conftest
    source = suite("failing", "passing")
    for name in ("ci", "laptop"):
        checkout = pytester.mkdir(name)
        shutil.copy(source, checkout)
        (checkout / "pytest.ini").write_text("[pytest]\n")
        cache = f'"repository", path=Path({str(pytester.path / "artifacts")!r}))'
        (checkout / "conftest.py").write_text("from pathlib import Path\n" + conftest.replace('"repository")', cache))
    source.unlink()

    def on(name, *args):
        with monkeypatch.context() as patch:
            patch.chdir(pytester.path / name)
            patch.setenv("CI", "true") if name == "ci" else patch.delenv("CI", raising=False)
            return pytester.runpytest_inprocess("-p", "no:randomly", "--alignment-examples=8", *args)

    return on


def uploaded(folder, artifacts):
    """Leave what GitHub makes of an uploaded directory, where Hypothesis keeps what it has fetched."""
    artifacts.mkdir()
    name = datetime.now(UTC).isoformat().replace(":", "_")
    with zipfile.ZipFile(artifacts / f"{name}.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))


def test_what_failed_in_ci_is_replayed_on_a_laptop_by_the_command_that_ci_printed(machines, pytester, section):
    failed = machines("ci")
    failed.assert_outcomes(passed=1, failed=1)
    command = next(line for line in section(failed) if line.startswith("  replay ")).removeprefix("  replay   ")
    uploaded(pytester.path / "ci" / ".alignment" / "examples", pytester.path / "artifacts")
    shutil.rmtree(pytester.path / "ci")

    program, *args = shlex.split(command)
    assert program == "pytest"
    replay = machines("laptop", *args)
    replay.assert_outcomes(failed=1)
    assert [line for line in section(replay) if line.startswith("replayed: ") and "still fails" in line]
    of_ci, of_laptop = (next(line for line in section(result) if "smallest" in line) for result in (failed, replay))
    assert of_ci == of_laptop
    assert not (pytester.path / "laptop" / ".alignment").exists(), "a replay stores nothing"


def test_a_plain_run_on_the_laptop_tries_first_what_failed_in_ci(machines, pytester, section):
    machines("ci")
    uploaded(pytester.path / "ci" / ".alignment" / "examples", pytester.path / "artifacts")
    assert machines("laptop", "--alignment-replay=all").ret == pytest.ExitCode.TESTS_FAILED
    again = machines("laptop", "-k", "fails")
    again.assert_outcomes(failed=1, deselected=1)
    assert len(values(pytester.path / "laptop" / ".alignment")) == 1


DATABASES = {
    "directory": SHARED,
    "in memory": "InMemoryExampleDatabase()",
    "multiplexed": f"MultiplexedDatabase({SHARED}, InMemoryExampleDatabase())",
    "read-only": f"MultiplexedDatabase({SHARED}, ReadOnlyDatabase(DirectoryBasedExampleDatabase('elsewhere')))",
}


@pytest.mark.parametrize("choice", DATABASES.values(), ids=DATABASES)
def test_every_kind_of_database_takes_failures(suite, run, pytester, section, choice):
    pytester.makeconftest(CHOICE.format(choice).replace("import Dir", "import InMemoryExampleDatabase, Dir"))
    suite("failing")
    result = run()
    result.assert_outcomes(failed=1)
    assert not [line for line in section(result) if line.startswith("store: ")]
    if "shared" in choice:
        (envelope,) = values(pytester.path / "shared")
        run(f"--alignment-replay={envelope.id}").assert_outcomes(failed=1)
