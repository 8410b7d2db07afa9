"""The tables of the fast check are those that the models make."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("pydantic")
from oci_spec import tables
from ocirt_hpc import cdi

from ocirt import shape
from ocirt._generated_shape import CONFIG

FILES = {
    "": Path(shape.__file__).with_name("_generated_shape.py"),
    "cdi": Path(cdi.__file__).with_name("_generated_shape.py"),
}


@pytest.mark.parametrize("document", FILES)
def test_the_tables_are_current(document):
    assert FILES[document].read_text() == tables.text(document), "run `make shape`"


@pytest.mark.parametrize("document", FILES)
def test_the_tables_are_literals(document):
    allowed = (ast.Expr, ast.Assign)
    assert all(isinstance(node, allowed) for node in ast.parse(FILES[document].read_text()).body)


def test_every_closed_list_has_its_sentence():
    found = set()

    def look(detail):
        if detail is None or isinstance(detail[0], int):
            return
        if isinstance(detail[0], dict):
            for _, _, inner in detail[0].values():
                look(inner)
        elif isinstance(detail[0], str):
            found.add(detail[0])
        else:
            look(detail[2])

    look(CONFIG)
    assert found == set(shape.WORDS)
