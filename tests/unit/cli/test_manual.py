"""The manual pages say what `--help` says."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from ocirt import cli
from ocirt.cli import completion, manual
from ocirt.cli.settings import OPTIONS
from tests.house.test_floors import ROOT

PAGES = manual.pages()


def read(name):
    """Return a page as text, its escapes undone."""
    return PAGES[name].replace(r"\-", "-").replace(r"\fB", "").replace(r"\fR", "")


def test_there_is_a_page_for_each_verb():
    assert set(PAGES) == {"ocirt.1"} | {f"ocirt-{verb}.1" for verb in cli.COMMANDS}


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_a_page_names_every_option_that_is_no_secret(verb):
    text = read(f"ocirt-{verb}.1")
    for name, _, _, _, about in cli.load(verb).OPTIONS:
        assert (f"--{name}" in text) is bool(about)
        assert about in text


def test_the_first_page_names_verbs_and_global_options():
    text = read("ocirt.1")
    assert all(f"ocirt-{verb}(1)" in text for verb in cli.COMMANDS)
    assert all(f"--{name}" in text for name, *_ in OPTIONS)


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
@pytest.mark.parametrize("name", PAGES)
def test_roff_has_nothing_to_complain_of(name):
    line = ["groff", "-man", "-ww", "-z", "-K", "utf8"]
    done = subprocess.run(
        line, input=PAGES[name], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_packages_get_them_and_the_completions_as_files(tmp_path):
    line = [sys.executable, ROOT / "packaging" / "share.py", tmp_path]
    subprocess.run(line, check=True, capture_output=True, timeout=60)
    pages = tmp_path / "man" / "man1"
    assert {path.name: path.read_text() for path in pages.iterdir()} == PAGES
    script = tmp_path / "bash-completion" / "completions" / "ocirt"
    assert script.read_text() == completion.bash()
    assert (tmp_path / "zsh/site-functions/_ocirt").exists()
    assert (tmp_path / "fish/vendor_completions.d/ocirt.fish").exists()
