"""Where the lifecycle hooks stand in the plan, and the state that they read.

prestart and createRuntime hooks are run by the runtime while the init waits; createContainer and
startContainer hooks by the init itself, because they belong into the container's namespaces.

runtime-spec, config.md, "POSIX-platform Hooks"; runtime.md, "State".
"""

from __future__ import annotations

from ocirt.document import around_pid
from ocirt.errors import At, ConfigError
from ocirt.plan.ops import ASK_HOOKS, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Context


def check(hook: dict[str, Any]) -> None:
    """Refuse a hook that cannot be run."""
    if not hook["path"].startswith("/"):
        raise ConfigError(f"path {hook['path']} is not absolute")
    timeout = hook.get("timeout")
    if timeout is not None and timeout <= 0:
        raise ConfigError(f"timeout {timeout} is not above zero")
    if any("=" not in item for item in hook.get("env") or ()):
        raise ConfigError("env holds an entry without =")


def _hooks(config: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    return (config.get("hooks") or {}).get(stage) or []


def _inside(config: dict[str, Any], context: Context, stage: str, status: str) -> list[Op]:
    ops = []
    for index, hook in enumerate(_hooks(config, stage)):
        where = f"hooks.{stage}[{index}]"
        with At(where):
            check(hook)
        before, after = around_pid(
            context.container_id, status, context.bundle, config.get("annotations")
        )
        argv = hook.get("args") or [hook["path"]]
        timeout = (hook.get("timeout") or 0) * 1000
        args = (hook["path"], argv, hook.get("env") or [], before, after, stage, index, timeout)
        ops.append(Op("hook", args, where, hook["path"]))
    return ops


def output_files(config: dict[str, Any]) -> tuple[str, str]:
    """Return the files that take what hooks inside the container print; two empty names if none."""
    if not (_hooks(config, "createContainer") or _hooks(config, "startContainer")):
        return "", ""
    from ocirt import hookfiles

    return hookfiles.paths(config.get("annotations"))


def _output(config: dict[str, Any]) -> list[Op]:
    files = output_files(config)
    if not any(files):
        return []
    from ocirt import hookfiles

    words = tuple(word if path else "" for word, path in zip(hookfiles.WORDS, files, strict=True))
    where = f"annotations.{hookfiles.ANNOTATIONS[0 if files[0] else 1]}"
    return [Op("hook_output", words, where, " ".join(path for path in files if path))]


def before_pivot(config: dict[str, Any], context: Context) -> list[Op]:
    """Pause for the runtime's own hooks, then run createContainer inside, host still in sight."""
    ops = _output(config)
    for stage in ("prestart", "createRuntime", "poststart", "poststop"):
        for index, hook in enumerate(_hooks(config, stage)):
            with At(f"hooks.{stage}[{index}]"):
                check(hook)
    if _hooks(config, "prestart") or _hooks(config, "createRuntime"):
        ops.append(
            Op("ask", (ASK_HOOKS,), "hooks.createRuntime", "prestart and createRuntime hooks")
        )
    return ops + _inside(config, context, "createContainer", "created")


def at_start(config: dict[str, Any], context: Context) -> list[Op]:
    """Run startContainer, the last thing before the program."""
    return _inside(config, context, "startContainer", "created")
