"""Where a run ended: the gradient and curvature at θ(T), which tell a resting place from a plateau and from a halt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from alignment_checks.measures import infimum
from alignment_checks.objectives import Tensors
from alignment_checks.randomness import seeding
from alignment_checks.randomness.drawing import EVALUATION, Randomness, drawing, drawing_of
from alignment_checks.setups.realization import Realization, loss_of, randomness, realize
from alignment_checks.trajectory import End, Trajectory

Function = Callable[[Tensor], Tensor]

TOLERANCE = 1e-3
"""An escape counts where it changes L by more than this part of what the run has changed it."""

AT_REST = 1e-6
"""A gradient this many times smaller than at θ(0) is taken to be 0."""

FASTEST = 1.2
"""A learning rate that has fallen faster than t^-1.2 has a finite sum: it stops a run wherever it is."""

ROUNDOFF = 1000
"""A gradient along an eigenvector is 0 below this many times its rounding."""

FLAT = 1e-9
"""An eigenvalue is 0 below this part of the largest."""

ALONG = 0.05
"""A run is on its way down a direction if its last step goes at least this part of what plain descent would."""

LINGERING = 0.7
"""A run leaves a saddle slowly if its slope there was at least this part of what it is, one step before."""

DENSE = 64
"""Up to this many parameters the Hessian is formed; beyond, Lanczos takes `KRYLOV` Hessian-vector products."""
KRYLOV = 40


@dataclass(frozen=True)
class Endpoint:
    """What the end of one run says.

    Attributes
    ----------
    frozen : bool
        The learning rate is 0.
    stopped : bool
        It is 0 or goes there with a finite sum, the step vanishes, and the gradient does not.
    curvature : float
        The least eigenvalue of the Hessian of the loss that was trained on; NaN if it was not looked at.
    saddle : bool
        That is negative, and the run has no part along any direction of negative curvature: it rests there.
    maximum : bool
        So it does, and curvature is negative along every direction that was looked at.
    escape : float or None
        L at the bottom of the way down along the most curved direction that the run is on its way down.
    escape_in : float
        About how many steps of plain descent that would take from here; NaN where it escapes nowhere.
    lingers : bool
        It leaves there slowly, as from near a saddle; a run that goes round may as well come by where it goes down.
    fallen, growth : float
        By how much L has come down along that direction since the saddle, and the logarithm of how many times as far
        from it each step of plain descent leads: what a run that leaves must already show.
    unseen : str
        Why curvature could not be looked at.
    """

    frozen: bool = False
    stopped: bool = False
    curvature: float = math.nan
    saddle: bool = False
    maximum: bool = False
    escape: float | None = None
    escape_in: float = math.nan
    lingers: bool = False
    fallen: float = 0.0
    growth: float = 0.0
    unseen: str = ""


def endpoint(trajectory: Trajectory, row: int, *, lowest: float | None) -> Endpoint:
    """Return what the end of one run says.

    Parameters
    ----------
    trajectory : Trajectory
    row : int
    lowest : float or None
        The least L that the run can still come to by what its series says; where that is the stated infimum, no escape
        can lead lower, and curvature is not looked at where that is dear. Where it is cheap it is looked at all the
        same: an infimum of 0 is what a setup says unless told otherwise. None does not look either.
    """
    place = _Place.of(trajectory, row)
    frozen = place.end.learning_rate != () and all(rate == 0 for rate in place.end.learning_rate)
    try:
        if place.stops():
            return Endpoint(frozen, stopped=True)
        least = infimum(trajectory, row)
        same = trajectory.runs[row].base == trajectory.runs[row].perturbation
        room = TOLERANCE * abs(float(trajectory.base[row, 0] - trajectory.base[row, -1]))
        lowered = same and least is not None and lowest is not None and lowest <= least + room
        if frozen or lowest is None or (lowered and len(place.theta) > DENSE):
            return Endpoint(frozen)
        return place.curved(trajectory.resolution)
    except (RuntimeError, NotImplementedError) as error:  # such as a model that cannot be differentiated twice
        return Endpoint(frozen, unseen=f"{type(error).__name__} {error}".splitlines()[0][:80])


def last_change(trajectory: Trajectory, row: int) -> float:
    """Return by how much the last step of one run changed L."""
    place = _Place.of(trajectory, row)
    with torch.no_grad():
        before, after = (float(place.score(theta)) for theta in (place.theta - place.step, place.theta))
    return abs(after - before)


@dataclass(frozen=True, eq=False)
class _Place:
    """θ(T) as a vector, in float64, and the functions of it that training and scoring evaluate."""

    start: Realization
    train: Function
    score: Function
    theta: Tensor
    step: Tensor
    end: End
    steps: int

    @classmethod
    def of(cls, trajectory: Trajectory, row: int) -> _Place:
        run, end = trajectory.runs[row], trajectory.end[row]
        plain = realize(trajectory.setup, run.seed)
        train = run.perturbation.applied(plain)
        score = train if run.base == run.perturbation else run.base.applied(plain)
        found = randomness(train)
        theta, step = (_flat(part, train.parameters) for part in (end.parameters, end.step))
        functions = [_function(which, train.parameters, found) for which in (train, score)]
        return cls(train, functions[0], functions[1], theta, step, end, trajectory.setup.steps)

    @property
    def begin(self) -> Tensor:
        """θ(0)."""
        return _flat(self.start.parameters, self.start.parameters)

    def stops(self) -> bool:
        """Return whether the learning rate ends the run where the gradient is not 0."""
        rates = [group.get("lr", math.nan) for group in self._optimizer().param_groups]
        first, last = max(map(float, rates)), max(self.end.learning_rate, default=math.nan)
        if not last < first * (self.steps + 1) ** -FASTEST:
            return False
        moved = float((self.theta - self.begin).norm())
        return self.slope() > AT_REST and float(self.step.norm()) <= TOLERANCE * moved

    def slope(self) -> float:
        """Return the 1-norm of the gradient at θ(T), as a part of that at θ(0); 0 where both are."""
        before, after = (float(_gradient(self.train, theta)[0].abs().sum()) for theta in (self.begin, self.theta))
        return after / before if before > 0 else (0.0 if after == 0 else math.inf)

    def _optimizer(self) -> torch.optim.Optimizer:
        return self.start.optimizer([nn.Parameter(value.clone()) for value in self.start.parameters.values()])

    def curved(self, resolution: float) -> Endpoint:
        """Return the least curvature, and where the directions of negative curvature lead if the run goes there."""
        gradient, product = _gradient(self.train, self.theta)
        curvatures, directions = _spectrum(product, len(self.theta))
        unstable = curvatures < -FLAT * float(curvatures.abs().max())
        bends, ways = curvatures[unstable], directions[unstable]
        slopes, moves = ways @ gradient, ways @ self.step
        noise = ROUNDOFF * resolution * (gradient.norm() + bends.abs() * self.theta.norm())
        rests = len(bends) > 0 and bool((slopes.abs() <= noise).all())
        rests = rests and self.slope() <= TOLERANCE
        found = Endpoint(curvature=float(curvatures[0]), saddle=rests, maximum=rests and bool(unstable.all()))
        rate = max(self.end.learning_rate, default=0.0)
        downhill = (slopes.abs() > noise) & (slopes * moves < 0) & (moves.abs() >= ALONG * rate * slopes.abs())
        if not downhill.any():
            return found
        first = int(downhill.int().argmax())  # the most curved: it is left the fastest
        way, away = -slopes[first].sign() * ways[first], abs(float(slopes[first] / bends[first]))
        bottom = _descended(self.train, self.theta, way, away)
        growth = math.log1p(rate * abs(float(bends[first])))  # the distance from the saddle grows by it at each step
        times = math.log1p(float((bottom - self.theta).norm()) / away)
        before = float(ways[first] @ _gradient(self.train, self.theta - self.step)[0]) / float(slopes[first])
        when = times / growth if growth > 0 else math.inf
        fallen, lingers = 0.5 * away * abs(float(slopes[first])), LINGERING <= before < 1
        escape = float(self.score(bottom))
        return replace(found, escape=escape, escape_in=when, lingers=lingers, fallen=fallen, growth=growth)


def _descended(loss: Function, theta: Tensor, direction: Tensor, size: float) -> Tensor:
    """Return where `loss` is least along a direction, the step doubled until it rises."""
    best, least = theta, float(loss(theta))
    step, most = max(size, 1e-9), 1e3 * (1 + float(theta.norm()))
    while step < most:
        here = theta + step * direction
        value = float(loss(here))
        if not value <= least + 1e-12 * abs(least):
            break
        best, least, step = here, value, 2 * step
    return best


# ----------------------------------------------------------------------------------------------- gradient and curvature


def _flat(values: Tensors, like: Tensors) -> Tensor:
    """Return a vector, in the order of `like`; NaN where there is no value."""
    parts = [values.get(name, torch.full_like(one, torch.nan)).detach().cpu().double() for name, one in like.items()]
    return torch.cat([part.reshape(-1) for part in parts])


def _function(run: Realization, like: Tensors, draws: Randomness) -> Function:
    """Return the loss of a realization over its whole dataset as a function of θ, in float64, without side effects.

    It is of the training-mode loss where that is deterministic, else of eval mode, as L(t) is.
    """
    constants = {name: _double(value) for name, value in run.constants.items()}
    data = None if run.data is None else tuple(map(_double, run.data))
    run, seed = replace(run, data=data), drawing_of(draws, run.seed)

    def loss(theta: Tensor) -> Tensor:
        parts = torch.split(theta, [value.numel() for value in like.values()])
        parameters = {name: part.reshape(like[name].shape) for (name, part) in zip(like, parts, strict=True)}
        state = {**parameters, **{name: value.clone() for name, value in constants.items()}}
        run.module.train(draws is Randomness.NONE)
        with seeding.isolated(seeding.derive("evaluation", run.seed)), drawing(seed, EVALUATION):
            outputs = torch.func.functional_call(run.module, state, run.inputs)
            return loss_of(run)(outputs, run.targets, parameters)

    return loss


def _double(value: Tensor) -> Tensor:
    return value.cpu().double() if value.is_floating_point() else value.cpu()


def _gradient(loss: Function, theta: Tensor) -> tuple[Tensor, Function]:
    """Return the gradient at θ, and the function that multiplies the Hessian there with a vector."""
    here = theta.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(here), here, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:
            return torch.zeros_like(vector)
        (found,) = torch.autograd.grad(gradient, here, vector, retain_graph=True)
        return found

    return gradient.detach(), product


def _spectrum(product: Function, size: int) -> tuple[Tensor, Tensor]:
    """Return eigenvalues of a symmetric operator, the least first, and their eigenvectors as rows: Lanczos if large.

    A Ritz value is never below the least eigenvalue, so one that is negative proves that there is a way down.
    """
    basis = torch.eye(size, dtype=torch.float64, device="cpu") if size <= DENSE else _krylov(product, size)
    images = torch.stack([product(vector) for vector in basis])
    matrix = basis @ images.T
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    return values, vectors.T @ basis


def _krylov(product: Function, size: int) -> Tensor:
    """Return an orthonormal basis of a Krylov space of a random vector (Lanczos, fully reorthogonalized)."""
    vector = torch.randn(size, dtype=torch.float64, device="cpu", generator=seeding.generator("lanczos"))
    basis: Tensor = (vector / vector.norm())[None]
    while len(basis) < KRYLOV:
        image = product(basis[-1])
        rest = image
        for _ in range(2):
            rest = rest - basis.T @ (basis @ rest)
        if not float(rest.norm()) > FLAT * float(image.norm()):
            break
        basis = torch.cat([basis, (rest / rest.norm())[None]])
    return basis
