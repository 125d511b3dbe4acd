"""What the plugin warns of, by what it is about; each can be filtered by its class."""

from __future__ import annotations

import pytest


class AlignmentWarning(pytest.PytestWarning):
    """Something that the plugin has to say of a run; each of the others is one of these."""


class AlignmentStoreWarning(AlignmentWarning):
    """Something in the store of failing perturbations cannot be read or written."""


class AlignmentCrashWarning(AlignmentWarning):
    """A process died while it trained: what was in flight is tried one by one, or is the cause."""


class AlignmentGivenWarning(AlignmentWarning):
    """Examples of a test that uses `@given` were trained one by one, or left out for want of time."""


class AlignmentInconclusiveWarning(AlignmentWarning):
    """Whether a property holds could not be told, and `alignment_inconclusive = warn`."""


ABOUT = {"store": AlignmentStoreWarning, "crash": AlignmentCrashWarning, "given": AlignmentGivenWarning}
"""The classes of what has one of its own, by what the summary calls it."""


def warn(config: pytest.Config, message: str, about: str) -> None:
    """Warn of it; where warnings are errors, the summary alone has it, since a test cannot help it."""
    try:
        config.issue_config_time_warning(ABOUT.get(about, AlignmentWarning)(message), stacklevel=3)
    except AlignmentWarning:
        return
