"""The stand-ins for os and os.path do what those do, and give way where os is there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocirt import system

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / "ocirt" / "system.py"
NAMES = (
    "", "/", "//", "///", "a", "a/", "/a", "//a", "/a/", "a/b", "a//b", "/a/b/", "a/b//", ".", "..",
    "./a", "../a", "/..", "/a/../b", "a/./b", "a/../../b", "ü/\udcff", " ", "a\n/b",
)  # fmt: skip


@pytest.fixture(scope="module")
def lean():
    """The module's own functions, which stand aside in a process that has os."""
    spec = importlib.util.spec_from_file_location("_lean_system", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("_lean_system", None)
    return module


def test_where_os_is_loaded_it_is_os():
    assert system is os


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", ["split", "dirname", "basename", "normpath", "abspath"])
def test_names_are_taken_apart_alike(lean, function, name):
    assert getattr(lean.path, function)(name) == getattr(os.path, function)(name)


@pytest.mark.parametrize("first", NAMES)
def test_names_are_put_together_alike(lean, first):
    for second in NAMES:
        assert lean.path.join(first, second) == os.path.join(first, second)
        assert lean.path.join(first, second, "x") == os.path.join(first, second, "x")


def test_what_is_there_is_seen_alike(lean, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "good").symlink_to("file")
    (tmp_path / "dir").symlink_to(".")
    (tmp_path / "bad").symlink_to("nowhere")
    for name in ("file", "good", "dir", "bad", "", "none", "file/x", "\0", "x" * 5000):
        path = f"{tmp_path}/{name}"
        for function in ("exists", "lexists", "isdir"):
            found = getattr(lean.path, function)(path)
            assert found == getattr(os.path, function)(path), (function, name)


def test_links_are_followed_alike(lean, tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    links = {
        "up": "a/b/../..", "root": "/..", "far": "up/a/./b", "a/back": "../a/b",
        "lost": "none/../x", "one": "two", "two": "one", "self": "self",
        "a/b/over": "../../a/back/",
    }  # fmt: skip
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path / "a")
    for name in [
        *NAMES,
        *links,
        "file/x",
        "../up/a/back/over/../back",
        "lost/y",
        "one/y",
        "none/../a",
    ]:
        for path in (name, f"{tmp_path}/{name}", f"../{name}"):
            assert lean.path.realpath(path) == os.path.realpath(path), path


def test_directories_are_made_with_those_above(lean, tmp_path):
    path = f"{tmp_path}/a/b/c"
    lean.makedirs(path, 0o700)
    assert os.stat(path).st_mode & 0o777 == 0o700
    lean.makedirs(path + "/", exist_ok=True)
    with pytest.raises(FileExistsError):
        lean.makedirs(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        lean.makedirs(f"{tmp_path}/file", exist_ok=True)
    with pytest.raises(NotADirectoryError):
        lean.makedirs(f"{tmp_path}/file/below")


def test_names_are_bytes_to_the_kernel_alike(lean):
    for name in (*NAMES, b"\xff/a"):
        assert lean.fsencode(name) == os.fsencode(name)
    for name in (b"", b"\xff\xc3\xbc", "a"):
        assert lean.fsdecode(name) == os.fsdecode(name)
    assert dict(lean.environ).keys() == dict(os.environ).keys()


def test_the_rest_is_that_of_os(lean):
    assert lean.walk is os.walk
    assert lean.path.samefile is os.path.samefile
    with pytest.raises(AttributeError, match="nonsense"):
        _ = lean.nonsense


def test_a_fresh_interpreter_is_spared_os():
    code = (
        "import sys; m = type(sys)('ocirt'); sys.modules['ocirt'] = m\n"
        f"m.__path__ = ['{ROOT}/ocirt']\n"
        "from ocirt import system as os\n"
        "os.getpid(), os.open, os._exit, os.O_CLOEXEC, os.path.join('a', 'b'), os.environ\n"
        "assert 'os' not in sys.modules\n"
        "import os as real\n"
        "assert os.path.realpath('/') == '/' and os.popen is real.popen\n"
    )
    line = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", code]
    assert subprocess.run(line, timeout=60, check=False).returncode == 0
