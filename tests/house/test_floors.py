"""Imports point down, and on one floor a module talks to its own folder only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# The longest name that fits decides.
FLOORS = {
    "ocirt.__main__": 6,
    "ocirt.cli": 5,
    "ocirt.checkpoint": 4,
    "ocirt.container": 4,
    "ocirt.create": 4,
    "ocirt.doctor": 4,
    "ocirt.gang": 4.5,  # makes containers as create does
    "ocirt.restore": 4,
    "ocirt.update": 4,
    "ocirt": 3,  # launch, state, lifecycle, console, undo, ...
    "ocirt.cgroup": 2,
    "ocirt.engines": 2,
    "ocirt.plan": 2,
    "ocirt_hpc": 2,
    "ocirt_hpc.nvidia": 2.4,  # classes of devices
    "ocirt_hpc.draw": 2.8,
    "ocirt_hpc.generate": 2.8,
    "ocirt_hpc.info": 2.8,
    "ocirt_hpc.readonly": 2.6,
    "ocirt_hpc.stage": 2.8,
    "ocirt.bundle": 1,
    "ocirt.checks": 1,
    "ocirt.document": 1,
    "ocirt.hookfiles": 1,
    "ocirt.shape": 1,
    "ocirt._generated_shape": 0,
    "ocirt.jsonio": 0,
    "ocirt.kernel": 0,
    "ocirt.log": 0,
    "ocirt.version": 1,
    "ocirt.errors": -1,
    "ocirt.system": -2,
    "ocirt.ospath": -3,
    "oci_spec": -1,
}
HOMES = {"ocirt": ROOT, "oci_spec": ROOT / "spec", "ocirt_hpc": ROOT / "hooks"}


def modules():
    for package, home in HOMES.items():
        for path in sorted((home / package).rglob("*.py")):
            parts = path.relative_to(home).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield pytest.param(name, path, id=name)


def floor(name):
    while name not in FLOORS:
        name, dot, _ = name.rpartition(".")
        assert dot, f"{name} has no floor: add it to FLOORS"
    return FLOORS[name]


def folder(path):
    return path.parent


def place(name):
    """Return the file of one of our modules, or None."""
    home = HOMES.get(name.partition(".")[0])
    if home is None:
        return None
    stem = home.joinpath(*name.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.exists():
            return path
    return None


def imported(name, path):
    """Yield the modules of ours that a file imports, late imports included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if place(inner) else base


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_imports_point_down(name, path):
    wrong = []
    for other in imported(name, path):
        target = place(other)
        if target is None or other == "ocirt":
            continue
        if floor(other) < floor(name):
            continue
        if floor(other) == floor(name) and folder(target) == folder(path):
            continue
        wrong.append(f"{other} (floor {floor(other)})")
    assert wrong == [], f"{name} is on floor {floor(name)}"


def test_the_documents_package_knows_nothing_of_the_runtime():
    for param in modules():
        name, path = param.values
        if name.startswith("oci_spec"):
            assert not [other for other in imported(name, path) if other.startswith("ocirt")]
