"""What the plugin prints, as lines: one in the header, and a section after the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_alignment.ledger import Ledger
from pytest_alignment.results import Key, Result, Stored
from pytest_alignment.threads import workers


def header(ledger: Ledger) -> str:
    """Return the line of the report header."""
    chosen, processes = ledger.options, workers(ledger.config)
    many = f"{processes} processes of one thread" if processes > 1 else "one thread"
    return f"alignment: device {chosen.device}, {many}, examples {chosen.examples}, store {ledger.archive.where}"


def summary(ledger: Ledger, results: Sequence[Result]) -> Iterator[str]:
    """Yield what failed, what was fixed or replayed, and what the store had to say."""
    adjusted = _adjusted(results)
    for result in _told_once(results):
        yield from _failure(result, ledger, adjusted.get(result.key.nodeid))
    for result in results:
        for stored in result.fixed:
            yield f"fixed: {stored.id} no longer fails   {ledger.shown(result.key.nodeid)}   {stored.delta}"
    if ledger.options.replay is not None:
        yield from _replay(results, ledger)
    yield from ledger.interrupted
    yield from ledger.said


def _told_once(results: Sequence[Result]) -> Iterator[Result]:
    """Yield what was raised, and what was passed over, once however many examples that is true of."""
    told: set[tuple[Key, str]] = set()
    for result in results:
        if result.raised or (result.instead and (result.key, result.instead) not in told):
            told.add((result.key, result.instead))
            yield result


def _adjusted(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """Return the p-value of each test that failed by seeds, and Holm's, adjusted among all tests of the run."""
    least: dict[str, float] = {}
    for result in results:
        if result.p_value is not None:
            least[result.key.nodeid] = min(result.p_value, least.get(result.key.nodeid, 1.0))
    if not least:
        return {}
    from alignment_checks.inference.chance import holm

    tests = max(result.tests for result in results)
    return dict(zip(least, zip(least.values(), holm(list(least.values()), among=tests), strict=True), strict=True))


def _failure(result: Result, ledger: Ledger, chance: tuple[float, float] | None) -> Iterator[str]:
    word = "FAILED" if result.status == "fail" else "INCONCLUSIVE" + f" ({result.instead})" * bool(result.instead)
    yield f"{word} {ledger.shown(result.key.nodeid)}"
    yield f"  {'' if result.status == 'fail' else 'whether '}{result.heading}"
    yield from result.found
    if chance is not None and result.p_value is not None:
        least, adjusted = chance
        other = "" if result.p_value <= least else f"; its test's least, {least:.2g}"
        yield f"  p = {result.p_value:.2g}{other}, adjusted for {result.tests} tests (Holm) {adjusted:.2g}"
    if result.changed:
        yield f"  {result.changed} since this was stored"
    if result.replay is not None:
        yield f"  replay   {result.replay}"


def _replay(results: Iterable[Result], ledger: Ledger) -> Iterator[str]:
    """Say what became of every stored failure that was asked for."""
    seen: dict[str, tuple[Result, Stored]] = {}
    for result in results:
        for stored in result.replayed:
            if stored.id not in seen or (seen[stored.id][0].changed and not result.changed):
                seen[stored.id] = result, stored
    for result, stored in seen.values():
        yield f"replayed: {stored.id} {_became(result)}   {ledger.shown(result.key.nodeid)}   {stored.delta}"
    for envelope in ledger.archive.wanted:
        if envelope.id not in seen:
            yield (
                f"not replayed: {envelope.id}   {ledger.shown(envelope.key.nodeid)} was not run, or no longer asserts "
                f"{envelope.key.property} with {envelope.key.call}"
            )
    if not ledger.archive.wanted:
        yield f"nothing to replay: the store {ledger.archive.where} is empty"


def _became(result: Result) -> str:
    words = {"fail": "still fails", "pass": "no longer fails", "inconclusive": "could not be judged"}[result.status]
    return words + f", {'though' if result.status == 'fail' else 'but'} {result.changed} since" * bool(result.changed)
