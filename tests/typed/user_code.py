"""What a user writes, as `mypy --strict` sees it: no annotation of theirs is refused, and a mistake is; it is not run.

Each ignored error is one that has to be there: mypy warns of an ignore that is not needed.
"""

from functools import partial

import torch
from hypothesis import given
from hypothesis import strategies as st
from pytest_alignment import Alignment
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import alignment_checks as ac
from alignment_checks import perturbations as pt


def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).square().mean(1)


def bowl(theta: torch.Tensor) -> torch.Tensor:
    return theta.square().sum()


def setup(lr: float = 0.1) -> ac.TrainingSetup:
    data = (torch.randn(10, 4), torch.randint(2, (10,)))
    sgd, step = partial(torch.optim.SGD, lr=lr), partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    ac.TrainingSetup(lambda: nn.Linear(4, 4), data[:1], mse_loss, sgd, 5, scheduler=step)
    ac.TrainingSetup(lambda: nn.Linear(4, 4), data[:1], nn.MSELoss(), sgd, 5, mesa_objective=ac.step_l1)
    ac.TrainingSetup(lambda: nn.Linear(4, 4), data[:1], squared, partial(torch.optim.Adam, lr=lr), 5)
    return ac.TrainingSetup(model=lambda: nn.Linear(4, 2), data=data, objective=cross_entropy, optimizer=sgd, steps=5)


def moved(run: ac.Realization, magnitude: float, generator: torch.Generator) -> ac.Realization:
    return run


def in_a_test(alignment: Alignment) -> None:
    alignment.assert_capability_robust(setup(), under=pt.label_noise(max_rate=0.05), rtol=0.10)
    alignment.assert_alignment_generalizes(setup(), to=pt.objective_mix(ac.brier), rtol=0.25, seeds=8)
    alignment.assert_inner_aligned(
        setup(), under=st.one_of(pt.label_noise(0.1), pt.subsample(0.1)), floor=0.1, rtol=0.1
    )
    alignment.assert_strongly_aligned(setup(), worst=1.0, within=5, under=pt.init_seed())
    alignment.assert_more_capable(setup(0.2), than=setup(), of="mesa", horizon="limit")


@given(delta=pt.label_noise(max_rate=0.1), lr=st.floats(0.01, 0.1))
def under_given(alignment: Alignment, delta: ac.Perturbation, lr: float) -> None:
    alignment.assert_capability_robust(setup(lr), delta=delta, rtol=0.2)


def in_a_script() -> float | None:
    trajectory = ac.run(setup(), seeds=range(8))
    limits = [(one.value, one.low, one.high, one.regime.name) for one in ac.capability_limit(trajectory)]
    assert ac.capability(trajectory).mean() < ac.alignment_factor(trajectory).max() + len(limits)
    flat = ac.landscape(bowl, [1.0, 2.0], optimizer=partial(torch.optim.Adam, lr=0.1), steps=3)
    both = pt.compose(pt.init_gain(max_log2=1.0), pt.custom("moved", moved, max_magnitude=1.0))
    verdict = ac.check_alignment_robust(flat, under=both, rtol=0.1, seeds=[1, 2], max_time=3.0)
    return verdict.minimal.perturbation.magnitude if verdict.status == "fail" and verdict.minimal else None


def with_mistakes(alignment: Alignment) -> None:
    ac.check_capability_robust(setup(), under=pt.init_seed(), rtol="0.1")  # type: ignore[arg-type]
    ac.check_capability_robust(setup(), under=pt.init_seed(), rtoll=0.1)  # type: ignore[call-arg]
    ac.check_capability_robust(setup(), pt.init_seed())  # type: ignore[call-arg]
    ac.check_capability_robust(setup(), under=pt.init_seed(), side="up")  # type: ignore[arg-type]
    alignment.assert_capability_robust(setup(), pt.init_seed(), rtol=0.1)  # type: ignore[call-arg]
    alignment.assert_more_capable(setup(), setup())  # type: ignore[call-arg]
