"""The README tells the truth: its commands, its tables and its Python all name what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import alignment_checks as ac
from alignment_checks import perturbations as pt

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETUP = "python -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[dev]'"
NOT_FAMILIES = {"IDENTITY", "Perturbation", "reattached"}


@pytest.mark.parametrize("command", [f"{SETUP} && .venv/bin/pytest examples", f"{SETUP} && .venv/bin/pytest -n 2"])
def test_the_two_commands_stand_in_it(command: str) -> None:
    assert command in README.splitlines()


def test_its_table_lists_every_family_and_no_other() -> None:
    assert set(re.findall(r"^\| `(\w+)\(", README, re.MULTILINE)) >= set(pt.__all__) - NOT_FAMILIES
    listed = re.findall(r"^\| `(\w+)\(", README.split("### Perturbations")[1].split("### Options")[0], re.MULTILINE)
    assert set(listed) == set(pt.__all__) - NOT_FAMILIES


def test_its_table_lists_every_assertion_and_no_other() -> None:
    table = README.split("### Assertions")[1].split("### Perturbations")[0]
    checks = {name.removeprefix("check_") for name in ac.__all__ if name.startswith("check_")}
    assert set(re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)) == checks


def test_its_python_parses_and_names_what_there_is() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)
        assert all(hasattr(ac, name) for name in re.findall(r"\bac\.(\w+)", block))
        assert all(hasattr(pt, name) for name in re.findall(r"\bpt\.(\w+)", block))


def test_the_map_of_rooms_names_files_that_exist() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| room |")[1].split("\n## ")[0]
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", table):
        assert (ROOT / "alignment_checks" / name).exists() or (ROOT / name).exists(), name


def test_the_files_that_it_points_to_exist() -> None:
    for name in re.findall(r"\b(?:tests|examples)/[\w./]+", README):
        assert (ROOT / name.rstrip(".")).exists(), name
