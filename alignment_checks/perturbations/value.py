"""`Perturbation`: a small frozen value that says what is done to a training run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from alignment_checks.arguments import is_int
from alignment_checks.randomness import seeding
from alignment_checks.setups.realization import Realization, realize
from alignment_checks.training import TrainingSetup

Plain = str | int | float | bool | None
LARGEST_SEED = 2**16 - 1
FAINT = 2.0**-54
"""A part of a limit that is lost beside it in float64."""

if TYPE_CHECKING:
    from alignment_checks.perturbations.family import Family


@dataclass(frozen=True)
class Perturbation:
    """One perturbation δ of a training run: plain data, equal where it does the same.

    Parameters
    ----------
    family : str
        The name of the family, such as "label_noise".
    magnitude : float or None
        In the family's unit, below 0 only where that is signed; 0 is the identity, bit for bit. None for a composition.
    limit : float or None
        The family's largest |magnitude|: with it, the value knows the domain that it was drawn from.
    seed : int
        Of δ's own randomness. It is coupled: at one seed, a larger magnitude changes a superset of what a smaller does.
    options : tuple of (name, value) pairs
        What else the family was given, as plain data; objects are named by a digest or by `module:qualname`.
    components : tuple of Perturbation
        What a composition applies, in order.

    Examples
    --------
    >>> delta = Perturbation("label_noise", 0.03, 0.05, seed=7)
    >>> print(delta)
    label_noise(rate=0.03)
    >>> eval(repr(delta)) == delta
    True
    """

    family: str
    magnitude: float | None
    limit: float | None
    seed: int
    options: tuple[tuple[str, Plain], ...] = ()
    components: tuple[Perturbation, ...] = ()
    payload: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not is_int(self.seed):
            raise ValueError(f"{self.family}: `seed` must be an int; got {self.seed!r}")
        if self.components:
            if self.magnitude is not None or self.limit is not None:
                raise ValueError("a composition has no magnitude or limit of its own; pass None for both")
            return
        magnitude, limit = self.magnitude, self.limit
        if not (_is_finite(magnitude) and _is_finite(limit)):
            raise ValueError(
                f"{self.family}: magnitude and limit must be finite numbers; got {magnitude!r} and {limit!r}"
            )
        if abs(magnitude or 0.0) > (limit or 0.0):
            raise ValueError(f"{self.family}: |magnitude| must be at most the family's limit {limit}; got {magnitude}")

    def __str__(self) -> str:
        return self.described(seed=False)

    def _shown(self) -> tuple[Perturbation, ...]:
        """Return the components for people to read: what is as good as 0 as 0, beside one that is not."""
        if all(part.is_negligible for part in self.components):
            return self.components
        return tuple(part.at(0.0) if part.is_negligible else part for part in self.components)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        """Print as its repr, which evals back, also in what Hypothesis says of a failing example, and in IPython."""
        printer.text(repr(self))

    def described(self, *, seed: bool = True, digits: int = 4) -> str:
        """Return δ for people to read, with the seed of its randomness unless told otherwise."""
        if self.components:
            return f"compose({', '.join(part.described(seed=seed, digits=digits) for part in self._shown())})"
        if self.family == "identity":
            return "identity"
        known, options = _family(self), dict(self.options)
        title = options.pop("name", self.family)
        shown = [
            f"{known.unit}={(self.magnitude or 0.0) + 0.0:.{digits}g}",  # −0.0 is read as 0
            *(f"{name}={value}" for name, value in options.items()),
        ]
        shown += [f"seed={self.seed}"] if seed and known.seeded else []
        return f"{title}({', '.join(shown)})"

    @property
    def parts(self) -> tuple[Perturbation, ...]:
        """The components of a composition; else the perturbation itself."""
        return self.components or (self,)

    @property
    def size(self) -> float:
        """The sum over the parts of |magnitude| / limit: 0 is the identity, 1 a single family at its limit."""
        return sum(abs(p.magnitude or 0.0) / p.limit for p in self.parts if p.limit)

    @property
    def is_identity(self) -> bool:
        """Whether nothing at all is changed."""
        return all(part.magnitude == 0 for part in self.parts)

    @property
    def continuous(self) -> bool:
        """Whether a single perturbation's magnitude can take any value up to its limit."""
        return self.magnitude not in (None, 0) and _family(self).continuous

    @property
    def is_faint(self) -> bool:
        """Whether a single perturbation's magnitude is lost beside its limit in float64: as good as 0, if not 0."""
        return not self.components and abs(self.magnitude or 0.0) <= FAINT * (self.limit or 0.0)

    @property
    def vanishes(self) -> bool:
        """Whether a single perturbation does the less, the smaller it is: next to 0, next to nothing."""
        return self.magnitude == 0 or _family(self).vanishes

    @property
    def is_negligible(self) -> bool:
        """Whether a single perturbation is as good as none."""
        return self.is_faint and self.vanishes

    @property
    def scalable(self) -> bool:
        """Whether a single perturbation's family takes any magnitude up to its limit, whatever this one's is."""
        return bool(self.limit) and _family(self).continuous

    @property
    def seeded(self) -> bool:
        """Whether a single perturbation's family draws randomness of its own."""
        return bool(self.limit) and _family(self).seeded

    def at(self, magnitude: float) -> Perturbation:
        """Return this single perturbation at another magnitude of its domain."""
        return replace(self, magnitude=magnitude)

    def generator(self, purpose: str = "") -> torch.Generator:
        """Return the generator of δ's own randomness, the same at every magnitude."""
        return seeding.generator("perturbation", self.family, self.seed, purpose)

    def achieved(self, setup: TrainingSetup) -> float | tuple[float, ...]:
        """Return the magnitude that was really done to `setup` under its own seed (5 % of 37 labels is not 5 %).

        Returns
        -------
        float in the family's unit; for a composition, one for each component
        """
        before, done = realize(setup, setup.seed), []
        for part in self.parts:
            after = part.applied(before)
            done.append(0.0 if part.magnitude == 0 else _family(part).achieved(before, after, part))
            before = after
        return tuple(done) if self.components else done[0]

    def applied(self, run: Realization) -> Realization:
        """Return `run` under δ. Magnitude 0 returns `run` itself: the identity, bit for bit.

        Raises
        ------
        ValueError
            If no family has that name, or the family has no such magnitude, or δ has lost, on its way through a
            file, an object that it needs.
        """
        for part in self.parts:
            if part.magnitude != 0:
                part._check_whole()
                part._check_magnitude()
                run = _family(part).apply(run, part)
        return run

    @property
    def kinds(self) -> frozenset[str]:
        """What of a run δ may change: "dataset", "init", "objective", … of each of its parts."""
        return frozenset("identity" if p.family == "identity" else _family(p).kind for p in self.parts)

    @property
    def is_whole(self) -> bool:
        """Whether δ still has every object that its families need: a repr or a file can only name them."""
        return all(part.payload is not None or not _lacking(part) for part in self.parts)

    def _check_magnitude(self) -> None:
        """Strategies never draw any other; a value made by hand, or read from a file, may ask for it."""
        known = _family(self)
        magnitude = float(self.magnitude or 0.0)
        if known.continuous and not known.accepts(magnitude):  # one of single values says itself which they are
            below = magnitude < 0 and not known.signed
            wanted = f"{known.unit} must be at least 0" if below else f"|{known.unit}| must be at most {known.most:g}"
            raise ValueError(
                f"{self.family}: {wanted}; got {magnitude:g}. Draw it from pt.{self.family}(...), or make it with a "
                f"{'magnitude that is not negative' if below else 'smaller magnitude'}"
            )

    def _check_whole(self) -> None:
        if self.payload is None and (lacking := _lacking(self)):
            needs, wanted = lacking
            raise ValueError(
                f"{self.family} needs its `{needs}` ({wanted}), which no repr or file can hold. Draw it from the "
                "strategy that has it, or pass draws of that strategy to `reattached`"
            )


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


IDENTITY = Perturbation("identity", 0.0, 0.0, seed=0)
"""The perturbation that changes nothing."""


def reattached(delta: Perturbation, donors: Iterable[Perturbation]) -> Perturbation:
    """Return δ with the objects that its repr could only name, found again among perturbations that hold them.

    Examples
    --------
    >>> held = Perturbation("objective_mix", 0.5, 1.0, seed=0, options=(("other", "loss"),), payload=max)
    >>> read = eval(repr(held))
    >>> read.is_whole, reattached(read, [held]).is_whole
    (False, True)
    """
    known = {(p.family, p.options): p.payload for donor in donors for p in donor.parts if p.payload is not None}
    parts = [replace(part, payload=known.get((part.family, part.options), part.payload)) for part in delta.parts]
    return replace(delta, components=tuple(parts)) if delta.components else parts[0]


def _lacking(part: Perturbation) -> tuple[str, object] | tuple[()]:
    """Return the option that names an object which is not plain data, and that name; () where there is none."""
    needs = _family(part).needs if part.family != IDENTITY.family else None
    wanted = dict(part.options).get(needs or "")
    return (needs, wanted) if needs and not isinstance(wanted, int) else ()


def _family(delta: Perturbation) -> Family:
    # A value knows its family by name alone, and the families build values: this one import closes that loop.
    from alignment_checks.perturbations.families import FAMILIES

    if delta.family not in FAMILIES:
        raise ValueError(f"no perturbation family is called {delta.family!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[delta.family]
