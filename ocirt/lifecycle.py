"""Run the lifecycle hooks that belong to the runtime's namespaces.

A hook gets the state on stdin, exactly its own environment, and the bundle as its directory.  Its
output is kept for the message.  The runtime waits for the hook, not for the end of its output:
many hooks leave a child behind that holds the descriptors.

runtime-spec, config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle".
"""

from __future__ import annotations

import select

from ocirt import state
from ocirt import system as os
from ocirt.document import around_pid
from ocirt.errors import Error, HookError, strerror
from ocirt.hookfiles import open_output, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.state import Container

KEPT = 4096  # bytes of a hook's output that go into the message


def run(hooks: list[dict[str, Any]], stage: str, state: str, record: dict[str, Any]) -> None:
    """Run the hooks of one stage in their order; the first failure ends it with HookError.

    state: what they read.  record: of the container.
    """
    for index, hook in enumerate(hooks):
        _run(hook, stage, index, state, record)


def run_all(
    hooks: list[dict[str, Any]], stage: str, state: str, record: dict[str, Any]
) -> list[HookError]:
    """Run every hook of a stage whatever happens; return the failures."""
    failures = []
    for index, hook in enumerate(hooks):
        try:
            _run(hook, stage, index, state, record)
        except HookError as error:
            failures.append(error)
    return failures


def state_text(container: Container, status: str, pid: int) -> str:
    """Return the state that a lifecycle hook reads; without a pid when that is 0."""
    before, after = around_pid(
        container.id, status, container.record["bundle"], container.record.get("annotations")
    )
    if not pid:
        before = before.removesuffix(',"pid":')
        return before + after
    return f"{before}{pid}{after}"


def poststop(container: Container, hooks: list[dict[str, Any]]) -> list[HookError]:
    """Run the poststop hooks, all of them; return their complaints."""
    text = state_text(container, state.STOPPED, 0)
    return run_all(hooks, "poststop", text, container.record)


def _output(index: int, path: str) -> int:
    return open_output(index, path) if path else os.memfd_create("hook-output", os.MFD_CLOEXEC)


def _run(hook: dict[str, Any], stage: str, index: int, state: str, record: dict[str, Any]) -> None:
    path, bundle = hook["path"], record["bundle"]
    files = paths(record.get("annotations"))
    argv = hook.get("args") or [path]
    env = dict(item.split("=", 1) for item in hook.get("env") or ())
    # Memory files rather than pipes: a hook that never reads, or writes much, blocks nobody.
    stdin = os.memfd_create("hook-state", os.MFD_CLOEXEC)
    output: list[int] = []
    try:
        try:
            for number, name in enumerate(files):
                output.append(_output(number, name))
        except Error as error:
            raise HookError(stage, index, str(error)) from None
        os.write(stdin, state.encode("utf-8", "surrogateescape"))
        os.lseek(stdin, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, *output))]
        # A descriptor, since a directory that was removed has no path to come back by.
        back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.path.isdir(bundle):  # at poststop it may be gone
                os.chdir(bundle)
            pid = os.posix_spawn(
                path,
                argv,
                env,
                file_actions=actions,
                setpgroup=0,
                setsigmask=[],
                setsigdef=_DEFAULT,
            )
        except OSError as error:
            raise HookError(stage, index, f"{path}: {strerror(error.errno or 0)}") from None
        finally:
            os.fchdir(back)
            os.close(back)
        failure = _wait(pid, hook.get("timeout"))
        if failure:
            words = [
                f"{name}: {'' if file else os.pread(fd, KEPT, 0).decode('utf-8', 'replace')}"
                for name, file, fd in zip(("stdout", "stderr"), files, output, strict=True)
            ]
            raise HookError(stage, index, ", ".join([failure, *words]))
    finally:
        for fd in (stdin, *output):
            os.close(fd)


# SIGPIPE and SIGXFSZ, which Python ignores: a hook starts with the defaults.
_DEFAULT = (13, 25)


def _wait(pid: int, timeout: int | None) -> str:
    """Wait for a hook; return what was wrong with it, or nothing."""
    if timeout:
        watch = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(watch, select.POLLIN)
            if not poll.poll(timeout * 1000):
                try:
                    os.killpg(pid, 9)
                except ProcessLookupError:
                    pass
                os.waitpid(pid, 0)
                return f"hook ran past specified timeout of {float(timeout)}s"
        finally:
            os.close(watch)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"signal: {os.WTERMSIG(status)}"
    code = os.WEXITSTATUS(status)
    return f"exit status {code}" if code else ""
