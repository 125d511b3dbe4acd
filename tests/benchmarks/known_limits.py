"""Series with known limits, or known to have none: random, chaotic and deterministic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from alignment_checks.asymptotics.regimes import Regime

Series = np.ndarray
EPSILON = 2.0**-52


def autoregressive(phi: float, cases: int, steps: int, random: np.random.Generator) -> Series:
    """Return noise of mean 0 about a transient that dies as 0.9^t."""
    noise = random.normal(size=(steps + 301, cases))
    for t in range(1, steps + 301):
        noise[t] += phi * noise[t - 1]
    return noise[300:].T + 10 * 0.9 ** np.arange(steps + 1)


def heavy_tailed(phi: float, freedom: float, cases: int, steps: int, random: np.random.Generator) -> Series:
    """Return autoregressive noise of Student's t, of mean 0, about a transient that dies as 0.9^t."""
    noise = random.standard_t(freedom, size=(steps + 301, cases))
    for t in range(1, steps + 301):
        noise[t] += phi * noise[t - 1]
    return noise[300:].T + 10 * 0.9 ** np.arange(steps + 1)


def lognormal(phi: float, spread: float, cases: int, steps: int, random: np.random.Generator) -> Series:
    """Return the exponential of autoregressive noise, of mean e^(spread²/2), about the same transient."""
    transient = 10 * 0.9 ** np.arange(steps + 1)
    noise = autoregressive(phi, cases, steps, random) - transient
    return np.exp(spread * np.sqrt(1 - phi**2) * noise) + transient


def squared(phi: float, cases: int, steps: int, random: np.random.Generator) -> Series:
    """Return the square of autoregressive noise in equilibrium, of mean 1/(1 − phi²)."""
    start = random.normal(size=cases) / np.sqrt(1 - phi**2)
    noise = [start]
    for _ in range(steps):
        noise.append(phi * noise[-1] + random.normal(size=cases))
    return np.square(noise).T


def noisy_descent(rate: float, cases: int, steps: int, random: np.random.Generator) -> Series:
    """Return L = θ²/2 under descent with a noisy gradient from θ = 5; its mean goes to η/(2(2 − η))."""
    theta, noise, levels = np.full(cases, 5.0), random.normal(size=(steps + 1, cases)), []
    for t in range(steps + 1):
        levels.append(theta**2 / 2)
        theta = theta - rate * (theta + noise[t])
    return np.array(levels).T


def chaotic(step: Callable[[Series], Series], cases: int, steps: int, random: np.random.Generator) -> Series:
    """Return orbits of a chaotic map from random starts."""
    x, orbit = random.uniform(0.1, 0.4, size=cases), []
    for _ in range(steps + 1):
        orbit.append(x)
        x = step(x)
    return np.array(orbit).T


def logistic(x: Series) -> Series:
    return 4 * x * (1 - x)


def past_the_edge(x: Series) -> Series:
    """Descend x⁴/4 − x²/2 at a rate at which it is chaotic."""
    return x - 1.8 * (x**3 - x)


def orbit_mean(step: Callable[[Series], Series]) -> float:
    return float(chaotic(step, 2000, 4000, np.random.default_rng(99))[:, 500:].mean())


def noisy_heavy_ball(cases: int, steps: int, random: np.random.Generator) -> Series:
    """Return L = θ²/2 under descent with momentum 0.95 and a noisy gradient, which oscillates, from θ = 5."""
    theta, speed, levels = np.full(cases, 5.0), np.zeros(cases), []
    for _ in range(steps + 1):
        levels.append(theta**2 / 2)
        speed = 0.95 * speed + theta + random.normal(size=cases)
        theta = theta - 0.02 * speed
    return np.array(levels).T


def noisy_variance(rate: float, momentum: float = 0.0) -> float:
    """Return the variance that θ comes to: of a linear recursion of order two, in closed form."""
    first, second = 1 + momentum - rate, -momentum
    return rate**2 * (1 - second) / ((1 + second) * ((1 - second) ** 2 - first**2))


def two_scales(cases: int, steps: int, random: np.random.Generator) -> Series:
    """Return autoregressive noise about a transient that is fast at first and slow at last."""
    t = np.arange(steps + 1)
    return autoregressive(0.5, cases, steps, random) - 10 * 0.9**t + 100 * 0.8**t + 3 * 0.98**t


Made = Callable[[int, int, np.random.Generator], Series]
RANDOM: dict[str, tuple[Made, float]] = {
    "white noise": (partial(autoregressive, 0.0), 0.0),
    "autoregressive, 0.5": (partial(autoregressive, 0.5), 0.0),
    "autoregressive, 0.8": (partial(autoregressive, 0.8), 0.0),
    "autoregressive, 0.9": (partial(autoregressive, 0.9), 0.0),
    "autoregressive, two transients": (two_scales, 0.0),
    "heavy tails, t of 3": (partial(heavy_tailed, 0.7, 3.0), 0.0),
    "heavy tails, lognormal": (partial(lognormal, 0.8, 1.0), np.exp(0.5)),
    "noisy descent, η = 0.3": (partial(noisy_descent, 0.3), noisy_variance(0.3) / 2),
    "noisy descent, η = 0.1": (partial(noisy_descent, 0.1), noisy_variance(0.1) / 2),
    "noisy descent, η = 0.05": (partial(noisy_descent, 0.05), noisy_variance(0.05) / 2),
    "noisy descent, momentum 0.95": (noisy_heavy_ball, noisy_variance(0.02, 0.95) / 2),
    "logistic map": (partial(chaotic, logistic), 0.5),
    "chaotic descent": (partial(chaotic, past_the_edge), orbit_mean(past_the_edge)),
}
SLOW: dict[str, tuple[Made, float]] = {
    "autoregressive, 0.95": (partial(autoregressive, 0.95), 0.0),
    "autoregressive, 0.98": (partial(autoregressive, 0.98), 0.0),
    "autoregressive, 0.99": (partial(autoregressive, 0.99), 0.0),
    "its square, 0.95": (partial(squared, 0.95), 1 / (1 - 0.95**2)),
    "its square, 0.98": (partial(squared, 0.98), 1 / (1 - 0.98**2)),
    "its square, 0.99": (partial(squared, 0.99), 1 / (1 - 0.99**2)),
}
"""Noise of which 400 steps are worth 10, 4 and 2 independent values; its square, as L about a minimum has it, is worth
twice as many. For the shorter runs alone."""


def tail(kind: str, t: Series, random: np.random.Generator) -> Series:
    """Return a series with random constants whose mean goes to 1."""
    a, rate, power = random.uniform(0.5, 5), random.uniform(0.005, 0.05), random.uniform(0.5, 2)
    if kind == "exponential":
        return 1 + a * np.exp(-rate * t)
    if kind == "power law":
        return 1 + a * (t + random.uniform(1, 20)) ** -power
    if kind == "two exponentials":
        return 1 + a * np.exp(-rate * t) + random.uniform(0.5, 5) * np.exp(-random.uniform(2, 5) * rate * t)
    if kind == "damped":
        return 1 + a * np.exp(-rate * t) * (1.3 + np.cos(random.uniform(0.1, 1) * t))
    if kind == "periodic":
        cycle = random.normal(size=random.integers(2, 9))
        return np.resize(1 + cycle - cycle.mean(), len(t)) + a * np.exp(-0.05 * t)
    return 1 + np.cos(random.uniform(0.3, 2.5) * t + 1) + 0.3 * np.cos(random.uniform(0.3, 2.5) * t)


TAILS = {
    "exponential": Regime.FIXED,
    "power law": Regime.FIXED,
    "two exponentials": Regime.FIXED,
    "damped": Regime.FIXED,
    "periodic": Regime.PERIODIC,
    "quasiperiodic": Regime.QUASIPERIODIC,
}


def mixed(kind: str, t: Series, random: np.random.Generator) -> Series:
    """Return a series whose mean goes to 1, and what it still has to go may be slow and small beside what it went."""
    if kind == "exponential and power law":
        fast = random.uniform(0.5, 3) * np.exp(-random.uniform(0.005, 0.05) * t)
        return 1 + fast + random.uniform(0.1, 1) * (t + 3) ** -0.5
    rates = 10.0 ** random.uniform(-4, 0, size=5)
    return 1 + random.uniform(size=5) @ np.exp(-np.outer(rates, t))


MIXED = ("exponential and power law", "five exponentials, of rates 1e-4 to 1")
"""Beyond the aim: no method sees what one series does not show."""


def drifting(t: Series, random: np.random.Generator) -> Series:
    kind = random.integers(3)
    walk = random.normal(size=len(t)).cumsum()
    return [walk, -np.log(t + random.uniform(1, 9)), random.normal(size=len(t)) - t / 400][kind]
