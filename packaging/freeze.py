"""Write what packaging/embed.c is compiled with: our modules as bytecode, and whose they are.

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

TREE = Path(__file__).resolve().parent.parent
PACKAGES = {"ocirt": TREE, "ocirt_hpc": TREE / "hooks"}

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


def bytecode(path: Path, name: str) -> bytes:
    """Return the code of one file, which tracebacks will call `name`."""
    tree = Lean().visit(ast.parse(path.read_bytes(), name))
    return marshal.dumps(compile(tree, name, "exec", dont_inherit=True))


def array(name: str, data: bytes) -> str:
    """Return C for a constant array."""
    return f"static const unsigned char {name}[] = {{{','.join(map(str, data))}}};\n"


def text(value: str, prefix: str = "") -> str:
    """Return C for a string."""
    data = value.encode("utf-8", "surrogateescape")
    return prefix + '"' + "".join(f"\\{byte:03o}" for byte in data) + '"'


def our_modules(home: str, sealed: bool) -> str:
    """Return the table of our modules, in the order of their names."""
    arrays, rows = [], []
    for package, place in PACKAGES.items():
        for path in sorted((place / package).rglob("*.py")):
            below = path.relative_to(place)
            is_package = path.name == "__init__.py"
            name = ".".join(below.parts[:-1] if is_package else below.with_suffix("").parts)
            data = bytecode(path, f"{home}/{path.relative_to(TREE) if not sealed else below}")
            status = path.stat()
            time = (0, 0) if sealed else divmod(status.st_mtime_ns, 10**9)
            arrays.append(array(f"module_{len(rows)}", data))
            rows.append((name, len(rows), int(is_package), status.st_size, *time))
    rows.sort()
    lines = [
        f"{{{text(name)}, module_{number}, sizeof module_{number}, {package}, {size}, {s}, {ns}}},"
        for name, number, package, size, s, ns in rows
    ]
    return (
        "".join(arrays) + "static const struct module modules[] = {\n" + "\n".join(lines) + "};\n"
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
    first = array("boot", bytecode(Path(__file__).with_name("boot.py"), "<frozen _ocirt_boot>"))
    tables = our_modules(home, sealed == "1") + extensions()
    Path(output).write_text(facts() + first + tables, encoding="ascii")


if __name__ == "__main__":
    main()
