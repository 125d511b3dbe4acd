"""Fixtures that let what pays only for long trainings happen in short ones."""

import pytest

from alignment_checks.backends import plan
from alignment_checks.backends.compilation import compiled


@pytest.fixture
def tracing(monkeypatch):
    """Let the shortest training be traced."""
    monkeypatch.setattr(plan, "TRACING", 0)


@pytest.fixture
def compiling(monkeypatch):
    """Let the shortest training be compiled."""
    monkeypatch.setattr(plan, "COMPILING", 0)
    compiled.compiled.cache_clear()
