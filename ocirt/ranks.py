"""The ranks of a job, on paper: their names, their variables, their configs.

Pure.  A rank is one container of the N that `ocirt launch` makes from one bundle; it differs from
the others in its id, its environment, its cgroup and its CPUs, and in nothing else.

To have ranks told their number by one more name, add a row to STYLES.
"""

from __future__ import annotations

from ocirt import jsonio
from ocirt.errors import ConfigError, Error
from ocirt.state import check_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

MOST = 4096  # ranks of one job: more than any node has CPUs

RANK, SIZE, NODE, NODES = "rank", "size", "0", "1"

# Whose variables: name -> what it holds.  All ranks are on one node, so the local rank is the rank.
STYLES: dict[str, dict[str, str]] = {
    "torch": {
        "RANK": RANK,
        "LOCAL_RANK": RANK,
        "WORLD_SIZE": SIZE,
        "LOCAL_WORLD_SIZE": SIZE,
        "GROUP_RANK": NODE,
    },
    "slurm": {
        "SLURM_PROCID": RANK,
        "SLURM_LOCALID": RANK,
        "SLURM_NTASKS": SIZE,
        "SLURM_NPROCS": SIZE,
        "SLURM_NODEID": NODE,
        "SLURM_NNODES": NODES,
    },
    "ompi": {
        "OMPI_COMM_WORLD_RANK": RANK,
        "OMPI_COMM_WORLD_SIZE": SIZE,
        "OMPI_COMM_WORLD_LOCAL_RANK": RANK,
        "OMPI_COMM_WORLD_LOCAL_SIZE": SIZE,
        "OMPI_COMM_WORLD_NODE_RANK": RANK,
    },
    "pmi": {
        "PMI_RANK": RANK,
        "PMI_SIZE": SIZE,
        "MPI_LOCALRANKID": RANK,
        "MPI_LOCALNRANKS": SIZE,
    },
}

# What torchrun's ranks meet by; a config, or --env, may say otherwise.
MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def expand(pattern: str, rank: int, size: int, where: str) -> str:
    """Return `pattern` with %r (rank), %n (number of ranks) and %% replaced.

    where: the option that it was given with, for the Error about anything else after a %.
    """
    head, *parts = pattern.split("%")
    text = head
    index = 0
    while index < len(parts):
        part = parts[index]
        index += 1
        if part[:1] == "r":
            text += f"{rank}{part[1:]}"
        elif part[:1] == "n":
            text += f"{size}{part[1:]}"
        elif part == "" and index < len(parts):
            text += "%" + parts[index]
            index += 1
        else:
            raise Error(
                where,
                f"{pattern}: there is no %{part[:1]}, only %r (rank), %n (number of ranks) and %%",
            )
    return text


def spread(pattern: str, size: int, where: str) -> list[str]:
    """Return what `pattern` comes to for each rank; one that leaves the rank out gets -RANK."""
    if expand(pattern, 0, 2, where) == expand(pattern, 1, 2, where):
        pattern += "%r" if pattern.endswith("/") else "-%r"
    return [expand(pattern, rank, size, where) for rank in range(size)]


def names(pattern: str, size: int) -> list[str]:
    """Return the ids of the containers."""
    found = spread(pattern, size, "--name")
    for one in found:
        check_id(one)
    return found


def default_name(bundle: str) -> str:
    """Return what the containers of a bundle are called: as its directory."""
    name = bundle.rstrip("/").rpartition("/")[2]
    return "".join([one if one.isalnum() and one.isascii() else "_" for one in name]) or "job"


def variables(styles: Iterable[str], rank: int, size: int) -> list[str]:
    """Return the variables that tell a rank who it is, by the names of these styles."""
    values = {RANK: str(rank), SIZE: str(size)}
    return [
        f"{name}={values.get(what, what)}"
        for style in styles
        for name, what in STYLES[style].items()
    ]


def styles(text: str) -> list[str]:
    """Read a list of styles; `none` and nothing are none of them."""
    found = [word for word in text.split(",") if word and word != "none"]
    for word in found:
        if word not in STYLES:
            raise Error(f"--env-style: {word}: not {', '.join(STYLES)} or none")
    return list(dict.fromkeys(found))


def common(config: dict[str, Any], args: list[str], meeting: bool) -> dict[str, Any]:
    """Return the config that all ranks start from.

    args: the program and its arguments, if they are not the config's.  meeting: whether ranks are
    told where to meet.  A terminal there is not: whose would it be?
    """
    process = config.get("process")
    if not process:
        raise ConfigError("process", "missing: there is no program to launch")
    process = {**process, "terminal": False}
    if args:
        process["args"] = args
    env = list(process.get("env") or ())
    if meeting:
        said = {item.partition("=")[0] for item in env}
        env += [f"{name}={value}" for name, value in MEETING.items() if name not in said]
    return {**config, "process": {**process, "env": env}}


def writer(shared: dict[str, Any]) -> Callable[[dict[str, Any]], bytes]:
    """Return what writes the config of a rank as JSON, and what it shares with `shared` once."""
    known: dict[int, str] = {}  # by the identity of parts, which `shared` keeps alive

    def write(value: Any, like: Any, depth: int) -> str:
        if value is like:
            if id(value) not in known:
                known[id(value)] = jsonio.dumps(value)
            return known[id(value)]
        if not depth or value.__class__ is not dict or like.__class__ is not dict:
            return jsonio.dumps(value)
        items = [
            f"{jsonio.dumps(key)}:{write(part, like.get(key), depth - 1)}"
            for key, part in value.items()
        ]
        return "{" + ",".join(items) + "}"

    # process.env and linux.cgroupsPath are what differs, two steps down.
    return lambda config: write(config, shared, 2).encode("utf-8", "surrogateescape")


# What follows shares with the config it is given all that it does not change.


def with_env(config: dict[str, Any], env: list[str]) -> dict[str, Any]:
    """Return the config with more variables; of equal names the last one counts."""
    process = config["process"]
    return {**config, "process": {**process, "env": [*process["env"], *env]}}


def with_limit(config: dict[str, Any], name: str, soft: int, hard: int) -> dict[str, Any]:
    """Return the config with a resource limit, unless it sets that one itself; -1 is unlimited."""
    process = config["process"]
    limits = process.get("rlimits") or []
    if any(entry["type"] == name for entry in limits):
        return config
    values = [value if value >= 0 else (1 << 64) - 1 for value in (soft, hard)]
    mine = {"type": name, "soft": values[0], "hard": values[1]}
    return {**config, "process": {**process, "rlimits": [*limits, mine]}}


def with_cgroup(config: dict[str, Any], path: str, cpus: str) -> dict[str, Any]:
    """Return the config with another cgroup; with `cpus`, if any, as what is in there may use."""
    linux = {**(config.get("linux") or {})}
    if path:
        linux["cgroupsPath"] = path
    if cpus:
        resources = linux.get("resources") or {}
        cpu = {**(resources.get("cpu") or {}), "cpus": cpus}
        linux["resources"] = {**resources, "cpu": cpu}
    return {**config, "linux": linux}
