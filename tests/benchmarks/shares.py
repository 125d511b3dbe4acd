"""One line of a table: how often something was kept, with its binomial interval."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest

from alignment_checks.inference.evidence import CONFIDENCE


@dataclass(frozen=True)
class Row:
    """One line of the table: what was promised, and how often it was kept."""

    what: str
    kept: int
    cases: int
    aim: str
    more: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper–Pearson's 95 % interval of the share."""
        found = binomtest(self.kept, self.cases).proportion_ci(CONFIDENCE, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        share = f"{100 * self.kept / self.cases:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        return f"| {self.what} | {self.cases} | {share} | {self.aim} | {self.more} |"


HEAD = "| what | cases | how often, 95 % interval | aim | |\n|---|---|---|---|---|"
