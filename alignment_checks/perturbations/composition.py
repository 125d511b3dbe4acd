"""Perturbations made of others, and of a user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from alignment_checks.inspection.hints import REALIZATION, noted
from alignment_checks.inspection.inner_state import inner_state
from alignment_checks.perturbations.family import Family, Named, as_asked, drawn, positive
from alignment_checks.perturbations.value import IDENTITY, Perturbation
from alignment_checks.setups.fingerprints import named
from alignment_checks.setups.realization import Realization

Effect = Callable[[Realization, float, torch.Generator], Realization]


def compose(*strategies: SearchStrategy[Perturbation]) -> SearchStrategy[Perturbation]:
    """Apply several perturbations at once, in the order given.

    Parameters
    ----------
    *strategies : strategies of Perturbation, at least one

    Examples
    --------
    >>> from alignment_checks import perturbations as pt
    >>> compose(pt.init_gain(max_log2=1), pt.label_noise(max_rate=0.1))
    compose(init_gain(max_log2=1), label_noise(max_rate=0.1))
    """
    if not strategies or not all(isinstance(strategy, SearchStrategy) for strategy in strategies):
        raise TypeError(
            "compose: expected strategies of perturbations, such as compose(pt.label_noise(max_rate=0.05), "
            f"pt.init_gain(max_log2=1)); got {', '.join(repr(s)[:40] for s in strategies) or 'nothing'}"
        )
    return _together(*strategies)


def draw_together(draw: DrawFn, *strategies: SearchStrategy[Perturbation]) -> Perturbation:
    """Draw a composition: what `compose` does."""
    return assembled([part for strategy in strategies for part in _checked(draw(strategy), strategy).parts])


def _checked(value: Perturbation, strategy: SearchStrategy[Perturbation]) -> Perturbation:
    if not isinstance(value, Perturbation):
        raise TypeError(f"compose: expected strategies of perturbations; {strategy!r:.60} drew {value!r:.40}")
    return value


draw_together.__name__ = "compose"
_together = st.composite(draw_together)


def assembled(parts: list[Perturbation]) -> Perturbation:
    """Return the composition of `parts`; of one part, that part; of none, the identity."""
    if len(parts) < 2:
        return parts[0] if parts else IDENTITY
    return Perturbation("compose", None, None, 0, components=tuple(parts))


def active(delta: Perturbation) -> list[Perturbation]:
    """Return the parts that do something: those that are not at magnitude 0."""
    return [part for part in delta.parts if part.magnitude != 0]


def working(delta: Perturbation) -> list[Perturbation]:
    """Return the parts that do something worth the name: not those as good as 0, unless all are."""
    return [part for part in active(delta) if not part.is_negligible] or active(delta)


def acting(delta: Perturbation) -> Perturbation:
    """Return δ without the parts that do nothing; itself where none does anything."""
    return delta if delta.is_identity else assembled(active(delta))


def custom(name: str, apply: Effect, max_magnitude: float) -> SearchStrategy[Perturbation]:
    """Perturb a run by a function of one's own.

    Parameters
    ----------
    name : str
        What the report calls it.
    apply : callable
        `apply(realization, magnitude, generator) -> realization`: returns a changed copy (`dataclasses.replace`) and
        draws its randomness from `generator` alone, the same draws at every magnitude. Never called at magnitude 0.
    max_magnitude : float above 0
        Magnitudes are drawn from [0, max_magnitude].

    Examples
    --------
    >>> def shorten(run, magnitude, generator):
    ...     return replace(run, data=tuple(part[: round((1 - magnitude) * len(part))] for part in run.data))
    >>> custom("shorten", shorten, max_magnitude=0.5)
    shorten(max_magnitude=0.5)

    The same init and data in another order of minibatches (and with other dropout masks): which one, `generator` says.

    >>> def reorder(run, magnitude, generator):
    ...     return replace(run, seed=int(torch.randint(2**31, (), generator=generator)))
    >>> custom("batch_order", reorder, max_magnitude=1)
    batch_order(max_magnitude=1)
    """
    limit = positive("custom", "max_magnitude", max_magnitude)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"custom: `name` must be an identifier, such as 'drop_borders'; got {name!r}")
    if not callable(apply):
        raise TypeError(f"custom: `apply` must be a function (realization, magnitude, generator); got {apply!r:.60}")
    options = (("name", name), ("apply", named(apply)))
    shown = {"max_magnitude": Named(f"{limit:g}")}
    return drawn(CUSTOM, limit, options=options, payload=apply, shown=shown)


def _apply_custom(run: Realization, delta: Perturbation) -> Realization:
    name = dict(delta.options)["name"]
    with noted(f"raised by custom {name!r}: `apply(realization, magnitude, generator)`. {REALIZATION}"):
        result = delta.payload(run, delta.magnitude, delta.generator())
    if not isinstance(result, Realization):
        raise TypeError(
            f"custom {name!r}: `apply` must return a Realization (dataclasses.replace gives a "
            f"changed copy); got {type(result).__name__}"
        )
    if result.setup is not run.setup:
        raise ValueError(
            f"custom {name!r}: `apply` must leave `setup` as it is, what a run is a run of: number of steps and "
            "mesa-objective are the same under δ. Change the realization's own data, optimizer, seed, …"
        )
    return result if result.module is run.module else replace(result, held=inner_state(result.module))


CUSTOM = Family("custom", "custom", "magnitude", _apply_custom, as_asked, seeded=True, needs="apply", vanishes=False)

FAMILIES = (CUSTOM,)
