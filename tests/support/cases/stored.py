"""What the plugin stores, as it should be, to be changed for the worse."""

import json

from pytest_alignment.envelope import Envelope
from pytest_alignment.portable import plain
from pytest_alignment.results import Key
from pytest_alignment.store import KEY

from alignment_checks import perturbations as pt

DELTA = pt.Perturbation("label_noise", 0.0313, 0.05, seed=7)


COMPOSED = pt.Perturbation("compose", None, None, 0, components=(DELTA, pt.Perturbation("init_gain", -0.5, 1.0, 0)))


ENVELOPE = Envelope(
    key=Key("test_it.py::test_fails", "capability_robust", "under=label_noise(max_rate=0.05)", 0),
    statement="capability is robust",
    setup="0123456789abcdef",
    perturbation=plain(DELTA),
    numbers={"reference": -0.4, "value": "nan", "deviation": "inf", "allowed": 0.04},
    versions={"torch": "2.13.0"},
)


def changed(**fields):
    return json.dumps({**ENVELOPE.to_dict(), **fields}).encode()


def perturbed(**fields):
    return changed(perturbation={**plain(DELTA), **fields})


def place(pytester, value, name="0123456789abcdef"):
    """Put a value where the store looks for them, as anyone could."""
    import hashlib

    folder = pytester.path / ".alignment" / "examples" / hashlib.sha384(KEY).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(value)
    return folder / name
