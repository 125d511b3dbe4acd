"""The plugin's options: each with its ini twin, read once, refused before anything runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "mtia", "npu", "xla", "privateuseone")
ALL = "all"
REPORTS = (".html", ".md", ".json")
"""As in `alignment_checks.report`, which is not loaded for this."""

_HELP = {
    "alignment_device": "device that alignment assertions train on: auto, cpu, cuda, cuda:1, ... (default: auto)",
    "alignment_examples": "number of perturbations that each alignment assertion draws (default: 100)",
    "alignment_max_time": "time limit of each alignment assertion, kept to within one batch (default: no limit)",
    "alignment_replay": "rerun only the stored failure with this id, or all of them",
    "alignment_report": "write the verdicts of all alignment assertions to this file",
    "alignment_inconclusive": "outcome of a test that could not be judged: fail, skip or warn (default: fail)",
    "alignment_level": "probability that chance alone fails any test of the run whose property holds (default: 0.05)",
}
_METAVARS = {"device": "DEVICE", "examples": "N", "max_time": "SECONDS", "replay": "ID|all", "report": "PATH"}
_METAVARS |= {"inconclusive": "fail|skip|warn", "level": "P"}
INCONCLUSIVE = ("fail", "skip", "warn")


@dataclass(frozen=True)
class Options:
    """What the command line or the ini file asked for, checked.

    Attributes
    ----------
    device : str
    examples : int
        At least 1.
    max_time : float or None
        Seconds for each assertion, above 0.
    replay : str or None
        An id of the store, "all", or None for a plain run.
    report : Path or None
        Absolute.
    seed : str or None
        The value of --hypothesis-seed.
    inconclusive : {"fail", "skip", "warn"}
        Outcome of a test whose property could not be judged.
    level : float
        Of all tests together: the probability that chance alone fails any whose property holds.
    """

    device: str
    examples: int
    max_time: float | None
    replay: str | None
    report: Path | None
    seed: str | None
    inconclusive: str = "fail"
    level: float = 0.05


def declare(parser: pytest.Parser) -> None:
    """Add the options and their ini twins to pytest's parser."""
    group = parser.getgroup("alignment", "properties of training runs (alignment-checks)")
    for name, text in _HELP.items():
        short = name.removeprefix("alignment_")
        kind: Literal["int", "string"] = "int" if short == "examples" else "string"
        flag = f"--alignment-{short.replace('_', '-')}"
        group.addoption(flag, dest=name, metavar=_METAVARS[short], default=None, help=text)
        parser.addini(name, f"the same as {flag}", type=kind, default=None)


def read(config: pytest.Config) -> Options:
    """Return the options, the command line before the ini file.

    Raises
    ------
    pytest.UsageError
        If a value is none that the option can have.
    """
    return Options(
        device=_device(*_given(config, "device")),
        examples=_examples(*_given(config, "examples")),
        max_time=_max_time(*_given(config, "max_time")),
        replay=_replay(*_given(config, "replay")),
        report=_report(config, *_given(config, "report")),
        seed=config.getoption("--hypothesis-seed", default=None),
        inconclusive=_inconclusive(*_given(config, "inconclusive")),
        level=_level(*_given(config, "level")),
    )


def _given(config: pytest.Config, short: str) -> tuple[object, str]:
    """Return a value, None where there is none, and what a message calls the place that it came from."""
    name = f"alignment_{short}"
    if (value := config.getoption(name, default=None)) is not None:
        return value, f"--alignment-{short.replace('_', '-')}"
    try:
        value = config.getini(name)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"ini option {name}: {error}") from None
    return (None if value == "" else value), f"ini option {name}"


def _device(value: object, where: str) -> str:
    if value is None:
        return "auto"
    found = re.fullmatch(r"([a-z]+)(?::\d+)?", str(value))
    if found is None or found[1] not in DEVICES:
        raise pytest.UsageError(
            f"{where}: expected a device, one of {', '.join(DEVICES)}, with an index if need be (cuda:1); got {value!r}"
        )
    return str(value)


def _examples(value: object, where: str) -> int:
    if value is None:
        return 100
    if not re.fullmatch(r"\+?[0-9]{1,9}", str(value)) or int(str(value)) < 1:
        raise pytest.UsageError(f"{where}: expected how many perturbations to draw, at least 1; got {value!r}")
    return int(str(value))


def _max_time(value: object, where: str) -> float | None:
    if value is None:
        return None
    if not re.fullmatch(r"\+?([0-9]{1,9}(\.[0-9]*)?|\.[0-9]+)", str(value)) or not float(str(value)) > 0:
        raise pytest.UsageError(f"{where}: expected seconds for each assertion, a number above 0; got {value!r}")
    return float(str(value))


def _replay(value: object, where: str) -> str | None:
    if value is None:
        return None
    if value != ALL and not re.fullmatch(r"[0-9a-f]{6,64}", str(value)):
        raise pytest.UsageError(
            f"{where}: expected the id that a failure ends with (--alignment-replay=3fa9c1), or all "
            f"(--alignment-replay=all); got {value!r}"
        )
    return str(value)


def _inconclusive(value: object, where: str) -> str:
    if value is None:
        return "fail"
    if value not in INCONCLUSIVE:
        raise pytest.UsageError(f"{where}: expected one of {', '.join(INCONCLUSIVE)}; got {value!r}")
    return str(value)


def _level(value: object, where: str) -> float:
    if value is None:
        return 0.05
    if not re.fullmatch(r"0?\.[0-9]{1,9}|[1-9]e-[0-9]{1,2}", str(value)) or not 0 < float(str(value)) <= 0.5:
        raise pytest.UsageError(f"{where}: expected a probability above 0, at most 0.5; got {value!r}")
    return float(str(value))


def _report(config: pytest.Config, value: object, where: str) -> Path | None:
    if value is None:
        return None
    base = directory(config) if where.startswith("ini") else config.invocation_params.dir
    path = Path(base, str(value))
    if path.is_dir() or path.suffix not in REPORTS:
        raise pytest.UsageError(
            f"{where}: expected a file to write, its name ending in {', '.join(REPORTS)}; got {str(value)!r}"
        )
    return path


def directory(config: pytest.Config) -> Path:
    """Return the directory of pytest's configuration file, or the root directory where there is none."""
    return config.rootpath if config.inipath is None else config.inipath.parent
