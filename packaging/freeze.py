"""Write what packaging/embed.c is compiled with: our modules' code, and whose they are.

    PYTHON -I -S -X no_debug_ranges freeze.py HOME SEALED frozen.h

Runs in the very interpreter that will be embedded, for bytecode belongs to one version.  HOME is
the directory that will hold ocirt/; SEALED is 1 where a package manager guards it, else 0.
"""

from __future__ import annotations

import _imp
import ast
import importlib.machinery
import marshal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import deepfreeze

del sys.path[0]  # what is left, the program will know

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

TREE = Path(__file__).resolve().parent.parent
PACKAGES = {"ocirt": TREE, "ocirt_hpc": TREE / "hooks"}

# What a container is made with, and by their imports most of what else that takes.
HOT = ("ocirt.cli", "ocirt.cli.create", "ocirt.cli.run", "ocirt.create", "ocirt.launch",
       "ocirt.cgroup.fs_v1", "ocirt.cgroup.fs_v2", "ocirt.ospath", "ocirt.quick")  # fmt: skip

HOT_OF_PYTHON = ("importlib._bootstrap",)

# Of the standard library in C, for hot verbs: built into some interpreters, files in others.
EXTENSIONS = ("_blake2", "_json", "_signal", "_socket", "_struct", "errno", "fcntl", "posix",
              "resource", "select", "time")  # fmt: skip


class Lean(ast.NodeTransformer):
    """Leaves out what nothing looks at while ocirt runs: annotations, and texts for readers."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.body(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node

    def body(self, node: Any) -> ast.AST:
        """Return a node without its docstring."""
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body[0] = ast.copy_location(ast.Pass(), first)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self.body(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self.body(node)


def lean(path: Path, name: str) -> CodeType:
    """Return the code of one file, which tracebacks will call `name`."""
    tree = Lean().visit(ast.parse(path.read_bytes(), name))
    code: CodeType = compile(tree, name, "exec", dont_inherit=True)
    return code


class Marshalled:
    """Code as bytes, for versions of Python whose objects we do not lay out."""

    def __init__(self) -> None:
        self.lines = ["struct unit { const unsigned char *code; int size; };"]

    def unit(self, code: CodeType, *, hot: bool = True) -> str:
        """Return C for the address of a `struct unit` that stands for the code of a module."""
        data = marshal.dumps(code)
        name = f"unit_{len(self.lines)}"
        body = ",".join(map(str, data))
        self.lines.append(f"static const unsigned char {name}_code[] = {{{body}}};")
        self.lines.append(f"static struct unit {name} = {{{name}_code, sizeof {name}_code}};")
        return f"&{name}"

    def shared(self) -> str:
        """Return C for what all units share: nothing."""
        return ""


Data = deepfreeze.Objects | Marshalled


def text(value: str, prefix: str = "") -> str:
    """Return C for a string."""
    data = value.encode("utf-8", "surrogateescape")
    return prefix + deepfreeze.quoted(data)


def sources() -> dict[str, Path]:
    """Return where our modules are, by name."""
    found = {}
    for package, place in PACKAGES.items():
        for path in sorted((place / package).rglob("*.py")):
            parts = path.relative_to(place).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(found: dict[str, Path], first: Iterable[str]) -> dict[str, None]:
    """Return the names of modules, and of all of ours that they import at once."""
    reached = dict.fromkeys(first)
    for name in (waiting := list(reached)):
        for node in ast.parse(found[name].read_bytes()).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{below}" for below in names)]
            elif not isinstance(node, ast.Import):
                continue
            new = [below for below in names if below in found and below not in reached]
            reached.update(dict.fromkeys(new))
            waiting += new
    return reached


def our_modules(data: Data, home: str, sealed: bool) -> str:
    """Return the table of our modules, in the order of their names."""
    found, rows = sources(), []
    hot = imported(found, HOT)
    for name in [*hot, *(other for other in found if other not in hot)]:
        path = found[name]
        place = TREE if not sealed else PACKAGES[name.partition(".")[0]]
        status = path.stat()
        time = (0, 0) if sealed else divmod(status.st_mtime_ns, 10**9)
        unit = data.unit(lean(path, f"{home}/{path.relative_to(place)}"), hot=name in hot)
        is_package = path.name == "__init__.py"
        rows.append((name, unit, int(is_package), status.st_size, *time))
    rows.sort()
    lines = [
        f"{{{text(name)}, {unit}, {package}, {size}, {s}, {ns}}},"
        for name, unit, package, size, s, ns in rows
    ]
    return "static const struct module modules[] = {\n" + "\n".join(lines) + "};\n"


def own_of_python(data: Data, *, hot: bool) -> str:
    """Return functions in place of CPython's own: its frozen modules, laid out as ours are."""
    codes = map(_imp.get_frozen_object, _imp._frozen_module_names())
    named = {code.co_filename[len("<frozen ") : -1]: code for code in codes}
    return "".join(
        f"PyObject *_Py_get_{name.replace('.', '_')}_toplevel(void) "
        f"{{ return wake({data.unit(code, hot=hot)}); }}\n"
        for name, code in named.items()
        if (name in HOT_OF_PYTHON) == hot
    )


def extensions() -> str:
    """Return the table of the extension modules that are files."""
    rows = []
    for name in sorted(EXTENSIONS):
        spec = importlib.machinery.PathFinder.find_spec(name)
        place = text(spec.origin) if spec and spec.origin else "NULL"
        if place != "NULL" or _imp.is_builtin(name):
            rows.append(f"{{{text(name)}, {place}}},")
    return "static const struct extension extensions[] = {\n" + "\n".join(rows) + "\n};\n"


def facts() -> str:
    """Return where the interpreter is, and where it looks for its library."""
    names = {
        "PREFIX": text(sys.base_prefix, "L"),
        "EXEC_PREFIX": text(sys.base_exec_prefix, "L"),
        "PLATLIBDIR": text(sys.platlibdir, "L"),
        "STDLIB": text(sys._stdlib_dir, "L"),  # type: ignore[attr-defined]
    }
    defines = "".join(f"#define {name} {value}\n" for name, value in names.items())
    paths = "".join(f"{text(path, 'L')}, " for path in sys.path if path)
    return defines + f"static const wchar_t *const search[] = {{{paths}}};\n"


def main() -> None:
    """Write the file that the command line names."""
    home, sealed, output = sys.argv[1:]
    deep = sys.version_info[:2] in deepfreeze.TESTED
    data: Data = deepfreeze.Objects() if deep else Marshalled()
    first = data.unit(lean(Path(__file__).with_name("boot.py"), "<frozen _ocirt_boot>"))
    tables = extensions()
    tables += own_of_python(data, hot=True) if deep else ""
    tables += our_modules(data, home, sealed == "1")
    tables += own_of_python(data, hot=False) if deep else ""
    parts = [
        facts(),
        *(f"{line}\n" for line in data.lines),
        f"static struct unit *const boot = {first};\n",
        data.shared(),
        tables,
    ]
    Path(output).write_text("".join(parts), encoding="ascii")


if __name__ == "__main__":
    main()
