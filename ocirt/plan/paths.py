"""Paths that the container sees covered or read-only.

runtime-spec, config-linux.md, "Masked Paths", "Readonly Paths".
"""

from __future__ import annotations

from ocirt.errors import ConfigError
from ocirt.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Context


def cover(config: dict[str, Any], context: Context) -> list[Op]:
    """Hide maskedPaths, make readonlyPaths read-only.

    A masked file disappears behind /dev/null, a directory behind an empty tmpfs.

    A path that the image or the kernel lacks is no error: they differ in what /proc and /sys offer.
    """
    linux = config.get("linux") or {}
    ops = []
    for op, field in (("readonly", "readonlyPaths"), ("mask", "maskedPaths")):
        paths = linux.get(field) or ()
        if paths and not context.namespaces.has("mount"):
            raise ConfigError(f"linux.{field}", "needs a mount namespace")
        for index, path in enumerate(paths):
            where = f"linux.{field}[{index}]"
            if not path.startswith("/"):
                raise ConfigError(where, f"{path} is not absolute")
            ops.append(Op(op, (path,), where, path))
    return ops
