"""Many verdicts → a file that people look at: HTML, Markdown (a CI job's summary), or JSON for other programs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]
"""`{"nodeid": str, "verdict": Verdict.to_dict(), "examples": int}`; the last may be missing, where it is 1."""


def write(path: str | Path, entries: Sequence[Entry]) -> None:
    """Write the verdicts of a test run to a file, in the form that its suffix names.

    Parameters
    ----------
    path : str or Path
        Ends in .html, .md or .json; its folder is made if need be.
    entries : sequence of mappings
        `{"nodeid": …, "verdict": Verdict.to_dict(), "examples": …}`, in the order of the tests. Where an assertion was
        made in several examples of `@given`, its verdict is that on the one of them that tells most.

    Raises
    ------
    ValueError
        If the suffix is another.
    """
    target = Path(path)
    render = renderer(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(entries), encoding="utf-8")


def renderer(path: Path) -> Callable[[Sequence[Entry]], str]:
    """Return what renders entries in the form that a path's suffix names."""
    forms = {".html": as_html, ".md": as_markdown, ".json": as_json}
    if path.suffix not in forms:
        raise ValueError(f"a report's name must end in {', '.join(forms)}; got {path.name!r}")
    return forms[path.suffix]


def as_json(entries: Sequence[Entry]) -> str:
    """Return the entries as JSON, with a version of its form."""
    return json.dumps({"version": 1, "entries": list(entries)}, indent=2, ensure_ascii=False, allow_nan=False)


def as_markdown(entries: Sequence[Entry]) -> str:
    """Return a table of the verdicts, and the text of each that did not pass."""
    rows = [
        f"| {e['verdict']['status']} | {_cell(_prose(_statement(e)))} | {_cell(_code(e['nodeid']))} |" for e in entries
    ]
    failed = [e for e in entries if e["verdict"]["status"] != "pass"]
    texts = [f"### {_code(e['nodeid'])}\n\n{_block(e['verdict']['text'])}\n" for e in failed]
    head = ["# Alignment checks", "", _counts(entries), "", "| status | property | test |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", *texts])


def as_html(entries: Sequence[Entry]) -> str:
    """Return a page that needs nothing else: the table, and each verdict's text to unfold."""
    return _PAGE.format(counts=escape(_counts(entries)), rows="\n".join(map(_row, entries)))


def _row(entry: Entry) -> str:
    verdict = entry["verdict"]
    status, opened = escape(verdict["status"]), "" if verdict["status"] == "pass" else " open"
    return (
        f'<details class="{status}"{opened}><summary><b>{status}</b> {escape(_statement(entry))} '
        f"<code>{escape(entry['nodeid'])}</code></summary><pre>{escape(verdict['text'])}</pre></details>"
    )


def _statement(entry: Entry) -> str:
    """Return the property that was judged, and of how many examples this is the one that tells most."""
    many, verdict = entry.get("examples", 1), entry["verdict"]
    which = "nearest to failing" if verdict["status"] == "pass" else "one"
    return f"{verdict['statement']}{f' ({which} of {many} examples)' * (many > 1)}"


def _counts(entries: Sequence[Entry]) -> str:
    counts = Counter(entry["verdict"]["status"] for entry in entries)
    return ", ".join(f"{counts[status]} {status}" for status in ("fail", "inconclusive", "pass") if counts[status])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    """Return Markdown that reads as this text: a `<lambda>` would be a tag, and left out."""
    return re.sub(r"([\\`*])", r"\\\1", escape(" ".join(text.split()), quote=False))


def _code(text: str) -> str:
    """Return a code span, fenced by one backtick more than it has in a row."""
    line = " ".join(text.split())
    fence = "`" * (_backticks(line) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _block(text: str) -> str:
    fence = "`" * max(3, _backticks(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Alignment checks</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
details {{ border-left: 4px solid; margin: .5rem 0; padding: .2rem .8rem; }}
.pass {{ border-color: #2a7; }} .fail {{ border-color: #c33; }} .inconclusive {{ border-color: #c90; }}
pre {{ overflow-x: auto; }} code {{ color: #666; }}
</style></head><body><h1>Alignment checks</h1><p>{counts}</p>
{rows}
</body></html>
"""
