"""What pytest shows of an error that is the user's to mend: the user's own line, and not the frames of this project.

Hypothesis trims its own frames likewise. They are all shown under --full-trace, and of an error that is nobody's doing
but ours.
"""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
from pathlib import Path
from types import TracebackType

import pytest

OURS = ("alignment_checks", "pytest_alignment")
"""Packages; a frame is known by its file, since what `@given` makes of a function of ours is Hypothesis's otherwise."""
_INSTALLED = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class Tracebacks:
    """Trims the tracebacks of what tests, and their fixtures, raise."""

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Have the report made of the trimmed traceback; after unittest has said what was raised."""
        if call.excinfo is None or item.config.getoption("fulltrace", default=False):
            return
        error = call.excinfo.value.with_traceback(call.excinfo.tb)
        every = causes(error)
        explained = [one.__cause__ for one in every if _is_refusal(one)]
        for one in every:
            one.__traceback__ = trimmed(one, explained=any(one is other for other in explained))
        call.excinfo = pytest.ExceptionInfo.from_exception(error)


def causes(error: BaseException) -> list[BaseException]:
    """Return an exception, those of a group, and what any was raised from, however deep; each once."""
    found = [error]
    for one in found:
        group = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        inner = [*group, *([] if one.__cause__ is None else [one.__cause__])]
        found += [other for other in inner if not any(other is known for known in found)]
    return found


def trimmed(error: BaseException, *, explained: bool) -> TracebackType | None:
    """Return the traceback without our frames, and what they called in between, down to the next frame of the user's.

    Where none follows, what we raised ends in the user's line, and what befell us, or whom we called, is shown whole.
    What is `explained`, by the refusal that we raised from it, is shown where it was raised alone.
    """
    kept, ours = _parted(error)
    if explained:
        return _linked([*kept, *[entry for entry in ours if not _is_ours(entry)][-1:]])
    return _linked(kept if _is_refusal(error) and any(map(_is_users, kept)) else [*kept, *ours])


def _is_refusal(error: BaseException) -> bool:
    """Return whether we raised it: something is refused there, or asserted of what is the user's."""
    _, ours = _parted(error)
    return bool(ours) and _is_ours(ours[-1]) and _raises(ours[-1]) and type(error) is not AssertionError


def _parted(error: BaseException) -> tuple[list[TracebackType], list[TracebackType]]:
    """Return what is kept of a traceback, and what it ends with where that is ours, or was called by us."""
    kept: list[TracebackType] = []
    ours: list[TracebackType] = []
    traceback = error.__traceback__
    while traceback is not None:
        if _is_ours(traceback) or (ours and not _is_users(traceback)):
            ours.append(traceback)
        else:
            ours = []
            kept.append(traceback)
        traceback = traceback.tb_next
    return kept, ours


def _is_ours(entry: TracebackType) -> bool:
    """Return whether its file is of ours, or it is made up for one of our classes, as a dataclass's `__init__` is."""
    files = (getattr(sys.modules.get(name), "__file__", None) for name in OURS)
    name, module = entry.tb_frame.f_code.co_filename, str(entry.tb_frame.f_globals.get("__name__"))
    made_up = name.startswith("<") and module.partition(".")[0] in OURS
    return made_up or name.startswith(tuple(f"{Path(file).parent}{os.sep}" for file in files if file))


def _is_users(entry: TracebackType) -> bool:
    """Return whether it is neither of an installed package nor made up: those have names such as <string>."""
    name = entry.tb_frame.f_code.co_filename
    return not _is_ours(entry) and not name.startswith(("<", *_INSTALLED))


def _raises(entry: TracebackType) -> bool:
    """Return whether it is a statement that raises: something is refused there, or asserted of what is ours."""
    code = entry.tb_frame.f_code.co_code
    return dis.opname[code[entry.tb_lasti]] == "RAISE_VARARGS"


def _linked(entries: list[TracebackType]) -> TracebackType | None:
    last = None
    for entry in reversed(entries):
        last = TracebackType(last, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return last
