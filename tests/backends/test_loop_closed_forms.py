"""What the loop trains is what mathematics says: quadratics, regression, |x| and the logistic loss."""

import numpy as np
import pytest
import torch
from cases.oracle import close, few, run, sgd
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss, softplus

import alignment_checks as ac


@few
@given(
    st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.01, 5), st.booleans()), min_size=1, max_size=3),
    st.floats(0.01, 1.5),
    st.integers(1, 30),
)
def test_quadratic_under_gradient_descent(modes, scale, steps):
    """L = Σ ½λθ²: L(t) = Σ L(0) ρ^2t and G(t) = Σ λ|θ(0)| |ρ|^t with ρ = 1 − ηλ, at every t from 0."""
    values, start = np.array([m[0] for m in modes]), np.array([m[1] * (-1) ** m[2] for m in modes])
    eta = scale / values.max()
    rho = 1 - eta * values
    assume(np.abs(rho).min() > 0.01)
    bowl = ac.landscape(lambda x: (torch.tensor(values) * x.square()).sum() / 2, start, optimizer=sgd(eta), steps=steps)
    t = np.arange(steps + 1)[:, None]
    trajectory = run(bowl)
    close(trajectory.base[0], (values * start**2 / 2 * rho ** (2 * t)).sum(1))
    close(trajectory.mesa[0], (values * np.abs(start) * np.abs(rho) ** t).sum(1))


@pytest.mark.parametrize(("eta", "beta"), [(0.1, 0.5), (0.05, 0.9), (0.9, 0.3), (1.2, 0.1)])
def test_quadratic_under_heavy_ball(eta, beta):
    """θ(t) = A r₁^t + B r₂^t, with the roots of r² − (1 + β − ηλ) r + β, from rest."""
    value, start, steps = 2.0, 1.5, 25
    r = np.roots([1, -(1 + beta - eta * value), beta]).astype(complex)
    a, b = np.linalg.solve([[1, 1], r], [start, (1 - eta * value) * start])
    theta = (a * r[0] ** np.arange(steps + 1) + b * r[1] ** np.arange(steps + 1)).real
    trajectory = run(
        ac.landscape(lambda x: value / 2 * x.square().sum(), [start], optimizer=sgd(eta, momentum=beta), steps=steps)
    )
    close(trajectory.base[0], value / 2 * theta**2)
    close(trajectory.mesa[0], value * np.abs(theta))


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_quadratic_diverges_exactly_beyond_its_largest_step(momentum):
    """Diverges iff η > 2(1 + β)/λ, at the step at which L has grown 10⁸-fold."""
    value, largest = 4.0, 2 * (1 + momentum) / 4.0
    for eta, diverges in ((0.999 * largest, False), (1.5 * largest, True)):
        bowl = ac.landscape(
            lambda x: value / 2 * x.square().sum(), [1.0], optimizer=sgd(eta, momentum=momentum), steps=300
        )
        trajectory = run(bowl)
        at = trajectory.runs[0].outcome.diverged_at
        assert (at is not None) == diverges
        if diverges:
            assert trajectory.base[0, at] > 1e8 * trajectory.base[0, 0] >= trajectory.base[0, at - 1]
            assert np.isnan(trajectory.base[0, at + 1 :]).all()
            assert np.isnan(trajectory.mesa[0, at + 1 :]).all()
            assert str(trajectory.runs[0].outcome) == f"diverged at step {at}"


def test_the_step_of_divergence_is_that_of_the_closed_form():
    rho, start = 1 - 3.0, 1.0
    trajectory = run(ac.landscape(lambda x: x.square().sum() / 2, [start], optimizer=sgd(3.0), steps=40))
    # L(t) = ½ 4^t passes 10⁸ · max(1, ½) at t = 14; G(t) = 2^t later
    assert trajectory.runs[0].outcome.diverged_at == 14
    close(trajectory.base[0, :15], rho ** (2 * np.arange(15)) / 2)
    assert all(value.isnan().all() for value in trajectory.end[0].parameters.values())


@few
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_linear_regression_is_one_mode_for_each_eigenvalue(seed, scale):
    """A mean-squared loss without the ½ doubles the eigenvalues of XᵀX/N; G needs the gradient rotated back."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(12, 3)), random.normal(size=12)
    values, basis = np.linalg.eigh(2 * x.T @ x / 12)
    best, *_ = np.linalg.lstsq(x, y, rcond=None)
    eta = scale / values.max()

    def start():
        module = nn.Linear(3, 1, bias=False)
        nn.init.zeros_(module.weight)
        return module

    decay = (1 - eta * values) ** np.arange(16)[:, None]
    modes = decay * (basis.T @ -best)
    g = np.abs((values * modes) @ basis.T).sum(1)
    assume(g.min() > 1e-6 * g[0])  # of less than that, what gradients are rounded by at t = 0 is 1e-9
    data = (torch.tensor(x), torch.tensor(y)[:, None])
    trajectory = run(ac.TrainingSetup(start, data, mse_loss, sgd(eta), 15, dtype=torch.float64))
    close(trajectory.base[0], np.mean((y - x @ best) ** 2) + (values / 2 * modes**2).sum(1))
    close(trajectory.mesa[0], g)


@pytest.mark.parametrize(("start", "eta"), [(1.03, 0.1), (-0.77, 0.05), (3.001, 0.5)])
def test_absolute_value_orbits_with_half_the_step_as_its_mean_loss(start, eta):
    """GD on |x| from off the grid: G ≡ 1, and an orbit of mean L = η/2."""
    trajectory = run(ac.landscape(lambda x: x.abs().sum(), [start], optimizer=sgd(eta), steps=120))
    assert (trajectory.mesa == 1).all()
    close(trajectory.base[0, -40:].mean(), eta / 2)
    assert trajectory.base[0, -40:].min() > 0


def test_logistic_loss_on_a_separable_example_decays_like_one_over_t():
    """t·L(t) → 1/(η‖x‖²)."""
    x, eta, steps = torch.tensor([[1.0, -2.0]], dtype=torch.float64), 0.5, 3000
    setup = ac.landscape(lambda w: softplus(-(x @ w)).sum(), [0.0, 0.0], optimizer=sgd(eta), steps=steps)
    base = run(setup).base[0]
    margin, expected = 0.0, []
    for _ in range(steps + 1):
        expected.append(np.logaddexp(0, -margin))
        margin += eta * 5.0 / (1 + np.exp(margin))
    close(base, expected)
    ratios = [t * base[t] * eta * 5.0 for t in (30, 300, 3000)]
    assert ratios[0] < ratios[1] < ratios[2] < 1  # from below, with a bias of log t / t
    assert ratios[2] == pytest.approx(1, abs=2 * np.log(3000) / 3000)
