"""ocirt launch: make N containers of one bundle, the ranks of a job on this node, and run them."""

from __future__ import annotations

from ocirt import binding, handover, log, pmi, ranks
from ocirt import bundle as bundles
from ocirt import cgroup as groups
from ocirt import system as os
from ocirt.cli import create
from ocirt.console import Signals
from ocirt.create import Wish
from ocirt.errors import Error
from ocirt.gang import ENDING, Gang
from ocirt.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings
    from ocirt.plan.ops import Op

USAGE = "-n N [options] BUNDLE [PROGRAM [ARG ...]]"
WORDS = (1, None)
OPTIONS_FIRST = True
OPTIONS = (
    # long             short  value      default  help
    ("ranks",          "n",   "N",       0,       "how many containers"),
    ("name",           "",    "PATTERN", "",      "their ids (default: the bundle's name, -RANK)"),
    ("config",         "f",   "FILE",    "config.json", "the configuration, relative to BUNDLE"),
    ("env",            "e",   "K=V",     (),      "add to the environment; repeatable"),
    ("env-style",      "",    "LIST",    ",".join(ranks.STYLES), "whose variables tell the rank"),
    ("pmi",            "",    "",        False,   "answer ranks that speak PMI-1 (MPICH and kin)"),
    ("bind",           "",    "UNIT",    "none",  "bind ranks to a thread, core, socket or numa"),
    ("cpus-per-rank",  "c",   "N",       1,       "threads or cores that a rank is bound to"),
    ("cgroup",         "",    "WHOSE",   "own",   "limits are for each rank (own) or all (shared)"),
    ("device",         "",    "NAME",    (),      "add a CDI device: vendor/class=%r; repeatable"),
    ("stdin",          "",    "RANK",    "0",     "the rank that reads our input, or none"),
    ("output",         "o",   "PATTERN", "",      "a file for what each rank writes"),
    ("error",          "",    "PATTERN", "",      "another for what it writes to stderr"),
    ("raw",            "",    "",        False,   "no [RANK] before each line"),
    ("keep-going",     "k",   "",        False,   "when a rank fails, let the others go on"),
    ("grace",          "",    "SECONDS", 5,       "time between SIGTERM and SIGKILL"),
    ("keep",           "",    "",        False,   "do not delete the containers in the end"),
    ("no-pivot",       "",    "",        False,   "move the root file system, no pivot_root"),
    ("no-new-keyring", "",    "",        False,   "keep the session keyring of the caller"),
)  # fmt: skip
ABOUT = """\
In a PATTERN, and in the values of --env and --device, %r is the rank, %n the number of ranks, %% a
percent sign. A PATTERN that leaves the rank out gets -RANK at its end.

Either all ranks start or none is left. When one fails, the others get SIGTERM, and SIGKILL after
the grace time; the exit status is that of the first that failed, or 128 and the number of the
signal that ended it. Signals are passed on to all ranks.

   ocirt launch -n 4 --bind core BUNDLE ./solver input.nml
   ocirt launch -n 8 --device nvidia.com/gpu=%r --output logs/train-%r BUNDLE"""


def run(arguments: Arguments, settings: Settings) -> int:
    """Launch the ranks; the exit code is that of the first which failed, or 0."""
    bundle, *args = arguments.words
    size = arguments.ranks
    if not 1 <= size <= ranks.MOST:
        raise Error(f"-n: {size} ranks, not 1 to {ranks.MOST}")
    if arguments.cpus_per_rank < 1:
        raise Error(f"--cpus-per-rank: {arguments.cpus_per_rank} is less than one")
    if arguments.grace < 0:
        raise Error(f"--grace: {arguments.grace} seconds is less than none")
    if arguments.cgroup not in ("own", "shared"):
        raise Error(f"--cgroup: {arguments.cgroup}: not own or shared")
    bundle = os.path.abspath(bundle)
    styles = ranks.styles(arguments.env_style)
    names = ranks.names(arguments.name or ranks.default_name(bundle), size)
    config = ranks.common(bundles.load(bundle, arguments.config), args, "torch" in styles)
    streams = _streams(arguments, size)
    text = ranks.writer(config)
    wishes = []
    same: dict[Hashable, list[Op]] = {}
    for number, name in enumerate(names):
        wish = Wish(name, settings.root, bundle)
        create.settle(wish, settings)
        wish.no_pivot = arguments.no_pivot
        wish.no_new_keyring = arguments.no_new_keyring
        wish.detach = wish.notify = False
        wish.same, wish.text = same, text
        wish.devices = [ranks.expand(one, number, size, "--device") for one in arguments.device]
        env = ranks.variables(styles, number, size)
        if arguments.pmi:
            wish.preserve_fds = 1
            env += [*ranks.variables(["pmi"], number, size), f"PMI_FD={pmi.FD}", "PMI_SPAWNED=0"]
        env += [_variable(one, number, size) for one in arguments.env]
        wish.config = ranks.with_env(config, env)
        wishes.append(wish)
    if arguments.pmi and handover.listen_fds():
        raise Error("--pmi: LISTEN_FDS would have the same number")
    _cgroups(arguments, settings, config, wishes)
    _make_room(wishes, (4 + arguments.pmi) * size + 64)
    settings.ensure_root()
    progress = Progress(size, streams, quiet=not arguments.output)
    signals = Signals()
    gang = Gang(wishes, streams, signals, progress.told)
    if arguments.pmi:
        gang.pmi = pmi.Server(size, names[0], gang.aborted)
    gang.shared = arguments.cgroup == "shared"
    gang.keep_going, gang.grace = arguments.keep_going, float(arguments.grace)
    log.through(streams.say)
    try:
        code = _see_through(gang, wishes, progress, keep=arguments.keep)
    finally:
        # No container is left that we would have to stay for.
        signals.release(*ENDING)
        complete = streams.flush(gang.patience())
        log.through(None)
    return code or int(not complete)


def _see_through(gang: Gang, wishes: list[Wish], progress: Progress, *, keep: bool) -> int:
    try:
        gang.make()
        gates = gang.start()
        del wishes[:]
        progress.clear()
        code = gang.watch(gates)
    except BaseException:
        progress.clear()
        gang.take_back()
        raise
    progress.clear()
    if not keep:
        gang.delete()
    return code


def _variable(text: str, number: int, size: int) -> str:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise Error(f"--env: {text}: not NAME=VALUE")
    return f"{name}={ranks.expand(value, number, size, '--env')}"


def _cgroups(
    arguments: Arguments, settings: Settings, config: dict[str, Any], wishes: list[Wish]
) -> None:
    """Give each rank its cgroup and its CPUs.

    A cgroup of its own binds a rank for good, with all that `exec` adds to it.  Where it has none,
    or one without cpuset, it is the affinity alone that binds it.
    """
    linux = config.get("linux") or {}
    path = linux.get("cgroupsPath") or ""
    if arguments.cgroup == "shared":
        if settings.cgroup_driver == "systemd":
            raise Error("--cgroup shared: a scope of systemd's is for one container")
        if any(wish.devices != wishes[0].devices for wish in wishes):
            raise Error("--cgroup shared: the ranks have different devices")
    cpuset = False
    bound: list[list[int]] = []
    if arguments.bind != "none":
        cpus = ((linux.get("resources") or {}).get("cpu") or {}).get("cpus") or ""
        each = arguments.cpus_per_rank
        bound = binding.bind(arguments.bind, len(wishes), each, binding.allowed(cpus))
        own = arguments.cgroup == "own" and settings.cgroup_driver != "disabled"
        if own and not settings.rootless:
            manager = groups.open_manager(
                f"{path}-0" if path else "",
                wishes[0].container_id,
                driver=settings.cgroup_driver,
                annotations=config.get("annotations"),
            )
            cpuset = manager.offers("cpuset")
    elif arguments.cpus_per_rank != 1:
        raise Error(f"--cpus-per-rank: needs --bind {' or '.join(binding.ALONE)}")
    for number, wish in enumerate(wishes):
        wish.cpus = binding.word(bound[number]) if bound else ""
        own_path = f"{path}-{number}" if path and arguments.cgroup == "own" else path
        assert wish.config is not None
        wish.config = ranks.with_cgroup(wish.config, own_path, wish.cpus if cpuset else "")


def _streams(arguments: Arguments, size: int) -> Streams:
    stdin = -1
    if arguments.stdin != "none":
        text = arguments.stdin
        stdin = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else size
        if stdin >= size:
            raise Error(f"--stdin: {text}: not a rank below {size}, or none")
    output, errors = (
        ranks.spread(pattern, size, option) if pattern else []
        for pattern, option in ((arguments.output, "--output"), (arguments.error, "--error"))
    )
    return Streams(stdin=stdin, output=output, errors=errors, raw=arguments.raw)


def _make_room(wishes: list[Wish], needed: int) -> None:
    """Make room for so many descriptors of ours; the ranks keep the limit that they would have."""
    from resource import RLIMIT_NOFILE, getrlimit, setrlimit

    soft, hard = getrlimit(RLIMIT_NOFILE)
    if soft >= needed or soft < 0:
        return
    if 0 <= hard < needed:
        raise Error(f"{needed} descriptors are needed, and the limit (ulimit -Hn) is {hard}")
    setrlimit(RLIMIT_NOFILE, (needed, hard))
    for wish in wishes:
        assert wish.config is not None
        wish.config = ranks.with_limit(wish.config, "RLIMIT_NOFILE", soft, hard)


class Progress:
    """How far we are, for who sits at a terminal.

    quiet: once the ranks run, for then the terminal is theirs.
    """

    def __init__(self, size: int, streams: Streams, *, quiet: bool) -> None:
        self._size = size
        self._say = streams.say
        self._quiet = quiet
        self._shown = False
        self._on = os.isatty(2)

    def told(self, what: str, count: int) -> None:
        """Show a number, in place of the one before."""
        if self._on and (what == "made" or not self._quiet):
            self._shown = True
            self._say(f"\r\x1b[Kocirt: {count} of {self._size} {what}".encode())

    def clear(self) -> None:
        """Take the line away again."""
        if self._shown:
            self._shown = False
            self._say(b"\r\x1b[K")
