"""A report shows every verdict, in the form that its name asks for."""

from __future__ import annotations

import json
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import alignment_checks as ac
from alignment_checks import perturbations as pt
from alignment_checks import report


@pytest.fixture(scope="module")
def entries() -> list[report.Entry]:
    bowl = ac.landscape(lambda x: x.square().sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=5)
    failing = ac.check_capability_robust(bowl, under=pt.init_gain(max_log2=1), rtol=0.1, examples=5)
    passing = ac.check_capability_robust(bowl, under=pt.init_seed(), rtol=0.1, examples=5)
    assert (failing.status, passing.status) == ("fail", "pass")
    return [
        {"nodeid": "test_a.py::test_x[<b>|&]", "verdict": failing.to_dict()},
        {"nodeid": "test_a.py::test_y", "verdict": passing.to_dict()},
    ]


def test_json_holds_the_entries_and_a_version(entries: list[report.Entry], tmp_path: Path) -> None:
    report.write(tmp_path / "new" / "r.json", entries)
    written = json.loads((tmp_path / "new" / "r.json").read_text(encoding="utf-8"))
    assert written == {"version": 1, "entries": entries}


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_of_several_examples_it_says_which_the_verdict_is_on(
    entries: list[report.Entry], tmp_path: Path, suffix: str
) -> None:
    failing, passing = ({**entry, "examples": 100} for entry in entries)
    report.write(tmp_path / f"r{suffix}", [failing, passing, *entries])
    page = (tmp_path / f"r{suffix}").read_text(encoding="utf-8")
    assert page.count("rtol=0.1 (one of 100 examples)") == 1
    assert page.count("rtol=0.1 (nearest to failing of 100 examples)") == 1


def test_html_escapes_what_tests_are_called(entries: list[report.Entry], tmp_path: Path) -> None:
    report.write(tmp_path / "r.html", entries)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "test_x[&lt;b&gt;|&amp;]" in page
    assert "test_x[<b>" not in page
    assert "1 fail, 1 pass" in page


def test_html_is_well_formed_and_opens_what_failed(entries: list[report.Entry]) -> None:
    stack: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta",):
                stack.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag

    page = report.as_html(entries)
    Nesting().feed(page)
    assert stack == []
    assert page.count(" open>") == 1


def test_markdown_has_a_row_for_each_and_the_text_of_what_failed(entries: list[report.Entry]) -> None:
    text = report.as_markdown(entries)
    rows = [line for line in text.splitlines() if line.startswith(("| fail", "| pass"))]
    assert len(rows) == 2
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)
    assert text.count("smallest failing δ") == 1


def test_markdown_says_what_things_are_called_whatever_that_is() -> None:
    """A function may be a `<lambda>`, which Markdown takes for a tag and leaves out; a test's parameter, anything."""
    statement = "capability is robust under objective_mix(other=<lambda>, k*=1|2), rtol=0.1"
    verdict = {"status": "fail", "statement": statement, "text": f"{statement}\n```\n<b>"}
    table, _, text = report.as_markdown([{"nodeid": "test_a.py::test_x[`a`|<b>]", "verdict": verdict}]).partition("###")
    assert r"| capability is robust under objective_mix(other=&lt;lambda&gt;, k\*=1\|2), rtol=0.1 |" in table
    assert r"| `` test_a.py::test_x[`a`\|<b>] `` |" in table, "in code a tag is none"
    assert text == f" `` test_a.py::test_x[`a`|<b>] ``\n\n````text\n{statement}\n```\n<b>\n````\n"


def test_another_suffix_is_an_error_that_names_the_ones_there_are(entries: list[report.Entry], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.html, \.md, \.json; got 'r\.txt'"):
        report.write(tmp_path / "r.txt", entries)
    assert not (tmp_path / "r.txt").exists()
