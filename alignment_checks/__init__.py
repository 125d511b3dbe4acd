"""Property-based testing for optimizers."""

from alignment_checks.objectives import brier, decayed_gradient_l1, gradient_l1, gradient_l2, one_minus_p, step_l1
from alignment_checks.runs import run
from alignment_checks.training import TrainingSetup, landscape
