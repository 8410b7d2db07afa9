"""The tree is as it says: generated files current, files introduced, linters content."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ocirt import version
from ocirt.cli import COMMANDS
from ocirt.plan import ops

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("bench", "conformance", "examples", "hooks", "ocirt", "packaging", "spec", "tests")


def files(*suffixes):
    return [
        pytest.param(path, id=str(path.relative_to(ROOT)))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in suffixes and path.is_file()
    ]


def test_the_inits_header_is_current():
    assert (ROOT / "ocirt/init/ops.h").read_text() == ops.header(), "run `make ops.h`"


def test_the_fast_checks_tables_are_current():
    from oci_spec import tables

    assert (ROOT / "ocirt/_generated_shape.py").read_text() == tables.text(), "run `make shape`"


@pytest.mark.parametrize("path", files(".py"))
def test_a_python_file_says_what_it_holds(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "has no docstring"


@pytest.mark.parametrize("path", files(".c", ".h"))
def test_a_c_file_says_what_it_holds(path):
    assert path.read_text().lstrip().startswith("/*")


def test_every_verb_of_the_table_has_its_file_and_shape():
    for verb, (name, summary) in COMMANDS.items():
        assert summary
        module = importlib.import_module(name)
        assert isinstance(module.USAGE, str), verb
        assert len(module.WORDS) == 2, verb
        assert callable(module.run), verb
        for long, short, value, default, text in module.OPTIONS:
            assert len(short) <= 1, long
            assert (default.__class__ is bool) == (value == ""), long
            assert isinstance(text, str), long


def test_the_changelog_knows_this_version():
    assert f"## [{version.VERSION}]" in (ROOT / "CHANGELOG.md").read_text()


LINTERS = {
    "format": ["ruff", "format", "--check", "--quiet", "."],
    "lint": ["ruff", "check", "--quiet", "--output-format=concise", "."],
    "types": ["mypy", "--no-error-summary"],
}


@pytest.mark.parametrize("name", LINTERS)
def test_linters_are_content(name):
    module, *options = LINTERS[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
