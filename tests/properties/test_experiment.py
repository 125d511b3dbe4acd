"""`Experiment`: each perturbation is trained once, where its side says, and what comes to the same run is one run."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.inference.readings import Ratio
from alignment_checks.perturbations import IDENTITY, Perturbation
from alignment_checks.properties import experiment as experiments
from alignment_checks.properties.experiment import Experiment
from alignment_checks.properties.memory import Memory
from alignment_checks.properties.sides import BASE, BOTH, MESA, RESCORED, RETRAINED, Sides
from alignment_checks.runs import run_parts
from alignment_checks.search import drawn
from alignment_checks.setups.fingerprints import fingerprint

EXACT = 1e-9


def noise(rate, seed=1):
    return Perturbation("label_noise", rate, 0.5, seed)


def smoothing(epsilon):
    return Perturbation("label_smoothing", epsilon, 0.5, 0)


@pytest.fixture
def trained(monkeypatch):
    """Return the list of what `run` was asked to train: one list of perturbations for each call."""
    calls = []

    def recording(parts, **more):
        calls.append([delta for part in parts for delta in part.perturbations])
        return run_parts(parts, **more)

    monkeypatch.setattr(experiments, "run_parts", recording)
    return calls


def values(reading):
    return {name: value for name, value in vars(reading).items() if isinstance(value, np.ndarray)}


def same(a, b):
    return all(np.array_equal(value, values(b)[name], equal_nan=True) for name, value in values(a).items())


def test_a_reading_is_that_of_a_run(blobs):
    experiment = Experiment(blobs, BOTH, [0, 1])
    plain, noisy = experiment.readings([IDENTITY, noise(0.4)])
    trajectory = ac.run(blobs, [IDENTITY, noise(0.4)], seeds=[0, 1])
    base, mesa = ac.capability(trajectory), ac.capability(trajectory, of="mesa")
    assert plain.base == pytest.approx(base[:2], rel=EXACT)
    assert plain.mesa == pytest.approx(mesa[:2], rel=EXACT)
    assert noisy.base == pytest.approx(base[2:], rel=EXACT)
    assert noisy.alignment(normalized=False).value == pytest.approx(base[2:].sum() / mesa[2:].sum(), rel=EXACT)
    assert experiment.runs == 4


def test_what_was_asked_for_once_is_not_trained_again(blobs, trained):
    experiment = Experiment(blobs, BOTH, [0])
    first = experiment.readings([IDENTITY, noise(0.4), noise(0.2)])
    again = experiment.readings([noise(0.2), noise(0.4), IDENTITY, noise(0.4)])
    assert trained == [[IDENTITY, noise(0.4), noise(0.2)]]
    assert again == [first[2], first[1], first[0], first[1]]
    experiment.readings([noise(0.2), noise(0.3)])
    assert trained[1:] == [[noise(0.3)]]
    assert experiment.runs == 4


def test_perturbations_that_come_to_the_same_run_are_trained_once(blobs, trained):
    """A rate so small that no label flips is the identity; two rates that flip the same labels are one."""
    experiment = Experiment(blobs, BOTH, [0])
    flips = sorted(torch.rand(24, generator=noise(0.4).generator(), dtype=torch.float64).tolist())
    below, above = (noise(flips[3] + part * (flips[4] - flips[3])) for part in (0.3, 0.6))
    readings = experiment.readings([IDENTITY, noise(1e-9), noise(0.0), below, above, no_gain()])
    assert len(trained) == 1
    assert len(trained[0]) == experiment.runs == 2
    assert readings[0] is readings[1] is readings[2] is readings[5]
    assert readings[3] is readings[4]
    assert not same(readings[0], readings[3])


def no_gain():
    return Perturbation("init_gain", 0.0, 1.0, 0)


def test_fresh_trains_again_and_is_what_is_known_from_then_on(blobs, trained):
    experiment = Experiment(blobs, BOTH, [0])
    (before,) = experiment.readings([noise(0.4)])
    (after,) = experiment.fresh([noise(0.4)])
    assert len(trained) == 2
    assert after is not before
    assert same(after, before)
    assert experiment.readings([noise(0.4)]) == [after]
    assert experiment.runs == 2


@pytest.mark.parametrize(
    ("sides", "mesa", "base"),
    [(BOTH, True, True), (MESA, True, False), (BASE, False, True)],
    ids=["both", "mesa", "base"],
)
def test_each_side_is_under_the_perturbation_or_not(blobs, sides, mesa, base):
    delta = noise(0.4)
    (reading,) = Experiment(blobs, sides, [0]).readings([delta])
    expected = ac.run(blobs, [delta if mesa else IDENTITY], base=[delta if base else IDENTITY])
    assert reading.base == pytest.approx(ac.capability(expected), rel=EXACT)
    assert reading.mesa == pytest.approx(ac.capability(expected, of="mesa"), rel=EXACT)
    assert reading.last == pytest.approx(expected.base[:, -1], rel=EXACT)


def test_the_three_sides_differ(blobs):
    """Else the test above could not tell them apart."""
    readings = [Experiment(blobs, sides, [0]).readings([noise(0.4)])[0] for sides in (BOTH, MESA, BASE)]
    assert all(abs(a.base[0] - b.base[0]) > 1e-5 for a, b in itertools.combinations(readings, 2))


@pytest.mark.parametrize("sides", [BASE, RESCORED])
def test_what_is_scored_alone_is_trained_once_and_never_again(blobs, trained, sides):
    """One training of each seed serves every perturbation of the base side, and their confirmation."""
    setup = replace(blobs, mesa_objective=ac.decayed_gradient_l1(0.0))
    experiment, steps = Experiment(setup, sides, [0, 1]), []
    handle = register_optimizer_step_pre_hook(lambda *_: steps.append(1))
    try:
        first = experiment.readings([IDENTITY, *(smoothing(e) for e in (0.1, 0.2, 0.3))])
        assert len(steps) == 2 * setup.steps
        again = experiment.fresh([smoothing(0.1), smoothing(0.4)])
        assert len(steps) == 2 * setup.steps
    finally:
        handle.remove()
    assert same(again[0], first[1])
    assert experiment.runs == 2
    assert trained == []


def test_where_the_weights_are_too_large_to_keep_the_runs_are_scored_as_they_train(blobs, monkeypatch):
    kept = Experiment(blobs, RESCORED, [0]).readings([IDENTITY, smoothing(0.3)])
    monkeypatch.setattr("alignment_checks.runs.LARGEST", 10)
    experiment = Experiment(blobs, RESCORED, [0])
    passing = experiment.readings([IDENTITY, smoothing(0.3)])
    assert experiment.paths is None
    for a, b in zip(kept, passing, strict=True):
        assert a.base == pytest.approx(b.base, rel=1e-12)
        assert a.mesa == pytest.approx(b.mesa, rel=1e-12)
    assert experiment.runs == 1


def test_the_same_numbers_come_from_either_backend(blobs):
    deltas = [IDENTITY, noise(0.4), noise(0.2), noise(0.3)]
    lanes, loop = (Experiment(blobs, BOTH, [0], backend=backend) for backend in ("lanes", "loop"))
    for a, b in zip(lanes.readings(deltas), loop.readings(deltas), strict=True):
        assert a.base == pytest.approx(b.base, rel=EXACT)
        assert a.mesa == pytest.approx(b.mesa, rel=EXACT)
    assert lanes.where == "cpu (lanes)"
    assert loop.where == "cpu (loop: asked for)"


def test_where_tells_why_it_was_not_lanes(blobs):
    def where(setup, deltas, sides=BOTH):
        experiment = Experiment(setup, sides, [0], device="cpu")
        experiment.readings(deltas)
        return experiment.where

    several = [noise(0.4, seed) for seed in range(16)]
    assert where(blobs, several) == "cpu (lanes)"
    assert where(blobs, [IDENTITY]) == "cpu (loop)"
    assert where(replace(blobs, batch_size=8), several) == "cpu (lanes)"
    closure = replace(blobs, optimizer=torch.optim.LBFGS)
    assert where(closure, several).startswith("cpu (loop: ")
    assert where(blobs, several, BASE) == "cpu (loop: its weights are kept at every step)"


def test_seeds_are_paired_by_their_place(blobs):
    experiment = Experiment(blobs, BOTH, [5, 3])
    (reading,) = experiment.readings([noise(0.4)])
    for place, seed in enumerate([5, 3]):
        (alone,) = Experiment(blobs, BOTH, [seed]).readings([noise(0.4)])
        assert reading.base[place] == pytest.approx(alone.base[0], rel=EXACT)
    assert isinstance(reading.capability("base", normalized=False), Ratio)


def test_the_highest_loss_is_that_of_the_steps_asked_for():
    setup = ac.landscape(
        lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.99), steps=40
    )
    short, whole = (Experiment(setup, BOTH, [0], within=within).readings([IDENTITY])[0] for within in (1, None))
    trajectory = ac.run(setup)
    assert short.highest == pytest.approx(trajectory.base[:, 1])
    assert whole.highest == pytest.approx(trajectory.base[:, 1:].max(1))


# ------------------------------------------------------------------------------------------ what makes sense on a side

POOL = (torch.zeros(4, 5, dtype=torch.float64), torch.zeros(4, dtype=torch.long))
KINDS = {
    "dataset": noise(0.1),
    "init": Perturbation("init_gain", 0.5, 1.0, 0),
    "objective": smoothing(0.1),
}


@pytest.mark.parametrize(
    ("sides", "refused"),
    [
        (BOTH, set()),
        (MESA, set()),
        (BASE, {"init"}),
        (RETRAINED, {"dataset", "init"}),
        (RESCORED, {"dataset", "init"}),
        (Sides(True, True, frozenset({"dataset"})), {"objective", "init"}),
    ],
    ids=["both", "mesa", "base", "retrained", "rescored", "dataset"],
)
def test_what_means_nothing_on_a_side_is_refused_before_anything_is_trained(blobs, trained, sides, refused):
    for kind, delta in KINDS.items():
        together = composed(smoothing(0.2), delta)
        if kind in refused:
            for one in (delta, together):
                with pytest.raises(ValueError, match=f"is of kind [a-z, ]*{kind}[a-z, ]*; expected .* here"):
                    Experiment(blobs, sides, [0]).readings([IDENTITY, one])
        else:
            sides.check(delta)
        sides.check(IDENTITY)
    assert trained == []


def composed(*parts):
    return Perturbation("compose", None, None, 0, components=parts)


def test_a_custom_perturbation_is_taken_for_what_the_side_asks_for(blobs):
    """Its kind cannot be known: what it may not change, the runs themselves refuse."""

    def scaled(run, magnitude, generator):
        return replace(run, data=(run.data[0] * (1 + magnitude), *run.data[1:]))

    def moved(run, magnitude, generator):
        return replace(run, parameters={name: value + magnitude for name, value in run.parameters.items()})

    good, bad = (drawn(pt.custom(f.__name__, f, 0.5), 5, 0)[-1].at(0.3) for f in (scaled, moved))
    (reading,) = Experiment(blobs, BASE, [0]).readings([good])
    assert np.isfinite(reading.base).all()
    with pytest.raises(ValueError, match="cannot change L's value"):
        Experiment(blobs, BASE, [0]).readings([bad])


def test_parts_at_zero_make_no_run_of_their_own(blobs):
    """Also beside what the user's own code does, which is not compared: magnitude 0 never reaches it."""

    def scaled(run, magnitude, generator):
        return replace(run, data=(run.data[0] * (1 + magnitude), *run.data[1:]))

    def doubled(run, magnitude, generator):
        return replace(run, data=(run.data[0] * 2**magnitude, *run.data[1:]))

    one, other = (drawn(pt.custom(f.__name__, f, 0.5), 5, 0)[-1].at(0.3) for f in (scaled, doubled))
    experiment = Experiment(blobs, BASE, [0])
    assert experiment.key(composed(one, other.at(0.0))) == experiment.key(one) != experiment.key(composed(one, other))
    assert experiment.key(composed(one.at(0.0), other.at(0.0))) == experiment.key(IDENTITY)


def test_what_a_run_is_known_by_is_found_out_once_however_often_it_is_asked_for(blobs, monkeypatch):
    """It takes the data that a run trains on: for noise on all features of a large dataset, as long as many steps."""
    made = []
    monkeypatch.setattr(experiments, "fingerprint", lambda run, plain: made.append(run) or fingerprint(run, plain))
    experiment = Experiment(blobs, BOTH, [0])
    deltas = [IDENTITY, noise(0.3), noise(0.4)]
    experiment.readings(deltas)
    experiment.readings(deltas)
    experiment.fresh(deltas)
    assert len(made) == len(deltas)


def test_two_objectives_of_one_name_are_two_runs_in_one_memory(blobs):
    """A search refuses two at once; but what one check has trained with the first is nothing that another may take."""

    def weighted(weight):
        def other(outputs, targets):
            return weight * torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

        return pt.objective_mix(other)

    memory, how = Memory(), {"rtol": 0.1, "examples": 2}
    passed, failed = (ac.check_capability_robust(blobs, under=weighted(w), memory=memory, **how) for w in (1.0, 5.0))
    assert (passed.status, failed.status) == ("pass", "fail")
