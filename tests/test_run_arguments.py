"""What `run` is asked for: arguments that mean nothing are refused before anything is trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.counted import Counted
from hypothesis import find

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.perturbations.composition import assembled
from alignment_checks.setups import devices

NONE = Perturbation("label_noise", 1e-9, 0.5, 1)


PENALTY = Perturbation("l2_penalty", 0.1, 1.0, 0)


GAIN = Perturbation("init_gain", 0.5, 1.0, 0)


NOISE = Perturbation("label_noise", 0.3, 0.5, 1)


INIT = [GAIN, Perturbation("init_seed", 1.0, 1.0, 0), assembled([NOISE, GAIN])]


@pytest.mark.parametrize("base", INIT, ids=str)
def test_what_cannot_change_the_value_of_a_loss_is_no_base_side(blobs, base):
    """An error, not a vacuous pass; trained under it as well, it is no error."""
    with pytest.raises(ValueError, match=r"a perturbation of kind init cannot change L's value\. Use a dataset or"):
        ac.run(blobs, [IDENTITY], base=[base])
    assert ac.run(blobs, [base], base=[base]).base.shape == (1, 7)


def test_a_custom_perturbation_of_the_init_is_no_base_side_either(blobs):
    def doubled(run, magnitude, generator):
        return replace(run, parameters={name: 2 * value for name, value in run.parameters.items()})

    delta = find(pt.custom("doubled", doubled, max_magnitude=1), lambda d: d.magnitude > 0)
    with pytest.raises(ValueError, match="changes the init or the optimizer: on the base side alone"):
        ac.run(blobs, [IDENTITY], base=[delta])


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"perturbations": []}, ValueError, "expected at least one perturbation; got none. perturbations=None is the"),
        ({"perturbations": NOISE}, TypeError, "`perturbations` must be a sequence; got Perturbation"),
        ({"perturbations": pt.init_seed()}, TypeError, "to search a strategy, use a check: check_"),
        ({"perturbations": [0.1]}, TypeError, "`perturbations` must be a sequence of Perturbation; got float"),
        ({"base": [0.1]}, TypeError, "`base` must be a sequence of Perturbation; got float"),
        ({"base": [NOISE, NOISE]}, ValueError, "`base` must be as long as `perturbations`, 1; got 2"),
        ({"seeds": 3}, TypeError, "`seeds` must be a sequence; got int 3. n seeds are range(n)"),
        ({"seeds": []}, ValueError, "`seeds` must be ints from 0, at least one; got []"),
        ({"seeds": [-1]}, ValueError, "`seeds` must be ints from 0, at least one; got [-1]. None is the setup's own"),
        ({"seeds": [0.5]}, ValueError, "`seeds` must be ints from 0, at least one; got [0.5]"),
        ({"seeds": [True]}, ValueError, "`seeds` must be ints from 0, at least one; got [True]"),
        ({"device": None}, ValueError, "`device` must be 'auto' or a torch device; got None"),
        ({"backend": "fast"}, ValueError, "`backend` must be one of auto, lanes, loop; got 'fast'"),
        ({"device": "abacus"}, ValueError, "`device` must be 'auto' or a torch device; got 'abacus'"),
        ({"device": "hpu"}, ValueError, "`device` 'hpu' is not available: torch reports"),
        ({"device": "hpu"}, ValueError, "device='auto' takes the best"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(blobs, arguments, error, said):
    counted = Counted()
    with pytest.raises(error) as caught:
        ac.run(replace(blobs, optimizer=counted), **arguments)
    assert said in str(caught.value)
    assert counted.steps == 0


def test_auto_is_the_accelerator_or_else_the_cpu():
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    accelerator = accelerator if devices.computes_in_float64(accelerator) else torch.device("cpu")
    assert devices.resolved("auto") == accelerator
    assert devices.resolved("cpu") == torch.device("cpu")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_the_caller_takes_no_gradients_training_does(blobs, mode):
    setup = replace(blobs, data=(blobs.data[0].float(), blobs.data[1]))  # cast, as well as built, in that mode

    def trained():
        return [ac.run(setup, [IDENTITY, NOISE], seeds=range(2), backend=backend) for backend in ("loop", "lanes")]

    plain = trained()
    with mode():
        found = trained()
        limits = ac.capability_limit(found[0])
        assert not torch.is_grad_enabled()
    for one, other in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one.base, other.base)
    assert limits == ac.capability_limit(plain[0])


def test_seeds_may_be_an_array(blobs):
    assert [run.seed for run in ac.run(blobs, seeds=np.arange(2)).runs] == [0, 1]


def test_what_is_no_setup_is_refused():
    with pytest.raises(TypeError, match=r"expected a TrainingSetup; got str 'setup'\. Build one"):
        ac.run("setup")
