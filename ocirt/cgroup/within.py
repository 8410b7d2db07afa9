"""Where in a container's cgroups one more process goes: `exec --cgroup`.

Without it, where the init was put.  `PATH` is below the container's own cgroup, in all
hierarchies; `CONTROLLER[,CONTROLLER]:PATH` speaks of single hierarchies of v1.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt.cgroup.fs import Manager


def parse(options: Sequence[str]) -> dict[str, str]:
    """Return {controller: path}; the controller "" stands for all."""
    found: dict[str, str] = {}
    for option in options:
        names, colon, path = option.partition(":")
        if not colon:
            if len(options) > 1:
                raise Error(f"invalid --cgroup argument: {option} (missing <controller>: prefix)")
            return {"": option}
        for name in names.split(","):
            if not name:
                raise Error(f"invalid --cgroup argument: {option} (empty <controller> prefix)")
            if name in found:
                raise Error(
                    f"invalid --cgroup argument(s): controller {name} specified multiple times"
                )
            found[name] = path
    return found


def below(directory: str, path: str) -> str:
    """Return the cgroup `path` below a directory, which `..` may not leave."""
    inner = os.path.normpath(path.strip("/") or ".")
    if inner == ".." or inner.startswith("../"):
        raise Error("--cgroup", f"{path} is not a sub cgroup path")
    return directory if inner == "." else f"{directory}/{inner}"


def places(manager: Manager, options: Sequence[str]) -> tuple[list[tuple[str, str]], str | None]:
    """Return the files to attach by (v1), and the cgroup2 directory to be cloned into."""
    wanted = parse(options)
    attach, directory = manager.attach_files(), manager.cgroup_dir()
    if not wanted:
        return attach, directory
    if "" in wanted:
        path = wanted[""]
        attach = [(word, below(os.path.dirname(file), path) + "/tasks") for word, file in attach]
        if directory:
            inner = below(directory, path)
            # In a hybrid nobody need have made it in the tree that has no controllers.
            directory = inner if not attach or os.path.isdir(inner) else directory
        return attach, directory
    moved = []
    for word, file in attach:
        paths = {wanted.pop(name) for name in word[7:].split(",") if name in wanted}
        if len(paths) > 1:
            raise Error("--cgroup", f"{word[7:]} are one hierarchy, and cannot be in two cgroups")
        moved.append(
            (word, below(os.path.dirname(file), paths.pop()) + "/tasks" if paths else file)
        )
    for name in wanted:
        raise Error("--cgroup", f"unknown controller {name}")
    return moved, directory
