"""What one assertion came to, as plain data: it travels on the report of its test as a string."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

ATTRIBUTE = "alignment_results"


class Key(NamedTuple):
    """Which assertion: the same for the same line of a test in every run.

    Attributes
    ----------
    nodeid : str
    property : str
        Such as "capability_robust".
    call : str
        What is perturbed and how; not how much is tolerated, so that a failure is tried again after that was changed.
    occurrence : int
        Among the assertions of the test that are equal up to here.
    """

    nodeid: str
    property: str
    call: str
    occurrence: int


class Stored(NamedTuple):
    """A stored failure, as the terminal names it."""

    id: str
    delta: str


@dataclass(frozen=True)
class Result:
    """What one assertion came to.

    Attributes
    ----------
    key : Key
    status : {"pass", "fail", "inconclusive"}
    heading : str
        The property denied where it failed, else stated.
    found : tuple of str
        The smallest failing δ, the worst, and what else failed, as lines for people.
    replay : str or None
        The command.
    raised : bool
        Whether it is what its test failed by: not so under `pytest.raises` or `xfail`.
    envelope : dict or None
        What the store keeps of it, where it was raised.
    fixed, replayed : tuple of Stored
        Stored failures that no longer fail, and those that were replayed.
    changed : str
        What is to be said of the setup of a replayed failure where it is not the one that failed, else "".
    verdict : dict or None
        The whole verdict, where a report was asked for and this is the one that is told of its assertion.
    examples : int
        Of `@given`, in which that assertion was made.
    p_value : float or None
        Of a failure over several seeds, corrected within its test; None where nothing was left to chance.
    tests : int
        How many tests there are, among which Holm's procedure corrects further.
    instead : str
        "skipped" or "warned", where that was asked for of what could not be judged.
    """

    key: Key
    status: str
    heading: str
    found: tuple[str, ...] = ()
    replay: str | None = None
    raised: bool = False
    envelope: dict[str, Any] | None = None
    fixed: tuple[Stored, ...] = ()
    replayed: tuple[Stored, ...] = ()
    changed: str = ""
    verdict: dict[str, Any] | None = None
    examples: int = 1
    p_value: float | None = None
    tests: int = 1
    instead: str = ""


def encoded(results: list[Result], said: list[tuple[str, str]]) -> str:
    """Return results, and what there is to say (and about what), as one JSON string."""
    return json.dumps({"results": [asdict(result) for result in results], "said": said})


def decoded(text: str) -> tuple[list[Result], list[tuple[str, str]]]:
    """Return what `encoded` was given."""
    plain = json.loads(text)
    return [_result(**fields) for fields in plain["results"]], [(message, about) for message, about in plain["said"]]


def _result(**fields: Any) -> Result:
    fields["key"] = Key(*fields["key"])
    for name in ("fixed", "replayed"):
        fields[name] = tuple(Stored(*pair) for pair in fields[name])
    fields["found"] = tuple(fields["found"])
    return Result(**fields)
