"""The examples, as a user runs them: in a directory of their own, by the command line."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CAPABILITY = "test_capability_survives_label_noise"


def run(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest there, one thread, without what would be left behind."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the examples and the project's pytest configuration, and no store yet."""
    where = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "pyproject.toml", where)
    shutil.copytree(ROOT / "examples", where / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return where


@pytest.fixture(scope="module")
def failing(copy: Path) -> subprocess.CompletedProcess[str]:
    """Return what `pytest examples/failing` says, with fewer draws than by default."""
    return run(copy, "examples/failing", "--alignment-examples=10")


def section(output: str, test: str) -> str:
    """Return the traceback section of one test."""
    _, _, rest = output.partition(f"_ {test} _")
    assert rest, output
    return re.split(r"\n_+ test_|\n=+ ", rest)[0]


def test_a_plain_run_leaves_out_what_fails(copy):
    done = run(copy, "examples", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert collected == {f"examples/{path.name}" for path in (ROOT / "examples").glob("test_*.py")}


def test_what_fails_is_reported(failing):
    assert failing.returncode == 1, failing.stdout
    assert "3 failed" in failing.stdout
    text = section(failing.stdout, CAPABILITY)
    assert "CapabilityNotRobust: capability is not robust under label_noise(max_rate=0.05), rtol=0.1" in text
    smallest = re.search(r"smallest failing δ   label_noise\(rate=([\d.]+), seed=\d+\)", text)
    worst = re.search(r"worst δ found        label_noise\(rate=([\d.]+), seed=\d+\) +off by ([\d.]+) %", text)
    holds = re.search(r"holds up to          label_noise\(rate=([\d.]+)\)", text)
    off = re.search(r"C_200\(L\) = -0\.\d+ +C_200\(L\+δ\) = -0\.\d+ +off by ([\d.]+) %, allowed 10 %", text)
    assert smallest, text
    assert worst, text
    assert holds, text
    assert off, text
    assert 0 < float(holds[1]) < float(smallest[1]) < float(worst[1]) <= 0.05
    assert 10 < float(off[1]) < float(worst[2])
    assert re.search(rf"replay   pytest '\S+::{CAPABILITY}' --alignment-replay=[0-9a-f]+", text), text


def test_an_innocent_component_is_dropped(failing):
    text = section(failing.stdout, "test_alignment_survives_another_scale_of_init_and_label_noise")
    assert "is not robust under compose(init_gain(max_log2=0.5), label_noise(max_rate=0.01)), rtol=0.25" in text
    assert re.search(r"smallest failing δ   init_gain\(log2=-?[\d.]+\)", text), text
    assert re.search(r"holds up to          init_gain\(log2=-?[\d.]+\)", text), text


def test_a_floor_is_reported(failing):
    text = section(failing.stdout, "test_inner_aligned_under_label_noise")
    assert "inner alignment does not hold with α ≥ 0.09" in text
    assert re.search(r"smallest failing δ   label_noise\(rate=[\d.]+, seed=\d+\)", text), text


def test_the_traceback_ends_in_the_users_line(failing):
    text = section(failing.stdout, CAPABILITY)
    places = re.findall(r"^(\S+\.py):\d+: ", text, re.MULTILINE)
    assert places == ["examples/failing/test_brittle.py"], text


def test_the_printed_command_replays_the_failure_alone(copy, failing):
    text = section(failing.stdout, CAPABILITY)
    command = re.search(r"replay   (pytest .*--alignment-replay=\w+)", text)
    assert command, text
    replayed = run(copy, *shlex.split(command[1])[1:])
    assert replayed.returncode == 1, replayed.stdout
    assert "1 failed" in replayed.stdout
    smallest = re.search(r"smallest failing δ .*\n.*\n", text)
    assert smallest, text
    assert smallest[0] in section(replayed.stdout, CAPABILITY)
    assert "searched 1 perturbation," in replayed.stdout


def test_a_replay_deselects_the_other_tests(copy, failing):
    known = re.search(rf"::{CAPABILITY}' --alignment-replay=(\w+)", failing.stdout)
    assert known, failing.stdout
    replayed = run(copy, "examples/failing", f"--alignment-replay={known[1]}")
    assert replayed.returncode == 1, replayed.stdout
    assert "1 failed, 2 deselected" in replayed.stdout


def test_the_store_is_beside_the_configuration(copy, failing):
    assert failing.returncode == 1
    assert (copy / ".alignment").is_dir()
    assert not (copy / "examples" / ".alignment").exists()


def skeleton(text: str) -> list[str]:
    """Return the lines of a report without its figures, which differ with the machine and the budget."""
    bare = re.sub(r"[▁▂▃▄▅▆▇█×]+", "▁", re.sub(r"replay=\w+", "replay=ID", text))
    return [re.sub(r"\s+", " ", re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", line)).strip() for line in bare.splitlines()]


def test_the_readme_shows_what_is_printed(failing):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- failing:begin -->\n```text\n")[1].split("\n```\n<!-- failing:end -->")[0]
    printed = section(failing.stdout, CAPABILITY)
    assert shown.splitlines()[0] in printed
    assert skeleton(shown) == skeleton(printed[printed.index(shown.splitlines()[0]) :].rstrip())
