"""A small suite to run the plugin on, and what runs it."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
import pytest_alignment.dry
import pytest_alignment.fixture
import pytest_alignment.store  # noqa: F401
import torch
from hypothesis import settings
from pytest_alignment.envelope import Envelope

import alignment_checks as ac
from alignment_checks import perturbations as pt

Run = Callable[..., pytest.RunResult]

settings.register_profile("repeatable", settings.get_profile("default"), derandomize=True)

HEAD = """
from functools import partial

import pytest
import torch
from hypothesis import Phase, given, settings, strategies as st

import alignment_checks as ac
from alignment_checks import perturbations as pt

BOWL = ac.landscape(lambda x: 0.5 * (x**2).sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=4)
STRETCHED = pt.init_gain(max_log2=1)  # C is quadratic in θ(0): 10 % of it is far below the limit
UNCHANGED = pt.init_seed()  # a landscape starts where it starts
PENALIZED = pt.l2_penalty(max_weight=5)
"""

BODIES = {
    "failing": """
        def test_fails(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
    """,
    "passing": """
        def test_passes(alignment):
            alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
    """,
    "fixed": """
        def test_fails(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=99)
    """,
    "plain": """
        def test_plain():
            pass
    """,
    "noisy": """
        def noisy(spread):
            def nearly_the_same():
                model = torch.nn.Linear(2, 1)
                with torch.no_grad():
                    model.weight.mul_(spread).add_(1.0)
                return model

            return ac.TrainingSetup(
                model=nearly_the_same,
                data=(torch.randn(12, 2, generator=torch.Generator().manual_seed(0)), torch.ones(12, 1)),
                objective=torch.nn.functional.mse_loss,
                optimizer=partial(torch.optim.SGD, lr=0.1),
                steps=4,
            )
    """,
    "counting": """
        import json, pathlib
        from hypothesis import assume, event, example, note, seed
        from alignment_checks.properties import experiment

        @pytest.fixture(autouse=True, scope="session")
        def counted():
            launches, before = [], experiment.run_parts
            def run(parts, **how):
                launches.append(sum(len(part.perturbations) for part in parts))
                return before(parts, **how)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(experiment, "run_parts", run)
                yield
            pathlib.Path("launches.json").write_text(json.dumps(launches))

        FEW = settings(max_examples=12, database=None, derandomize=True)
        GAIN = pt.init_gain(max_log2=1)
        SEEN = []

        @pytest.fixture(autouse=True, scope="session")
        def seen():
            yield
            pathlib.Path("seen.json").write_text(json.dumps(SEEN))
    """,
}
"""Tests that many tests need; `suite` takes their names."""


@pytest.fixture(scope="session", autouse=True)
def loaded() -> None:
    """Have everything imported that a run imports: pytester forgets what was first imported in an inner run."""
    bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=4)
    ac.check_capability_robust(bowl, under=pt.init_gain(max_log2=1), rtol=0.1, examples=8)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Callable[..., Path]:
    """Return a function that writes test_it.py: a setup and strategies, then what it is given, or names in `BODIES`."""

    def write(*bodies: str, name: str = "test_it.py") -> Path:
        path = pytester.path / name
        path.write_text(HEAD + "\n".join(dedent(BODIES.get(body, body)) for body in bodies), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Return a function that runs pytest in this process, with few examples."""

    def run_in_process(*args: str, **how: bool) -> pytest.RunResult:
        return pytester.runpytest_inprocess("-p", "no:randomly", "--alignment-examples=8", *args, **how)

    return run_in_process


@pytest.fixture
def stored(pytester: pytest.Pytester) -> Callable[[], list[Envelope]]:
    """Return a function that reads the store, whatever the plugin thinks of it."""

    def read() -> list[Envelope]:
        files = [f for f in (pytester.path / ".alignment").rglob("*") if f.is_file() and f.name != ".gitignore"]
        files = [f for f in files if "journal" not in f.relative_to(pytester.path).parts]
        values = [f.read_bytes() for f in sorted(files)]
        return [Envelope.from_bytes(v) for v in values if v.startswith(b"{") and json.loads(v)]

    return read


@pytest.fixture
def written(pytester):
    """Return a function that reads what the inner run wrote: "launches" or "seen"."""
    return lambda name: json.loads((pytester.path / f"{name}.json").read_text())


@pytest.fixture(autouse=True)
def repeatable(monkeypatch):
    """Have an inner run begin with Hypothesis's own settings and no seed, but for its draws, which are always the same.

    What a test promises then does not hang on them, nor on what an earlier run has left in the database of this suite.
    A test about draws that vary, or about the database, asks for them. No seed is left behind in the process.
    """
    monkeypatch.setattr("hypothesis.core.global_force_seed", None)
    settings.load_profile("repeatable")
    yield
    settings.load_profile("untimed")


@pytest.fixture
def clock(monkeypatch):
    """Have time pass, in this process, only where it sleeps, so that no test hangs on how busy the machine is."""
    now = [1000.0]
    monkeypatch.setattr("time.sleep", lambda seconds: now.append(now.pop() + seconds))
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(f"time.{name}", lambda: now[0])


@pytest.fixture
def passes(written):
    """Return a function that returns what each pass of a test with one assertion drew: two are dry."""

    def read():
        seen = written("seen")
        assert len(seen) % 3 == 0
        return [seen[i * len(seen) // 3 : (i + 1) * len(seen) // 3] for i in range(3)]

    return read


@pytest.fixture
def section() -> Callable[[pytest.RunResult], list[str]]:
    """Return a function that returns the lines of the terminal's "alignment" section."""

    def lines(result: pytest.RunResult) -> list[str]:
        marks = [i for i, line in enumerate(result.outlines) if line.startswith("===")]
        starts = [i for i in marks if result.outlines[i].strip("=") == " alignment "]
        ends = [i for i in marks if starts and i > starts[0]]
        return result.outlines[starts[0] + 1 : ends[0]] if starts else []

    return lines
