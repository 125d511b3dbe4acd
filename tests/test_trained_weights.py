"""What trains weights other than those that `model()` built is refused; what only uses others is trained."""

from functools import partial

import numpy as np
import pytest
import torch
from cases.regression import SGD, linear, regression
from torch import nn
from torch.utils.checkpoint import checkpoint

import alignment_checks as ac


class Masters(torch.optim.Optimizer):
    """Descends copies in float64, and moves the parameters to where those are."""

    def __init__(self, parameters, lr):
        self.trained = list(parameters)
        super().__init__([parameter.detach().double() for parameter in self.trained], {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for parameter, master in zip(self.trained, self.param_groups[0]["params"], strict=True):
            if parameter.grad is not None:
                master -= self.param_groups[0]["lr"] * parameter.grad.double()
                parameter.copy_(master)

    def zero_grad(self, set_to_none=True):
        for parameter in self.trained:
            parameter.grad = None


@pytest.mark.parametrize("backend", ["loop", "lanes"])
def test_an_optimizer_may_hold_copies_of_the_parameters_that_it_moves(backend):
    of_copies = ac.run(regression(optimizer=partial(Masters, lr=0.1)), seeds=range(3), backend=backend)
    plain = ac.run(regression(), seeds=range(3), backend=backend)
    np.testing.assert_allclose(of_copies.base, plain.base, rtol=1e-5, atol=1e-6)


def test_an_optimizer_of_other_parameters_leaves_them_where_they_are():
    other = linear()
    other(torch.ones(3)).sum().backward()
    before = [parameter.detach().clone() for parameter in other.parameters()]
    with pytest.raises(ValueError, match="of other parameters"):
        ac.run(regression(optimizer=lambda parameters: SGD(other.parameters())))
    assert all(map(torch.equal, other.parameters(), before))


def patched():
    model = nn.Sequential(linear())
    plain = model.forward
    model.forward = lambda x: 2 * plain(x)
    return model


def hooked():
    model = linear()
    model.scale = nn.Parameter(torch.ones(()))
    model.register_forward_hook(lambda _, __, outputs: model.scale * outputs)
    return model


class Enclosing(nn.Module):
    """Has a function that encloses itself, beside parameters that it uses as it should."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = linear(), nn.Parameter(torch.ones(()))
        self.call = lambda x: self.inner(x)

    def forward(self, x):
        return self.scale * self.call(x)


@pytest.mark.parametrize("backend", ["auto", "loop", "lanes"])
@pytest.mark.parametrize(
    ("model", "named"), [(patched, "0.weight, 0.bias"), (hooked, "scale"), (Enclosing, "inner.weight, inner.bias")]
)
def test_a_model_whose_copy_computes_with_the_weights_of_the_original_is_refused(model, named, backend):
    with pytest.raises(ValueError, match=rf"the weights of the original \({named}\), .*a method of the model's class"):
        ac.run(regression(model=model), backend=backend)


@pytest.mark.parametrize("backend", ["auto", "loop", "lanes"])
def test_a_model_that_cannot_be_copied_is_refused_with_what_keeps_it_from_that(backend):
    def computed():
        model = linear()
        model.doubled = 2 * model.weight
        return model

    with pytest.raises(ValueError, match=r"copy.deepcopy of the model, .* raised .*parametrizations\.weight_norm"):
        ac.run(regression(model=computed), backend=backend)


@pytest.mark.parametrize("backend", ["auto", "loop", "lanes"])
@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_on_a_gradient_is_refused_as_copies_of_the_model_are_without_it(register, backend):
    def clipped():
        model = linear()
        getattr(model.weight, register)(lambda gradient: None)
        return model

    with pytest.raises(ValueError, match=r"registered on the gradient of weight; .*with register_step_pre_hook"):
        ac.run(regression(model=clipped), backend=backend)


def test_a_setup_that_depends_on_none_of_its_own_parameters_is_refused():
    other = linear()

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = linear()

        def forward(self, x):
            return other(x)

    with pytest.raises(ValueError, match=r"it depends on none of own\.weight, own\.bias, only on tensors that"):
        ac.run(regression(model=Beside))


def test_a_model_that_is_computed_again_on_the_way_back_depends_on_its_parameters():
    """Of a reentrant checkpoint the graph shows none of them, and the loop trains it as any other model."""

    class Checkpointed(nn.Linear):
        def forward(self, x):
            return checkpoint(super().forward, x.clone().requires_grad_(), use_reentrant=True)

    models = (partial(Checkpointed, 3, 1), partial(nn.Linear, 3, 1))
    found, plain = (ac.run(regression(model=one)).base for one in models)
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    assert (found[:, -1] < found[:, 0]).all()


def test_parts_that_are_not_trained_on_purpose_are_none_of_these():
    """A frozen part, one that is no part of the model, one that is not used, a teacher that the objective has."""
    encoder, teacher = nn.Linear(3, 3), linear()

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.head, self.unused = nn.Linear(3, 3).requires_grad_(False), linear(), linear()
            self.act = lambda x: x.tanh()

        def forward(self, x):
            return self.head(self.act(self.frozen(encoder(x))))

    def distilled(outputs, targets):
        return (outputs - teacher(torch.ones(3))).square() + 0 * targets

    both = [ac.run(regression(model=Head, objective=distilled), seeds=[0, 1], backend=one) for one in ("lanes", "loop")]
    assert (both[0].base[:, -1] < both[0].base[:, 0]).all()
    np.testing.assert_allclose(both[0].base, both[1].base, rtol=1e-4)
