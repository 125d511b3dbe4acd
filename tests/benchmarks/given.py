"""What a test that draws with `@given` costs: batched by the plugin, against Hypothesis alone around a plain loop.

`OMP_NUM_THREADS=1 python tests/benchmarks/given.py` prints a table. Each row is a pytest run of one test of 100
examples in a process of its own; CPU seconds are of the test alone, without imports and collection.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CONFTEST = """
import json, os, time
import pytest
from alignment_checks.properties import experiment

COUNTS = {"runs": 0, "launches": 0, "seconds": 0.0}
before = experiment.run_parts

def counted(parts, **how):
    COUNTS["launches"] += 1
    COUNTS["runs"] += sum(len(part.perturbations) for part in parts)
    return before(parts, **how)

experiment.run_parts = counted

@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    began = time.process_time()
    try:
        return (yield)
    finally:
        COUNTS["seconds"] = time.process_time() - began
        with open("counts.json", "w") as file:
            json.dump(COUNTS, file)
"""
SUITE = """
from functools import partial
import torch
from hypothesis import given, settings, strategies as st
from sklearn.datasets import load_digits
from torch import nn
import alignment_checks as ac
from alignment_checks import perturbations as pt

digits = load_digits()
chosen = (digits.target == 3) | (digits.target == 7)
DATA = (torch.tensor(digits.data[chosen] / 16).float(), torch.tensor(digits.target[chosen] == 7).long())

def built(lr):
    return ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)),
        data=DATA,
        objective=nn.functional.cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=lr),
        steps=100,
    )

@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(delta=pt.label_noise(max_rate=RATE), lr=LR)
"""
BATCHED = """
def test_it(alignment, delta, lr):
    alignment.assert_capability_robust(built(lr), delta=delta, rtol=0.10)
"""
ALONE = """
def test_it(delta, lr):
    assert ac.check_capability_robust(built(lr), delta=delta, rtol=0.10, backend="loop").status == "pass"
"""
ONE, MANY = "st.just(0.1)", "st.floats(0.05, 0.2)"
ROWS = {
    "passes, one setup": (ONE, 0.002),
    "fails, one setup": (ONE, 0.05),
    "passes, a learning rate for each example": (MANY, 0.002),
    "fails, a learning rate for each example": (MANY, 0.05),
}


def measured(body: str, lr: str, rate: float) -> dict[str, float]:
    """Return runs, launches and CPU seconds of one test."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "test_it.py").write_text(SUITE.replace("LR)", f"{lr})").replace("RATE", str(rate)) + body)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "test_it.py"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=False)
        counts: dict[str, float] = json.loads((folder / "counts.json").read_text())
        return counts


if __name__ == "__main__":
    print("| test of 100 examples | way | runs | launches | CPU seconds |\n|---|---|---:|---:|---:|")
    for name, (lr, rate) in ROWS.items():
        for way, body in (("batched", BATCHED), ("Hypothesis alone", ALONE)):
            found = measured(body, lr, rate)
            print(
                f"| {name} | {way} | {found['runs']:.0f} | {found['launches']:.0f} | {found['seconds']:.1f} |",
                flush=True,
            )
