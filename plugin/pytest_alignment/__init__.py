"""The pytest plugin of alignment-checks: hooks that delegate. Loads neither torch nor Hypothesis before a test asks."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_alignment import hookspecs, options, terminal
from pytest_alignment.archive import NODEID
from pytest_alignment.ledger import LEDGER, Ledger
from pytest_alignment.notices import (
    AlignmentCrashWarning,
    AlignmentGivenWarning,
    AlignmentInconclusiveWarning,
    AlignmentStoreWarning,
    AlignmentWarning,
)
from pytest_alignment.summary import Summary
from pytest_alignment.tracebacks import Tracebacks

if TYPE_CHECKING:
    from pytest_alignment.fixture import Alignment

__all__ = [
    "Alignment",
    "AlignmentCrashWarning",
    "AlignmentGivenWarning",
    "AlignmentInconclusiveWarning",
    "AlignmentStoreWarning",
    "AlignmentWarning",
    "alignment",
]


def __getattr__(name: str) -> object:
    """Return the type of the fixture, for annotations: it is loaded, torch with it, by whoever names it."""
    if name != "Alignment":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pytest_alignment.fixture import Alignment

    return Alignment


@pytest.fixture(scope="session")
def alignment(pytestconfig: pytest.Config) -> Iterator[Alignment]:
    """Assert on training runs: `alignment.assert_capability_robust(setup, under=..., rtol=...)` and its like."""
    from pytest_alignment.fixture import opened

    with opened(pytestconfig) as value:
        yield value


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare --alignment-device, -examples, -max-time, -replay, -report, -inconclusive and -level."""
    options.declare(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hook that chooses the store's database."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, refuse options that cannot be, and have the reports of all tests collected."""
    config.addinivalue_line("markers", "alignment: asserts a property of training runs; on each test that does.")
    config.stash[LEDGER] = ledger = Ledger(config)
    config.pluginmanager.register(Tracebacks(), "alignment-tracebacks")
    if not ledger.worker:
        ledger.archive.check_replay()
        config.pluginmanager.register(Summary(ledger), "alignment-summary")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no journal behind: nothing is in flight any more."""
    if (ledger := config.stash.get(LEDGER, None)) is not None:
        ledger.archive.journal.close()


def pytest_report_header(config: pytest.Config) -> str:
    """Name the device, the threads, the budget and the store."""
    return terminal.header(config.stash[LEDGER])


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark and count the tests that use the fixture, before -m or -k deselects."""
    item.stash[NODEID] = item.nodeid
    if "alignment" in getattr(item, "fixturenames", ()):
        item.add_marker("alignment")
        item.config.stash[LEDGER].tests += 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave, in a replay, only the tests that are replayed."""
    config.stash[LEDGER].archive.select(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Track the running test, for the session-scoped fixture."""
    with item.config.stash[LEDGER].running(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run a test that uses `@given` dry, to see what its examples train, and then for good."""
    with pyfuncitem.config.stash[LEDGER].foreseen(pyfuncitem):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Do the same of a test that unittest runs."""
    with item.config.stash[LEDGER].foreseen_within(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the results on the report, as a string; outermost, so that the outcome is final."""
    report = yield
    item.config.stash[LEDGER].attach(report, call.excinfo)
    return report
