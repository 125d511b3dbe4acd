"""Every optimizer of the package `pytorch_optimizer`: lanes equal the loop, or the loop is chosen with its reason.

`pip install -e '.[third-party]'`, then `pytest -m slow -s tests/backends/test_third_party.py` prints the table.
"""

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from cases.stepping import MANY, SEEDS, STACKED, stepped
from torch import nn

import alignment_checks as ac
from alignment_checks.backends.dispatch import TOO_FEW

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
third_party = pytest.importorskip("pytorch_optimizer", reason="needs the extra third-party")

WITHOUT_A_LOOP = {
    "adahessian": "does not require grad",
    "adalomo": "named_parameters",
    "adammini": "named_parameters",
    "alig": "requires closure",
    "bsam": "requires closure",
    "demo": "einops",
    "distributedmuon": "process group",
    "fadam": "expected dtype float",
    "lomo": "parameters",
    "sophiah": "does not require grad",
}
"""What the plain loop cannot train either, and what it says.

They differentiate twice, want the module itself, a closure that their signature calls optional, a package or processes
that are not here, or float32.
"""
ARGUMENTS = {"bsam": {"num_data": 24}, "ranger21": {"num_iterations": 30}}


def mixed(cls, parameters):
    """Return an optimizer that treats matrices by Muon's rule, and the rest by Adam's."""
    matrices, rest = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return cls([{"params": matrices, "use_muon": True}, {"params": rest, "use_muon": False}])


def made(name):
    """Return a factory of an optimizer by what its own signature asks for."""
    cls = third_party.load_optimizer(name)

    def factory(parameters):
        try:
            return cls(parameters, **ARGUMENTS.get(name, {}))
        except (RuntimeError, TypeError) as error:
            if "__contains__" not in str(error):
                raise
        return mixed(cls, parameters)

    return factory


def setup_of(name, steps):
    random = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 3
    x = torch.randn(24, 5, generator=random, dtype=torch.float64) + y[:, None]
    bias = name != "spectralsphere"  # which takes matrices alone
    return ac.TrainingSetup(
        model=lambda: nn.Sequential(nn.Linear(5, 4, bias=bias), nn.Tanh(), nn.Linear(4, 3, bias=bias)),
        data=(x, y),
        objective=nn.functional.cross_entropy,
        optimizer=made(name),
        steps=steps,
        dtype=torch.float64,
    )


def outcome(name, steps=50):
    """Return (way, reason, largest relative difference from the loop)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop = ac.run(setup_of(name, steps), seeds=SEEDS, backend="loop").base
        runs = ac.run(setup_of(name, steps), seeds=MANY)
    base = runs.base[: len(SEEDS)]
    assert np.array_equal(np.isfinite(base), np.isfinite(loop))
    finite = np.isfinite(loop)
    difference = np.abs(base - loop)[finite] / np.abs(loop)[finite]
    return *stepped(runs), float(difference.max())


def test_every_optimizer_equals_the_loop_or_is_trained_by_it_and_says_so():
    ways, wrong = Counter(), {}
    for name in sorted(third_party.get_supported_optimizers()):
        try:
            way, reason, difference = outcome(name)
        except Exception as error:
            way, reason, difference = "the loop cannot either", str(error).split("\n")[0], 0.0
            if WITHOUT_A_LOOP.get(name, "?") not in str(error):
                wrong[name] = reason
        ways[way] += 1
        unsaid = way != STACKED and (not reason or TOO_FEW in reason)
        if not difference <= 1e-8 or unsaid:
            wrong[name] = f"{way}: off by {difference:.1e}"
        print(f"{name:20} {way:34} {difference:8.1e}  {reason or ''}"[:200])  # noqa: T201
    print(*(f"{count:4} {way}" for way, count in ways.most_common()), sep="\n")  # noqa: T201
    assert not wrong
