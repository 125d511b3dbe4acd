"""Property-based testing for optimizers: state what must stay true of a training run, get what breaks it.

>>> import torch
>>> import alignment_checks as ac
>>> from functools import partial
>>> bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=100)
>>> ac.capability(ac.run(bowl)).round(4)
array([-0.9822])
"""

from alignment_checks import perturbations
from alignment_checks.checks import (
    check_alignment_generalizes,
    check_alignment_robust,
    check_better_aligned,
    check_capability_generalizes,
    check_capability_robust,
    check_inner_aligned,
    check_more_capable,
    check_strongly_aligned,
)
from alignment_checks.findings import Finding
from alignment_checks.inference.judgement import Status
from alignment_checks.limits import Estimate, Regime, alignment_factor_limit, capability_limit
from alignment_checks.measures import alignment_factor, capability, correlation, improvement
from alignment_checks.objectives import (
    MesaObjective,
    brier,
    decayed_gradient_l1,
    gradient_l1,
    gradient_l2,
    one_minus_p,
    step_l1,
)
from alignment_checks.perturbations import Perturbation
from alignment_checks.runs import run
from alignment_checks.setups.realization import Realization
from alignment_checks.training import TrainingSetup, landscape
from alignment_checks.trajectory import Trajectory
from alignment_checks.verdict import AlignmentViolation, Inconclusive, Verdict

__version__ = "0.1.0"

__all__ = [
    "AlignmentViolation",
    "Estimate",
    "Finding",
    "Inconclusive",
    "MesaObjective",
    "Perturbation",
    "Realization",
    "Regime",
    "Status",
    "TrainingSetup",
    "Trajectory",
    "Verdict",
    "alignment_factor",
    "alignment_factor_limit",
    "brier",
    "capability",
    "capability_limit",
    "check_alignment_generalizes",
    "check_alignment_robust",
    "check_better_aligned",
    "check_capability_generalizes",
    "check_capability_robust",
    "check_inner_aligned",
    "check_more_capable",
    "check_strongly_aligned",
    "correlation",
    "decayed_gradient_l1",
    "gradient_l1",
    "gradient_l2",
    "improvement",
    "landscape",
    "one_minus_p",
    "perturbations",
    "run",
    "step_l1",
]
