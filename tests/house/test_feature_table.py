"""docs/hpc-features.md says nothing of ocirt that no test shows: every link has its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/hpc-features.md"
LINK = re.compile(r'\[([^\]]+)\]\((\S+) "(test_\w+)"\)')
SEEN = {"kernel", "soft-RoCE", "directory", "hardware"}


def rows():
    """Return the rows of the table: the feature, the column of ocirt, what it was seen on."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    heads, *found = cells
    column = heads.index("ocirt")
    return [(row[0], row[column], row[column + 1]) for row in found]


ROWS = rows()
LINKS = [(feature, *link) for feature, cell, _ in ROWS for link in LINK.findall(cell)]


def test_the_table_is_read():
    assert len(ROWS) > 35
    assert len({feature for feature, _, _ in ROWS}) == len(ROWS)
    assert len(LINKS) > 30


@pytest.mark.parametrize(("feature", "cell", "seen"), ROWS)
def test_what_is_claimed_has_a_test(feature, cell, seen):
    if cell.startswith("–"):
        assert not seen
        return
    found = LINK.findall(cell)
    assert found
    assert found[0][0][0] in "YP"
    assert LINK.sub("", cell).strip(", ") == "", "words without a test"
    assert seen in SEEN


@pytest.mark.parametrize(("feature", "word", "path", "name"), LINKS)
def test_every_linked_test_is_there(feature, word, path, name):
    tree = ast.parse((PAGE.parent / path).resolve().read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
