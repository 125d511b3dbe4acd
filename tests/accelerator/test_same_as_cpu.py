"""GPU where there is one, CPU otherwise, the same on both: whole runs, on a device that refuses what a GPU refuses."""

from functools import partial

import pytest
import torch
from cases.accelerated import MODELS, SETUPS, WEIGHTS, assert_alike, data, setup
from hypothesis import HealthCheck, given, settings
from torch.nn.functional import cross_entropy

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.runs import Part, run_parts

BACKENDS = ("lanes", "loop")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", SETUPS)
def test_a_setup_trains_alike_on_an_accelerator_and_on_a_cpu(kind, backend, device):
    of = setup(**SETUPS[kind])
    here, there = (ac.run(of, seeds=range(3), device=d, backend=backend) for d in (device, "cpu"))
    assert_alike(here, there)


@pytest.mark.parametrize("kind", ["mlp", "batch norm", "dropout", "attention"])
def test_what_is_called_as_a_graph_is_so_on_an_accelerator_too(kind, device):
    part = Part(setup(model=MODELS[kind], steps=40), seeds=range(2))
    here, there = (run_parts([part], device=d, backend="lanes", planned=200)[0] for d in (device, "cpu"))
    assert_alike(here, there)
    assert here.runs[0].reason is None


def test_a_closure_is_trained_by_the_loop_and_alike(device):
    of = setup(optimizer=torch.optim.LBFGS, steps=3)
    assert_alike(*(ac.run(of, seeds=range(2), device=d) for d in (device, "cpu")))


def test_an_optimizer_that_wants_an_accelerator_has_one(device):
    of = setup(optimizer=partial(torch.optim.Adam, capturable=True))
    plain = ac.run(setup(optimizer=torch.optim.Adam), device="cpu")
    for backend in BACKENDS:
        here = ac.run(of, device=device, backend=backend)  # whose bias corrections are of steps counted in float32
        torch.testing.assert_close(torch.tensor(here.base), torch.tensor(plain.base), rtol=1e-5, atol=1e-9)


def drawn(strategy, most=3):
    found = []

    @settings(max_examples=12, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(delta):
        found.append(delta)

    draw()
    return list(dict.fromkeys(found))[-most:]


x, y = data()
FAMILIES = {
    "label_noise": pt.label_noise(0.3),
    "label_permutation": pt.label_permutation(0.5),
    "feature_noise": pt.feature_noise(0.5),
    "subsample": pt.subsample(0.3),
    "redraw": pt.redraw(0.5, (x + 1, y)),
    "init_seed": pt.init_seed(),
    "init_jitter": pt.init_jitter(0.3),
    "init_gain": pt.init_gain(1.0),
    "init_interpolation": pt.init_interpolation(3),
    "objective_mix": pt.objective_mix(partial(cross_entropy, weight=WEIGHTS)),
    "label_smoothing": pt.label_smoothing(0.3),
    "l2_penalty": pt.l2_penalty(0.1),
    "learning_rate": pt.learning_rate(1.0),
    "lr_decay": pt.lr_decay(0.1),
    "momentum": pt.momentum(0.2),
    "gradient_noise": pt.gradient_noise(0.1),
    "batch_size": pt.batch_size(2.0),
    "precision": pt.precision(16.0),
    "compose": pt.compose(pt.label_noise(0.3), pt.learning_rate(1.0), pt.gradient_noise(0.1)),
}
SCORED = ("label_noise", "feature_noise", "objective_mix", "label_smoothing", "l2_penalty")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_perturbation_does_the_same_on_both(family, backend, device):
    of, deltas = setup(batch_size=6 if family == "batch_size" else None), drawn(FAMILIES[family])
    rounding = 1e-6 if family == "precision" else None  # it trains in float32, whose products round by their alignment
    assert_alike(*(ac.run(of, deltas, device=d, backend=backend) for d in (device, "cpu")), rtol=rounding)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", SCORED)
def test_a_run_is_scored_the_same_on_both(family, backend, device):
    deltas = drawn(FAMILIES[family])
    plain = [pt.IDENTITY] * len(deltas)
    assert_alike(*(ac.run(setup(), plain, base=deltas, device=d, backend=backend) for d in (device, "cpu")))


@pytest.mark.parametrize("name", ["bowl", "saddle"])
def test_a_limit_and_its_fixed_point_are_the_same_on_both(name, device):
    functions = {
        "bowl": lambda p: (p.square() * torch.tensor([1.0, 3.0]).double()).sum(),
        "saddle": lambda p: p[0] ** 2 - p[1] ** 2 + p[1] ** 4,
    }
    of = ac.landscape(functions[name], [1.0, 0.0], optimizer=partial(torch.optim.SGD, lr=0.05), steps=400)
    found = [ac.run(of, device=d) for d in (device, "cpu")]
    for limit in (ac.capability_limit, ac.alignment_factor_limit):
        here, there = (limit(one)[0] for one in found)
        assert (here.regime, here.method) == (there.regime, there.method)
        assert (here.value, here.low, here.high) == pytest.approx((there.value, there.low, there.high), rel=1e-9)


CHECKS = {
    "capability": partial(ac.check_capability_robust, under=FAMILIES["label_noise"], rtol=0.01),
    "trained perturbed": partial(ac.check_capability_robust, mesa_under=FAMILIES["feature_noise"], rtol=0.1),
    "alignment": partial(ac.check_alignment_robust, under=FAMILIES["compose"], rtol=0.5),
    "another objective": partial(ac.check_alignment_generalizes, to=FAMILIES["objective_mix"], rtol=0.01),
    "retrained": partial(ac.check_capability_generalizes, to=FAMILIES["objective_mix"], rtol=0.01),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_comes_to_the_same_verdict_on_both(check, device):
    here, there = (CHECKS[check](setup(), examples=8, random_seed=1, device=d) for d in (device, "cpu"))
    assert (here.status, here.statement) == (there.status, there.statement)
    assert f" on {device} (" in str(here)
    if here.status == "fail":
        assert (here.minimal.perturbation.family, here.minimal.allowed) == (
            there.minimal.perturbation.family,
            there.minimal.allowed,
        )


OTHER_NAME = {"sim": "privateuseone"}


def test_auto_takes_the_accelerator_and_its_other_name_will_do(device):
    verdict = CHECKS["alignment"](setup(steps=3), examples=2)
    assert f" on {device} (" in str(verdict)
    assert_alike(*(ac.run(setup(), device=d) for d in (f"{device}:0", OTHER_NAME.get(device, device))))
