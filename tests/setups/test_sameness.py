"""Setups that were built apart are one where training cannot tell them apart, and no others."""

import copy
import types
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import find
from torch import nn

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks.properties.memory import Memory
from alignment_checks.properties.sides import BOTH, MESA
from alignment_checks.setups.fingerprints import setup_digest
from alignment_checks.setups.sameness import alike

RATE = 0.1
DELTA = pt.Perturbation("init_gain", 0.5, 1.0, 0)


def descent(params):
    return torch.optim.SGD(params, lr=RATE)


def built(*, lr=0.1, power=2, start=1.0, steps=5, data=None, optimizer=None, seed=0):
    """Return a setup whose parts are all made anew."""
    optimizer = optimizer or partial(torch.optim.SGD, lr=lr)
    if data is None:
        return ac.landscape(lambda x: (x**power).sum(), [start], optimizer=optimizer, steps=steps, seed=seed)
    return ac.TrainingSetup(lambda: nn.Linear(1, 1), data, nn.functional.mse_loss, optimizer, steps, seed=seed)


def tensors(last=3.0):
    return torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [last]])


OTHERS = [
    {"lr": 0.2},
    {"power": 4},
    {"power": 2.0},
    {"start": -1.0},
    {"steps": 6},
    {"seed": 1},
    {"data": tensors()},
    {"data": tensors(4.0)},
    {"optimizer": descent},
    {"optimizer": partial(torch.optim.Adam, lr=0.1)},
    {"optimizer": lambda params: torch.optim.SGD(params, lr=0.1)},
    {"optimizer": lambda params: torch.optim.SGD(params, lr=0.3)},
]


@pytest.mark.parametrize("different", [{}, *OTHERS])
def test_the_same_parts_make_the_same_setup(different):
    assert built(**different) is not built(**different)
    assert alike(built(**different)) == alike(built(**different))
    assert hash(alike(built(**different))) == hash(alike(built(**different)))


def test_any_other_part_makes_another():
    assert len({alike(built(**different)) for different in [{}, *OTHERS]}) == len(OTHERS) + 1


def test_what_a_function_reads_from_its_module_counts(monkeypatch):
    before = alike(built(optimizer=descent))
    monkeypatch.setitem(globals(), "RATE", 0.2)
    assert alike(built(optimizer=descent)) != before


class Settings:
    rate = 0.1


@dataclass
class Inner:
    rate: float = 0.1


class Slotted:
    __slots__ = ("rate",)

    def __init__(self):
        self.rate = 0.1

    def descent(self, params):
        return torch.optim.SGD(params, lr=self.rate)


OBJECT, SLOTTED, MODULE = types.SimpleNamespace(inner=Inner()), Slotted(), types.ModuleType("settings")
MODULE.rate = 0.1
READERS = {
    "class": (Settings, lambda params: torch.optim.SGD(params, lr=Settings.rate)),
    "module": (MODULE, lambda params: torch.optim.SGD(params, lr=MODULE.rate)),
    "object of an object": (OBJECT.inner, lambda params: torch.optim.SGD(params, lr=OBJECT.inner.rate)),
    "slots": (SLOTTED, lambda params: torch.optim.SGD(params, lr=SLOTTED.rate)),
    "default": (OBJECT.inner, lambda params, inner=OBJECT.inner: torch.optim.SGD(params, lr=inner.rate)),
    "closure": (OBJECT.inner, (lambda inner: lambda params: torch.optim.SGD(params, lr=inner.rate))(OBJECT.inner)),
    "method": (SLOTTED, SLOTTED.descent),
}


@pytest.mark.parametrize("name", READERS)
def test_the_attributes_that_a_function_names_count(name, monkeypatch):
    holder, optimizer = READERS[name]
    before = alike(built(optimizer=optimizer))
    assert alike(built(optimizer=optimizer)) == before
    monkeypatch.setattr(holder, "rate", 0.2)
    assert alike(built(optimizer=optimizer)) != before
    monkeypatch.undo()
    assert alike(built(optimizer=optimizer)) == before


class Computed:
    @property
    def rate(self):
        raise AssertionError("looking runs nothing of the user's")


COMPUTED = Computed()


def test_looking_at_attributes_runs_none_of_a_users_code():
    def optimizer(params):
        return torch.optim.SGD(params, lr=COMPUTED.rate)

    assert alike(optimizer) == alike(optimizer)


def test_a_tensor_changed_in_place_is_another():
    data = tensors()
    setup = built(data=data)
    before = alike(setup)
    data[1][0] = 9.0
    assert alike(setup) != before


class Opaque:
    def __call__(self, params):
        return torch.optim.SGD(params, lr=0.1)


def test_what_cannot_be_looked_into_equals_itself_alone():
    one = Opaque()
    assert alike(built(optimizer=one)) == alike(built(optimizer=one))
    assert alike(built(optimizer=one)) != alike(built(optimizer=copy.copy(one)))


def test_recursion_has_an_end():
    def one(n):
        return other(n - 1) if n else 0

    def other(n):
        return one(n - 1) if n else 1

    assert alike(one) == alike(one) != alike(other)


def test_a_setup_is_known_by_the_same_digest_whatever_addresses_its_parts_have():
    """In the next process they have others."""
    kept = [built(optimizer=partial(Opaque(), rule=lambda x: x, fixed=Opaque())) for _ in range(2)]
    kept = [replace(one, scheduler=partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda t: 1.0)) for one in kept]
    assert setup_digest(kept[0]) == setup_digest(kept[1]) != setup_digest(built())


def test_numbers_of_different_kinds_differ():
    assert len({alike(value) for value in (0, 0.0, -0.0, False, "0", None, (), [], {}, 1, 1.0, True)}) == 12
    assert alike(float("nan")) == alike(float("nan"))


def test_a_memory_trains_once_what_several_checks_ask_for():
    memory = Memory()
    runs = [
        check(setup, delta=delta, rtol=99.0, memory=memory).runs
        for check in (ac.check_capability_robust, ac.check_alignment_robust)
        for setup in (built(), built(), built(lr=0.2))
        for delta in (DELTA, pt.IDENTITY)
    ]
    assert runs == [2, 0, 0, 0, 2, 0] + [0] * 6


def test_what_fails_is_trained_afresh_all_the_same():
    memory = Memory()
    assert [ac.check_capability_robust(built(), delta=DELTA, rtol=0.1, memory=memory).runs for _ in "ab"] == [4, 2]


def test_a_memory_keeps_apart_what_is_not_the_same_question():
    memory, setup = Memory(), built()
    asked = [(setup, BOTH, [0]), (setup, MESA, [0]), (setup, BOTH, [1]), (built(lr=0.2), BOTH, [0])]
    assert len({id(memory.experiment(*one)) for one in asked}) == len(asked)
    assert memory.experiment(built(), BOTH, [0]) is memory.experiment(setup, BOTH, [0])
    assert memory.experiment(setup, BOTH, [0], backend="loop") is not memory.experiment(setup, BOTH, [0])


def test_a_given_perturbation_is_shrunk_where_that_is_asked():
    far, near = pt.Perturbation("init_gain", 0.9, 1.0, 0), pt.Perturbation("init_gain", 0.01, 1.0, 0)
    alone = ac.check_capability_robust(built(), delta=far, rtol=0.1)
    assert alone.minimal.perturbation == far
    shrunk = ac.check_capability_robust(built(), delta=far, first=(far, near), rtol=0.1, shrink=True)
    assert shrunk.statement == alone.statement
    assert shrunk.minimal.perturbation.magnitude == pytest.approx(0.0688, rel=0.01)  # 2^(2m) = 1.1
    assert shrunk.searched > 2
    assert ac.check_capability_robust(built(), delta=near, rtol=0.1, shrink=True).status == "pass"


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_data_that_torch_has_written_into_is_other_data(dtype):
    """Also where the very same setup is asked again, and its data was cast."""
    x = torch.linspace(-1, 1, 8)[:, None]
    factory, optimizer = partial(nn.Linear, 1, 1), partial(torch.optim.SGD, lr=0.1)
    setup = ac.TrainingSetup(factory, (x, 2 * x), nn.functional.mse_loss, optimizer, 5, dtype=dtype)
    memory, how = Memory(), {"delta": DELTA, "rtol": 1e-9}
    before = ac.check_capability_robust(setup, memory=memory, **how)
    x.mul_(2)
    after = ac.check_capability_robust(setup, memory=memory, **how)
    assert after.minimal == ac.check_capability_robust(setup, **how).minimal
    assert after.minimal != before.minimal
    x.div_(2)
    assert ac.check_capability_robust(setup, memory=memory, **how).minimal == before.minimal


def test_data_written_into_is_not_trained_on_in_place_of_what_it_was_like():
    """One setup was built like another, whose data has been written into since."""
    memory, how = Memory(), {"delta": DELTA, "rtol": 1e-9}
    first, second = (built(data=tensors()) for _ in "ab")
    ac.check_capability_robust(first, memory=memory, delta=pt.IDENTITY, rtol=0.1)
    first.data[0].mul_(2)
    found = ac.check_capability_robust(second, memory=memory, **how)
    assert found.minimal == ac.check_capability_robust(second, **how).minimal


def test_a_memory_keeps_two_functions_of_one_name_apart():
    def scaled(by):
        def apply(run, magnitude, generator):
            return replace(run, parameters={name: by * value for name, value in run.parameters.items()})

        return find(pt.custom("scaled", apply, max_magnitude=1.0), lambda delta: delta.magnitude == 1)

    memory = Memory()
    status = [ac.check_capability_robust(built(), delta=scaled(by), rtol=0.1, memory=memory).status for by in (1, 9)]
    assert status == ["pass", "fail"]
