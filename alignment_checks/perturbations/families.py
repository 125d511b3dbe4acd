"""All the families, in one table."""

from collections.abc import Mapping
from types import MappingProxyType

from alignment_checks.perturbations import composition, dataset, gradient, init, objective, optimizer
from alignment_checks.perturbations.family import Family

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for group in (dataset, init, objective, optimizer, gradient, composition)
        for family in group.FAMILIES
    }
)
