"""The command line: global options, the table of verbs, the one place that reports failures.

`main` gives each failure a sentence on stderr and in the log, and picks the exit code.
One more verb is one more file beside this one and one more row in COMMANDS; the file's
shape is told in options.py.  The words follow runc where callers look for them.
"""

from __future__ import annotations

import sys
import time

from ocirt import system as os

BEGAN = time.monotonic_ns()  # for --trace-time

from ocirt import log
from ocirt.cli import options
from ocirt.cli.settings import OPTIONS, Settings
from ocirt.errors import Error, KernelError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

COMMANDS = {
    # verb      module                 what it does
    "checkpoint": ("ocirt.cli.checkpoint", "save a running container into files"),
    "completion": ("ocirt.cli.completion", "print a script that completes command lines"),
    "create":   ("ocirt.cli.create",   "create a container"),
    "delete":   ("ocirt.cli.delete",   "delete what a container holds, often one run detached"),
    "doctor":   ("ocirt.cli.doctor",   "print what this machine can do, and what to do about it"),
    "events":   ("ocirt.cli.events",   "print what a container uses, and when memory runs out"),
    "exec":     ("ocirt.cli.exec",     "run one more process in a container"),
    "features": ("ocirt.cli.features", "print what ocirt can do, for engines"),
    "hpc":      ("ocirt.cli.hpc",      "print what devices there are, and why one has them"),
    "kill":     ("ocirt.cli.kill",     "send a signal (default: SIGTERM) to a container's init"),
    "launch":   ("ocirt.cli.launch",   "run N containers of one bundle: the ranks of a job"),
    "list":     ("ocirt.cli.list",     "list the containers below the state root"),
    "pause":    ("ocirt.cli.pause",    "stop all processes of a container where they stand"),
    "plan":     ("ocirt.cli.plan",     "print what create would do, step by step, and do nothing"),
    "ps":       ("ocirt.cli.ps",       "print the processes of a container"),
    "restore":  ("ocirt.cli.restore",  "bring a container back from its checkpoint"),
    "resume":   ("ocirt.cli.resume",   "let the processes of a paused container go on"),
    "run":      ("ocirt.cli.run",      "create and start a container"),
    "setup":    ("ocirt.cli.setup",    "register ocirt with an engine, or take that back"),
    "spec":     ("ocirt.cli.spec",     "write a config.json to start from"),
    "start":    ("ocirt.cli.start",    "start the program of a created container"),
    "state":    ("ocirt.cli.state",    "print the state of a container"),
    "update":   ("ocirt.cli.update",   "change the limits of a container"),
    "validate": ("ocirt.cli.validate", "print every fault of a bundle's config.json"),
}  # fmt: skip

# Callers of runc find these before the sentence; every other verb says the bare sentence.
PREFIXES = {"create": "ocirt create failed", "run": "ocirt run failed", "exec": "exec failed"}

# conmon takes 255 for "the process never started".
EXIT_CODES = {"exec": 255}

UNKNOWN_COMMAND = 3


def console() -> NoReturn:
    """Be the program `ocirt`: run the command line that called us, and leave at once."""
    code = main(sys.argv[1:])
    # Nothing is left to tear down, and the interpreter's own way out takes a millisecond.
    os._exit(code)


def main(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name); return the exit code."""
    verb = ""
    try:
        log.configure()
        try:
            given = options.parse(OPTIONS, argv, options_first=True)
        except UsageError as error:
            return _misuse(error)
        if given.version:
            from ocirt import version

            _print(version.text())
            return 0
        settings = Settings(given, argv[: len(argv) - len(given.words)])
        log.configure(settings.log, json=settings.log_format == "json", level=settings.log_level)
        verb, *rest = given.words or ["help"]
        if given.help:
            verb, rest = "help", []
        if verb in ("help", "h"):
            return _help(rest)
        if verb not in COMMANDS:
            return _unknown(verb)
        code = _timed(verb, rest, settings) if given.trace_time else _run(verb, rest, settings)
        _print()
        log.finish()
        return code
    except Error as error:
        return _fail(verb, str(error), error.exit_code)
    except BrokenPipeError:
        return 1  # whoever read our output has seen enough
    except OSError as error:
        return _fail(verb, str(KernelError.wrap(error)))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        _trace()
        return _fail(verb, f"internal error: {type(error).__name__}: {error}")


def load(verb: str) -> Any:
    """Return the module of a verb."""
    name = COMMANDS[verb][0]
    __import__(name)
    return sys.modules[name]


def _run(verb: str, argv: Sequence[str], settings: Settings) -> int:
    module = load(verb)
    options_first = getattr(module, "OPTIONS_FIRST", False)
    try:
        arguments = options.parse(module.OPTIONS, argv, options_first=options_first)
        if arguments.help:
            return _help([verb])
        options.count(verb, arguments.words, module.WORDS)
    except UsageError as error:
        return _misuse(error, verb)
    code: int = module.run(arguments, settings)
    return code


def _timed(verb: str, argv: Sequence[str], settings: Settings) -> int:
    from ocirt.cli.trace import Trace

    trace = Trace(verb, BEGAN)
    try:
        return _run(verb, argv, settings)
    finally:
        trace.report()


def _help(words: Sequence[str]) -> int:
    if not words:
        _print(help_text())
        return 0
    verb = words[0]
    if verb not in COMMANDS:
        return _unknown(verb)
    _print(options.help_verb(verb, COMMANDS[verb][1], load(verb)))
    return 0


def help_text() -> str:
    """Return what `ocirt --help` prints."""
    commands = [(verb, summary) for verb, (_, summary) in COMMANDS.items()]
    commands.append(("help, h", "show help for a command"))
    return (
        "NAME:\n   ocirt - Open Container Initiative runtime\n\n"
        "USAGE:\n   ocirt [global options] command [command options] [arguments...]\n\n"
        f"COMMANDS:\n{options.columns(commands)}\n"
        f"GLOBAL OPTIONS:\n{options.table(OPTIONS)}"
    )


def _unknown(verb: str) -> int:
    log.error(f"No help topic for '{verb}'")
    return UNKNOWN_COMMAND


def _misuse(error: UsageError, verb: str = "") -> int:
    """Report a wrong command line: reason and help on stdout, the reason again as the error."""
    reason = str(error)
    counted = reason.startswith("ocirt: ")
    try:
        _print("Incorrect Usage.\n\n" if counted else f"Incorrect Usage: {reason}\n\n")
        _help([verb] if verb else [])
    except OSError:
        pass  # The line that engines read is the next one.
    log.error(reason)
    return 1


def _fail(verb: str, message: str, code: int = 1) -> int:
    if prefix := PREFIXES.get(verb):
        message = f"{prefix}: {message}"
    log.error(message)
    return EXIT_CODES.get(verb, code)


def _trace() -> None:
    if log.debugging():
        import traceback

        log.debug(traceback.format_exc())


def _print(text: str = "") -> None:
    """Write to stdout and make sure that it got there: a full disk is a failure."""
    if sys.stdout is not None:
        sys.stdout.write(text)
        sys.stdout.flush()
