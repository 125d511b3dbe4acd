"""Where a perturbation is applied: to what is trained, to what is scored, or to both."""

from __future__ import annotations

from dataclasses import dataclass

from alignment_checks.perturbations import IDENTITY, Perturbation


@dataclass(frozen=True)
class Sides:
    """Where δ is applied: to what is trained (mesa), to what is scored (base), or to both.

    Attributes
    ----------
    mesa, base : bool
    kinds : frozenset of str, or None
        The kinds of perturbation that make sense there; None is all.
    """

    mesa: bool
    base: bool
    kinds: frozenset[str] | None = None

    def placed(self, delta: Perturbation) -> tuple[Perturbation, Perturbation]:
        """Return what is trained under and what is scored under."""
        return (delta if self.mesa else IDENTITY), (delta if self.base else IDENTITY)

    def check(self, delta: Perturbation) -> None:
        """Raise ValueError where δ cannot mean anything here."""
        strange = set() if self.kinds is None else delta.kinds - self.kinds - {"identity"}
        if strange:
            hints = ". ".join(dict.fromkeys(_BELONGS[kind] for kind in sorted(strange) if kind in _BELONGS))
            raise ValueError(
                f"{delta} is of kind {', '.join(sorted(strange))}; expected {' or '.join(sorted(self.kinds or ()))} "
                f"here. {hints}"
            )


_TRAINED = "Init and optimizer families go to `under=` or `mesa_under=` of the robustness checks"
_BELONGS = {
    "objective": "Objective families go to `to=` of the generalization checks, or to `under=` of the robustness checks",
    "dataset": "Dataset families go to `under=` of the robustness checks or, for scoring alone, to `base_under=`",
    "init": _TRAINED,
    "optimizer": _TRAINED,
}
"""What to do with a perturbation of each kind where it makes no sense."""

BOTH = Sides(mesa=True, base=True)
MESA = Sides(mesa=True, base=False)
BASE = Sides(mesa=False, base=True, kinds=frozenset({"dataset", "objective", "custom"}))
RETRAINED = Sides(mesa=True, base=True, kinds=frozenset({"objective", "custom"}))
RESCORED = Sides(mesa=False, base=True, kinds=frozenset({"objective", "custom"}))
