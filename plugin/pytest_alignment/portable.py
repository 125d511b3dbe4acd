"""Perturbations as plain data, there and back."""

from __future__ import annotations

from alignment_checks.perturbations import Perturbation
from pytest_alignment.envelope import Plain


def plain(delta: Perturbation) -> Plain:
    """Return δ as JSON can hold it, without what is not plain data."""
    return {
        "family": delta.family,
        "magnitude": None if delta.magnitude is None else float(delta.magnitude),
        "limit": None if delta.limit is None else float(delta.limit),
        "seed": delta.seed,
        "options": [list(pair) for pair in delta.options],
        "components": [plain(part) for part in delta.components],
    }


def restored(fields: Plain) -> Perturbation:
    """Return the perturbation of checked plain data.

    Raises
    ------
    ValueError
        If no family has its name, or its magnitude is out of its domain.
    """
    delta = Perturbation(
        fields["family"],
        fields["magnitude"],
        fields["limit"],
        fields["seed"],
        tuple((name, value) for name, value in fields["options"]),
        tuple(restored(part) for part in fields["components"]),
    )
    if not delta.kinds:
        raise ValueError(f"{delta.family} is no perturbation")
    return delta
