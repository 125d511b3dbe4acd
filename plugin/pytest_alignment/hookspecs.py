"""The hooks that a `conftest.py` can implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hypothesis.database import ExampleDatabase


@pytest.hookspec(firstresult=True)
def pytest_alignment_database(config: pytest.Config) -> ExampleDatabase | None:
    """Return the database that failing perturbations are stored in; None leaves it to the next, or to the directory.

    Any `hypothesis.database.ExampleDatabase` will do. Called once in each process, when a test first needs the store::

        def pytest_alignment_database(config):
            from hypothesis import database as db

            here = db.DirectoryBasedExampleDatabase(config.rootpath / ".alignment" / "examples")
            return db.MultiplexedDatabase(here, db.ReadOnlyDatabase(db.GitHubArtifactDatabase("owner", "repository")))
    """
