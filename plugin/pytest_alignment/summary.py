"""The results of all tests, in the one process that sees every report."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_alignment import results, terminal
from pytest_alignment.ledger import Ledger
from pytest_alignment.results import Result


class Summary:
    """Hooks of the controller, or of the only process; never of a worker, whose results travel on its reports.

    Parameters
    ----------
    ledger : Ledger
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._collected: list[tuple[tuple[str, int, str], Result]] = []
        self._written: list[str] = []

    @property
    def results(self) -> list[Result]:
        """Of all tests, in the order of the source, whichever worker was first."""
        return [result for _, result in sorted(self._collected, key=lambda pair: pair[0])]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the results off a report, and bring the store up to date."""
        text = getattr(report, results.ATTRIBUTE, None)
        found, said = self._decoded(text, report.nodeid) if isinstance(text, str) else ([], [])
        for message, about in said:
            self.ledger.say(message, about)
        path, line, _ = report.location
        self._collected += [((path, line or 0, result.key.nodeid), result) for result in found]
        if self.ledger.options.replay is None:
            self._store(found)

    def _decoded(self, text: str, nodeid: str) -> tuple[list[Result], list[tuple[str, str]]]:
        try:
            return results.decoded(text)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            return [], [
                (f"the results of {nodeid} cannot be read ({type(error).__name__}) and are left out", "results")
            ]

    def _store(self, found: list[Result]) -> None:
        for result in found:
            if result.fixed:
                self.ledger.archive.store.forget(result.key)
        for result in found:
            if result.envelope is not None:
                self._keep(result.envelope, result.key.nodeid)

    def _keep(self, envelope: dict[str, Any], nodeid: str) -> None:
        from pytest_alignment.envelope import UnreadableError

        try:
            self.ledger.archive.store.keep(envelope)
        except UnreadableError as error:
            self.ledger.say(f"the failure of {nodeid} cannot be stored: it {error}")

    def pytest_sessionfinish(self) -> None:
        """Write the report file, if one was asked for and there is something to write."""
        path, found = self.ledger.options.report, self.results
        if path is None or not found:
            return
        from alignment_checks import report

        try:
            report.write(path, [_entry(result) for result in found if result.verdict is not None])
        except (OSError, ValueError) as error:
            self._written.append(f"report: could not be written: {error}")
        else:
            self._written.append(f"report: {path}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the section, where there is anything to say."""
        lines = [*terminal.summary(self.ledger, self.results), *self._written]
        if lines and not self.ledger.config.getoption("no_summary", default=False):
            terminalreporter.write_sep("=", "alignment", cyan=True)
            for line in lines:
                terminalreporter.write_line(line)


def _entry(result: Result) -> dict[str, Any]:
    return {"nodeid": result.key.nodeid, "verdict": result.verdict, "examples": result.examples}
