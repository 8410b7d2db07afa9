"""The embedded interpreter gives the answers of `python3 -I -S -B -X utf8`, with less started.

OCIRT_TEST_PYTHONS=/path/python3.12:/path/python3.13 tests with these as well: each minor version
has to pass before packaging/native.py embeds it.
"""

from __future__ import annotations

import ast
import json
import os
import runpy
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ocirt.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent.parent.parent
FLAGS = ("-I", "-S", "-B", "-X", "utf8", "-c")

# As the launcher puts the package in place.
PLACE = f"""
import sys, gc
gc.disable()
m = type(sys)('ocirt')
m.__path__ = ['{ROOT}/ocirt']
m.SITE = ''
sys.modules['ocirt'] = m
"""
LATE = "'__getattr__' in sys.__dict__"  # the start is not complete yet


def call(line, **more):
    more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, **more)


class Ways:
    """Two launchers of one package, which differ in what they become; and what they call."""

    def __init__(self, native, home, folder, *, sealed=False, python=""):
        self.python = python or native["own_python"]()
        interpreter = native["Interpreter"](self.python)
        if interpreter.obstacle():
            pytest.skip(interpreter.obstacle())
        program = Path(home, "ocirt")
        assert native["compile_embedded"](str(home), self.python, program, sealed=sealed)
        self.embedded = program / interpreter.name
        self.identity = interpreter.identity()
        self.native, self.home, self.folder = native, home, folder
        self.fast = self.launcher("fast", interpreter)
        self.plain = self.launcher("plain", None)

    def launcher(self, name, interpreter, python=""):
        return self.native["compile_launcher"](
            home=str(self.home),
            python=python or self.python,
            output=self.folder / name,
            embedded=interpreter,
        )

    def run(self, code, *words, **more):
        """Run a piece of code in the embedded interpreter; its exit must be good."""
        done = call([self.python, *FLAGS, code, *words], executable=self.embedded, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout


def copy_package(home):
    for package in ("ocirt", "spec/oci_spec", "hooks/ocirt_hpc"):
        skipped = shutil.ignore_patterns("__pycache__", "ocirt-python*")
        shutil.copytree(ROOT / package, home / Path(package).name, ignore=skipped)


MORE = [path for path in os.environ.get("OCIRT_TEST_PYTHONS", "").split(":") if path]


@pytest.fixture(scope="session", params=["", *MORE])
def ways(native, tmp_path_factory, request):
    """A copy of the package, as in a source tree, and the ways to run it."""
    top = tmp_path_factory.mktemp("ways")
    copy_package(top / "home")
    return Ways(native, top / "home", top, python=request.param)


@pytest.fixture
def bundle(tmp_path, ways):
    assert call([ways.plain, "spec", "--bundle", tmp_path]).returncode == 0
    (tmp_path / "rootfs").mkdir()
    return tmp_path


def both(ways, *argv, **more):
    """Return what the two ways answer, which is the same."""
    answers = []
    for launcher in (ways.fast, ways.plain):
        done = call([launcher, *argv], **more)
        answers.append((done.returncode, done.stdout, done.stderr))
    # Each line of the log carries its second.
    one, two = [(code, out, err.partition("level=")[2]) for code, out, err in answers]
    assert one == two
    assert "Traceback" not in answers[0][2]
    return answers[0]


# --- the same answers


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_verb_has_the_same_help_and_the_same_refusal(ways, verb, tmp_path):
    assert both(ways, verb, "--help")[0] == 0
    code, _, error = both(ways, "--root", str(tmp_path), verb, "--no-such-option")
    assert code != 0
    assert error


@pytest.mark.parametrize(
    "verb", "delete events exec kill pause ps resume start state update".split()
)
def test_nobody_is_known_to_either(ways, verb, tmp_path):
    more = {"exec": ["true"], "kill": ["TERM"], "update": ["--pids-limit", "9"]}.get(verb, [])
    code, _, error = both(ways, "--root", str(tmp_path), verb, "nobody", *more)
    assert code == (255 if verb == "exec" else 1)
    assert "does not exist" in error


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("nonsense",),
        ("--version",),
        ("help", "run"),
        ("features",),
        ("completion", "bash"),
        ("list",),
        ("list", "--format", "json"),
        ("hpc", "topo"),
        ("doctor",),
        ("--root", "/", "state", "x"),
        ("--log-format", "xml", "state", "x"),
        ("--log", "/no/such/place", "state", "x"),
    ],
    ids=" ".join,
)
def test_what_needs_no_container_is_the_same(ways, argv, tmp_path):
    both(ways, *(["--root", str(tmp_path)] if "--root" not in argv else []), *argv)


@pytest.mark.parametrize("argv", [("plan",), ("plan", "--format", "json"), ("validate",)])
def test_what_reads_a_bundle_is_the_same(ways, bundle, argv):
    assert both(ways, *argv, str(bundle))[0] == 0


@pytest.mark.parametrize(
    "text", ['{"ociVersion": 1}', "{", "", '{"process": {"args": ["\\ud800"]}}']
)
def test_a_broken_config_is_refused_alike(ways, bundle, text):
    (bundle / "config.json").write_text(text)
    for verb in ("plan", "validate"):
        code, _, error = both(ways, verb, str(bundle))
        assert code == 1
        assert error or verb == "validate"


def test_words_arrive_as_they_were_given(ways):
    words = ["", "a b", "--", "-c", "ü", "-x=\n", os.fsdecode(b"\xff")]
    code = "import sys, os; os.write(1, repr(sys.argv).encode())"
    assert ways.run(code, *words) == repr(["-c", *words])


# --- a complete start, late

FACTS = """
import sys
found = {name: repr(getattr(sys, name)) for name in (
    "executable", "path", "flags", "prefix", "base_prefix", "exec_prefix", "platlibdir",
    "warnoptions", "dont_write_bytecode", "version", "pycache_prefix", "_xoptions",
    "_stdlib_dir", "argv")}
import builtins, io, json, os, signal
found["stdin"] = [sys.stdin.encoding, sys.stdin.errors, sys.stdin.fileno()]
found["stdout"] = [sys.stdout.encoding, sys.stdout.errors, sys.stdout.fileno()]
found["stderr"] = [sys.stderr.encoding, sys.stderr.errors, sys.stderr.fileno()]
found["file system"] = [sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()]
found["signals"] = [repr(signal.getsignal(n)) for n in range(1, 65) if n not in (9, 19, 32, 33)]
found["open"] = builtins.open is io.open
found["os"] = os.__file__
found["text"] = [open("/proc/self/comm").encoding, b"\\xe9".decode("iso-8859-15")]
for name in ("ctypes", "subprocess", "zlib", "socket", "tempfile", "decimal"):
    found[name] = getattr(__import__(name), "__file__", "built in")
print(json.dumps(found))
"""


def test_a_completed_start_is_that_of_any_python(ways):
    found = json.loads(ways.run(FACTS))
    expected = json.loads(call([ways.python, *FLAGS, FACTS]).stdout)
    # Asked for with -X; what it does is in `flags`.
    found["_xoptions"] = expected["_xoptions"]
    assert found == expected


@pytest.mark.parametrize(
    "code",
    [
        "sys.path",
        "sys.stdin",
        "sys.stdout.buffer",
        "open('/proc/self/comm')",
        "open('/proc/self/comm', encoding='latin-1')",
        "'\u00e9'.encode('iso-8859-15')",
        "b'x'.decode('idna')",
        "import json",
        "from ctypes import CDLL",
        "__import__('subprocess')",
    ],
)
def test_what_the_core_lacks_completes_the_start(ways, code):
    ways.run(f"import sys; assert {LATE}; {code}; assert not {LATE}; import re; sys.stdin.fileno()")


@pytest.mark.parametrize(
    "code",
    [
        "import posix, _signal, _socket, _json, _struct, _blake2, select, fcntl, errno, time",
        "print('\u00e9')",
        "b'\\xff'.decode('utf-8', 'surrogateescape').encode('utf-8', 'surrogateescape')",
        "b'\\xff'.decode('utf-8', 'replace'), '\\ud800'.encode('utf-8', 'backslashreplace')",
        "b'\\xed\\xa0\\x80'.decode('utf-8', 'surrogatepass')",
        "open('/proc/self/comm', 'rb', buffering=0).read()",
        "assert not hasattr(sys, '__nonsense__')",
        "posix = __import__('posix'); posix.stat('/\u00e9') if posix.access('/\u00e9', 0) else 0",
    ],
)
def test_what_the_core_has_does_not(ways, code):
    ways.run(f"import sys; {code}; assert {LATE}")


def test_bytes_that_are_no_text_are_told_so(ways):
    code = "import sys\ntry: b'\\xff'.decode()\nexcept UnicodeDecodeError: pass\nelse: 1/0\n"
    ways.run(f"{code}assert {LATE}")


def test_an_unknown_module_is_unknown(ways):
    code = "\ntry: import ocirt.nonsense\nexcept ModuleNotFoundError as error: print(error.name)\n"
    assert ways.run(PLACE + code) == "ocirt.nonsense\n"


def test_a_module_that_fails_is_not_kept(ways, tmp_path):
    code = PLACE + (
        "\nimport ocirt.kernel\nocirt.kernel.__path__ = ['/nowhere']"
        "\ntry: from ocirt.kernel import mounts\nexcept ImportError: print('refused')\n"
    )
    assert ways.run(code) == "refused\n"


def test_an_exception_ends_it_as_python_ends(ways):
    for code in ("1/0", "raise SystemExit(7)", "import nonsense", "raise SystemExit('sentence')"):
        found = call([ways.python, *FLAGS, code], executable=ways.embedded)
        expected = call([os.path.realpath(ways.python), *FLAGS, code])
        assert found.returncode == expected.returncode, code
        assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_an_interrupt_is_an_exception_and_a_lost_reader_an_error(ways):
    code = (
        "import posix, time\n"
        "posix.write(1, b'x')\n"
        "try: time.sleep(60)\nexcept KeyboardInterrupt: posix._exit(130)\n"
    )
    child = subprocess.Popen([ways.embedded, *FLAGS, code], stdout=subprocess.PIPE)
    assert child.stdout.read(1) == b"x"
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=20) == 130
    child.stdout.close()
    code = (
        "import posix, sys\nr, w = posix.pipe()\nposix.close(r)\nposix.dup2(w, 1)\n"
        "try: sys.stdout.write('x')\nexcept BrokenPipeError: posix._exit(5)\n"
    )
    assert call([ways.python, *FLAGS, code], executable=ways.embedded).returncode == 5


def test_the_environment_has_no_say(ways, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit(99)")
    (tmp_path / "os.py").write_text("raise SystemExit(99)")
    environment = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": "/nowhere",
        "PYTHONSTARTUP": "/x",
        "PYTHONVERBOSE": "1",
        "PYTHONMALLOC": "debug",
        "PYTHONHASHSEED": "nonsense",
        "LC_ALL": "nonsense",
        "PATH": str(tmp_path),
    }
    code = "import json, os; print(os.environ['PYTHONHOME'])"
    done = call(
        [ways.python, *FLAGS, code], executable=ways.embedded, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "/nowhere\n", "")


# --- whose it is


def test_another_interpreter_is_not_stood_for(ways, tmp_path):
    """An upgraded Python has another file: it is called itself."""
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 66\n")
    python.chmod(0o755)
    interpreter = ways.native["Interpreter"](ways.python)
    launcher = ways.launcher("upgraded", interpreter, python=str(python))
    assert call([launcher, "--version"]).returncode == 66
    status = os.stat(ways.python)
    os.truncate(python, status.st_size)  # of the same size, but younger
    assert call([launcher, "--version"]).returncode == 66


def test_without_the_program_python_is_called(ways):
    away = ways.embedded.with_name("away")
    ways.embedded.rename(away)
    try:
        assert both(ways, "--version")[0] == 0
    finally:
        away.rename(ways.embedded)


@pytest.mark.parametrize("lacking", ["library", "include"])
def test_what_cannot_be_embedded_says_why(ways, lacking, tmp_path):
    interpreter = ways.native["Interpreter"](ways.python)
    interpreter.facts[lacking] = str(tmp_path / "nowhere")
    assert "libpython3-dev" in interpreter.obstacle()
    interpreter.facts["minor"] = [3, 99]
    assert "has not been tested" in interpreter.obstacle()
    assert "does not run" in ways.native["Interpreter"]("/bin/false").obstacle()


# --- what is frozen, and when it counts

SAY = "\nimport ocirt.document\nprint(ocirt.document.SPEC_VERSION, ocirt.document.__file__)\n"
MARK = f"import sys\nprint({LATE})\n"


def place(home):
    return PLACE.replace(f"{ROOT}/ocirt", f"{home}/ocirt")


@pytest.mark.parametrize("sealed", [False, True])
def test_an_edited_source_counts_at_once(native, tmp_path, sealed):
    home = tmp_path / "home"
    copy_package(home)
    ways = Ways(native, home, tmp_path, sealed=sealed)
    source = home / "ocirt" / "document.py"
    text, status = source.read_text(), source.stat()
    code = place(home) + SAY + MARK

    def answer():
        version, file, late = ways.run(code).split()
        assert file == str(source)
        return version, late == "True"

    assert answer() == ("1.3.0", True)
    source.write_text(text.replace("1.3.0", "1.3.0-edited"))
    assert answer() == ("1.3.0-edited", False)
    source.write_text(text.replace("1.3.0", "6.6.6"))  # as long as before
    assert answer() == (("1.3.0", True) if sealed else ("6.6.6", False))
    source.write_text(text)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert answer() == ("1.3.0", True)
    source.unlink()
    done = call([ways.python, *FLAGS, code], executable=ways.embedded)
    assert "ModuleNotFoundError" in done.stderr


def test_tracebacks_tell_where_the_source_is(ways, tmp_path):
    """Also after a wheel was installed where its build could not know."""
    other = tmp_path / "elsewhere"
    copy_package(other)
    for path in (other / "ocirt").rglob("*.py"):
        status = (ways.home / path.relative_to(other)).stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    code = "\nimport ocirt.document, sys\nfrom ocirt import errors\n"
    code += f"assert {LATE}\nprint(errors.strerror.__code__.co_filename)\n"
    assert ways.run(place(other) + code) == f"{other}/ocirt/errors.py\n"


# Two runs of this have to print the same: the functions of all our modules, in every detail.
DETAILS = """
def seen(code, found):
    inner = [seen(c, found) if hasattr(c, 'co_code') else (type(c).__name__, sorted(map(repr, c))
             if isinstance(c, frozenset) else c) for c in code.co_consts]
    names = ('co_name', 'co_qualname', 'co_filename', 'co_names', 'co_varnames', 'co_cellvars',
             'co_freevars', 'co_argcount', 'co_posonlyargcount', 'co_kwonlyargcount', 'co_nlocals',
             'co_stacksize', 'co_flags', 'co_firstlineno', 'co_code', 'co_exceptiontable')
    found[code.co_filename, code.co_qualname, code.co_firstlineno] = repr(
        (inner, [getattr(code, name) for name in names], list(code.co_positions())))
    return code.co_qualname
"""
FUNCTIONS = """
import gc
found, kind = {}, type(lambda: 0)
for name in NAMES:
    module = __import__(name, fromlist=['x'])
    classes = [c for c in vars(module).values() if isinstance(c, type)]
    for value in [v for owner in (module, *classes) for v in vars(owner).values()]:
        value = getattr(value, '__func__', value)
        if isinstance(value, kind) and value.__code__.co_filename == module.__file__:
            seen(value.__code__, found)
gc.collect()
print(found)
"""


def test_code_is_what_the_compiler_made_of_it(ways):
    """Also where it was laid out as data: strings of all widths, sets, floats, nested functions."""
    names = [
        str(path.relative_to(ways.home).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in sorted((ways.home / "ocirt").rglob("*.py"))
        if path.parent.name in ("plan", "kernel", "cgroup", "ocirt") and path.name != "__main__.py"
    ]
    names.remove("ocirt")
    code = f"{place(ways.home)}\nNAMES = {names}\n{DETAILS}{FUNCTIONS}"
    found = ast.literal_eval(ways.run(code))
    compiler = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("freeze", "{ROOT}/packaging/freeze.py")
freeze = importlib.util.module_from_spec(spec)
spec.loader.exec_module(freeze)
{DETAILS}
found = {{}}
for name in {names}:
    path = freeze.sources()[name]
    seen(freeze.lean(path, "{ways.home}/" + str(path.relative_to(freeze.TREE))), found)
print(found)
"""
    line = [ways.python, "-I", "-S", "-X", "utf8", "-X", "no_debug_ranges", "-c", compiler]
    done = call(line)
    assert done.returncode == 0, done.stderr
    expected = ast.literal_eval(done.stdout)
    assert len(found) > 700
    assert {key: expected[key] for key in found} == found


ODD = (
    "def odd(x, /, *, y=-(1 << 70)):\n"
    "    z = (1.5, -0.0, 3j, b'', b'\\0a', ..., '', 'x', '\u00e9', '\u20ac', '\U0001f40d',\n"
    "         '\\ud800', 'a\\0b', 0, -1, True, None, (), ((), ('x',)), float('inf'), 1e400, y)\n"
    "    return z, x in {'a', 'b', 3, 'one word'}, [lambda: (z, w) for w in z][0]\n"
)


def test_constants_of_all_kinds_are_themselves(native, tmp_path):
    copy_package(tmp_path / "home")
    tree = native["ROOT"]
    shutil.copytree(tree / "packaging", tmp_path / "home" / "packaging")
    (tmp_path / "home" / "hooks").mkdir()
    (tmp_path / "home" / "ocirt_hpc").rename(tmp_path / "home" / "hooks" / "ocirt_hpc")
    (tmp_path / "home" / "ocirt" / "odd.py").write_text(ODD, encoding="utf-8")
    own = runpy.run_path(str(tmp_path / "home" / "packaging" / "native.py"))
    ways = Ways(own, tmp_path / "home", tmp_path)
    ask = (
        "\nfrom ocirt.odd import odd\nimport gc\n"
        "for n in range(50): found = odd(b'q'), odd('a'), odd('one word'), odd(3.0)\n"
        "try: odd([])\nexcept TypeError as error: print(error)\n"
        "gc.collect()\nprint(ascii([(a, b, c()[1]) for a, b, c in found]), odd.__kwdefaults__)\n"
        "print(repr(odd.__code__.co_consts).count('frozenset'))\n"
    )
    found = ways.run(place(ways.home) + ask)
    plain = call([ways.python, *FLAGS, place(ways.home) + ask])
    assert plain.returncode == 0, plain.stderr
    assert found == plain.stdout
    assert "unhashable" in found


HOT = """
import ocirt.cli
code = ocirt.cli.main(sys.argv[1:])
import _ocirt, posix
posix.write(2, (chr(10) + repr(sorted(set(sys.modules) & {'encodings', 'io', 're'})) +
                str('__getattr__' in sys.__dict__) + str(code)).encode())
"""


@pytest.mark.parametrize(
    "argv",
    [
        ("plan", "BUNDLE"),
        ("plan", "--format", "json", "BUNDLE"),
        ("--version",),
        ("list",),
        ("list", "-q"),
        *((verb, "nobody") for verb in "start state kill delete pause resume ps".split()),
        ("exec", "nobody", "true"),
    ],
    ids=" ".join,
)
def test_what_engines_call_gets_by_without_the_rest(ways, bundle, argv):
    words = [str(bundle) if word == "BUNDLE" else word for word in argv]
    (bundle / "state").mkdir()
    code = place(ways.home) + HOT
    line = [ways.python, *FLAGS, code, "--root", str(bundle / "state"), *words]
    done = call(line, executable=ways.embedded)
    wanted = 0 if "nobody" not in words else 255 if words[0] == "exec" else 1
    assert done.stderr.splitlines()[-1] == f"[]True{wanted}", done.stderr
