"""`Envelope`: one stored failure as versioned JSON. What is read is not trusted: it is checked, and never evaluated."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pytest_alignment.results import Key

FORMAT = "alignment-checks"
VERSION = 1
LARGEST = 2**16
"""Bytes of a value."""
LONGEST = 4000
"""Characters of a statement that are kept: it has the repr of the strategy in it, which may be of any length."""
NUMBERS = ("reference", "value", "deviation", "allowed")
"""What of a finding is kept in numbers."""
MOST_PARTS = 64
"""Components of a composition, and options of a family."""

Plain = dict[str, Any]


class UnreadableError(ValueError):
    """A value that is none of ours, broken, or written by a newer version."""


@dataclass(frozen=True)
class Envelope:
    """One failing perturbation, and what has to be known to find its assertion again.

    Attributes
    ----------
    key : Key
    statement : str
        The property, with its tolerances, for people; of a long one the beginning.
    setup : str
        Digest of the training setup.
    perturbation : dict
        δ as plain data: family, magnitude, limit, seed, options, components.
    numbers : dict
        reference, value, deviation, allowed; a number that is not finite is a string.
    versions : dict of str to str
        What it was found with.
    level : float or None
        At which it was told from chance, so that a replay tells it at the same; None where nothing was left to chance.
    others : list of dict
        The other distinct failures that were reported beside it: each is replayed by an id of its own.
    backend : str
        Which trained it: a replay alone is trained by the same, lest it differ by rounding. "auto" where none is told.
    """

    key: Key
    statement: str
    setup: str
    perturbation: Plain
    numbers: Plain
    versions: dict[str, str]
    level: float | None = None
    others: list[Plain] = field(default_factory=list)
    backend: str = "auto"

    def each(self) -> list[Envelope]:
        """Return an envelope of each failure by itself, this one first."""
        return [replace(self, perturbation=one, others=[]) for one in (self.perturbation, *self.others)]

    @property
    def id(self) -> str:
        """What a user calls it by: six hexadecimal digits of its assertion and its δ."""
        return identified(self.key, self.perturbation)

    def to_dict(self) -> Plain:
        """Return it as plain data."""
        fields = asdict(self)
        return {"format": FORMAT, "version": VERSION, "id": self.id, **fields.pop("key")._asdict(), **fields}

    def to_bytes(self) -> bytes:
        """Return it as UTF-8 JSON."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Envelope:
        """Return what `to_bytes` wrote.

        Raises
        ------
        UnreadableError
            Says what is wrong with it.
        """
        if len(value) > LARGEST:
            raise UnreadableError(f"is not a stored failure: {len(value)} bytes, expected at most {LARGEST}")
        try:
            return cls.from_dict(json.loads(value.decode(), parse_constant=_refused))
        except UnreadableError:
            raise
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"is corrupt: it is not JSON ({str(error)[:80]})") from None

    @classmethod
    def from_dict(cls, plain: object) -> Envelope:
        """Return what `to_dict` gave, checked.

        Raises
        ------
        UnreadableError
        """
        fields = _ours(plain)
        envelope = cls(
            key=key_of(fields),
            statement=_text(fields, "statement", also="\n"),
            setup=_text(fields, "setup"),
            perturbation=checked(fields.get("perturbation")),
            numbers=_numbers(fields.get("numbers")),
            versions=_versions(fields.get("versions")),
            level=_level(fields),
            others=[checked(other) for other in _listed({"others": [], **fields}, "others")],
            backend=_backend(fields),
        )
        if fields.get("id") != envelope.id:
            raise UnreadableError(
                f"is corrupt: its id is {fields.get('id')!a:.20}, but that of its content {envelope.id}"
            )
        return envelope


def identified(key: Key, perturbation: Plain) -> str:
    """Return the id of a failing δ of one assertion: the same in every run that finds it."""
    text = json.dumps([*key, perturbation], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()


# -------------------------------------------------------------------------------------------------- nothing is trusted


def _refused(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _ours(plain: object) -> Plain:
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise UnreadableError("is foreign: it was not stored by alignment-checks")
    version = plain.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UnreadableError(f"is corrupt: its version is {version!a:.20}, expected {VERSION}")
    if version > VERSION:
        newer = f"format {version % 10**6}; this one reads {VERSION}"
        raise UnreadableError(f"was written by a newer alignment-checks ({newer})")
    return plain


def _text(fields: Plain, name: str, also: str = "") -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not is_text(value, also):
        raise UnreadableError(f"is corrupt: its {name} is {value!a:.40}, expected a string that can be printed")
    return value


def _backend(fields: Plain) -> str:
    value = fields.get("backend", "auto")
    if value not in ("auto", "lanes", "loop"):
        raise UnreadableError(f"is corrupt: its backend is {value!a:.40}, expected lanes or loop")
    return str(value)


def is_text(value: str, also: str = "") -> bool:
    """Return whether a string can be printed on one line, and does nothing to the terminal that it is printed on."""
    return not any(unicodedata.category(char) in _HARMFUL for char in value if char not in _HARMLESS + also)


_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")
_HARMLESS = "\t\u200c\u200d"
"""What is not printed by itself and may stand in a name: tabs, and what joins letters; no line breaks."""


def _whole(fields: Plain, name: str) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UnreadableError(f"is corrupt: its {name} is {value!a:.40}, expected a whole number in [0, 2**63)")
    return value


def _number(fields: Plain, name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
        raise UnreadableError(f"is corrupt: its {name} is {value!a:.40}, expected a finite number")
    return float(value)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _listed(fields: Plain, name: str) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > MOST_PARTS:
        raise UnreadableError(f"is corrupt: its {name} are {value!a:.40}, expected a list of at most {MOST_PARTS}")
    return value


def key_of(fields: Plain) -> Key:
    """Return the assertion that is named in plain data, checked.

    Raises
    ------
    UnreadableError
    """
    return Key(_text(fields, "nodeid"), _text(fields, "property"), _text(fields, "call"), _whole(fields, "occurrence"))


def checked(plain: object, *, part: bool = False) -> Plain:
    """Return a perturbation's plain data, having seen that every field of it is what it must be.

    Raises
    ------
    UnreadableError
        Also where a component is a composition itself: no perturbation is.
    """
    if not isinstance(plain, dict):
        raise UnreadableError(f"is corrupt: its perturbation is {plain!a:.40}, expected a mapping")
    components = _listed(plain, "components")
    if components and part:
        raise UnreadableError("is corrupt: a component of its perturbation has components")
    if components and (plain.get("magnitude"), plain.get("limit")) != (None, None):
        raise UnreadableError("is corrupt: its perturbation has components and a magnitude")
    return {
        "family": _text(plain, "family"),
        "magnitude": None if components else _number(plain, "magnitude"),
        "limit": None if components else _number(plain, "limit"),
        "seed": _whole(plain, "seed"),
        "options": [_option(pair) for pair in _listed(plain, "options")],
        "components": [checked(component, part=True) for component in components],
    }


def _option(pair: object) -> list[Any]:
    named = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and is_text(pair[0])
    value = pair[1] if isinstance(pair, list) and named else {}
    plain = value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if not (plain or (isinstance(value, str) and is_text(value))):
        raise UnreadableError(f"is corrupt: its option {pair!a:.40} is not a name with plain data")
    return [pair[0], value] if isinstance(pair, list) else []


def _numbers(plain: object) -> Plain:
    if not isinstance(plain, dict):
        raise UnreadableError(f"is corrupt: its numbers are {plain!a:.40}, expected a mapping")
    return {n: plain.get(n) if plain.get(n) in ("inf", "-inf", "nan") else _number(plain, n) for n in NUMBERS}


def _level(fields: Plain) -> float | None:
    level = None if fields.get("level") is None else _number(fields, "level")
    if level is not None and not 0 < level <= 0.5:
        raise UnreadableError(f"is corrupt: its level is {level!r}, expected a probability above 0, at most 0.5")
    return level


def _versions(plain: object) -> dict[str, str]:
    if not isinstance(plain, dict) or not all(isinstance(v, str) and is_text(v) for v in (*plain, *plain.values())):
        raise UnreadableError(f"is corrupt: its versions are {plain!a:.40}, expected strings")
    return plain
