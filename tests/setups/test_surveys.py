"""What does not change between the launches of a search is found out at the first of them."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from alignment_checks import runs
from alignment_checks.backends import dispatch
from alignment_checks.perturbations import Perturbation
from alignment_checks.properties.experiment import Experiment
from alignment_checks.properties.sides import Sides
from alignment_checks.setups import trainable
from alignment_checks.setups.surveys import Surveys

ASKED = ((dispatch, "footprint"), (dispatch, "slots_matter"), (runs, "surveyed"))
RANDOM = (trainable, "randomness")


def counted(monkeypatch):
    calls = []
    for module, name in (*ASKED, RANDOM):
        found = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, found=found, name=name: calls.append(name) or found(*a))
    return calls


def noise(rate):
    return Perturbation("label_noise", rate, 1.0, 0)


@pytest.mark.parametrize("asked", [ASKED, (*ASKED, RANDOM)], ids=["draws nothing", "draws"])
def test_the_launches_of_an_experiment_find_out_once_what_does_not_change(blobs, monkeypatch, asked):
    if RANDOM in asked:
        blobs = replace(blobs, model=lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)))
    calls = counted(monkeypatch)
    experiment = Experiment(blobs, Sides(mesa=True, base=True), [0], backend="lanes")
    first = experiment.readings([noise(0.1), noise(0.2)])
    assert sorted(calls) == sorted(name for _, name in asked)
    experiment.readings([noise(0.3)])
    again = experiment.fresh([noise(0.1), noise(0.2)])
    assert [reading.base for reading in again] == [reading.base for reading in first]
    assert len(calls) == len(asked)


def test_what_is_known_of_one_setup_is_not_taken_for_another(blobs):
    surveys, others = Surveys(), [replace(blobs, model=lambda: blobs.model()), replace(blobs, data=blobs.data[::-1])]
    assert [surveys.once(setup, "asked", lambda i=i: i) for i, setup in enumerate([blobs, *others, blobs])] == [
        0,
        1,
        2,
        0,
    ]


def test_a_launch_that_knows_gives_the_bits_of_one_that_does_not(blobs):
    parts, surveys = [runs.Part(blobs, [noise(0.1), noise(0.4)])], Surveys()
    trained = [
        runs.run_parts(parts, device="cpu", backend="lanes", planned=0, surveys=known)[0]
        for known in (None, surveys, surveys)
    ]
    assert all(np.array_equal(one.base, trained[0].base) for one in trained)
