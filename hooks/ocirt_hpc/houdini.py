"""The settings of Houdini, a patch of Docker's daemon, in the words of hpc.toml.

Houdini's file is an ini: sections default, container, user, gpu.  `convert` is total: each key
becomes settings or a comment that says why not, and what it writes is always good TOML.  Where
Houdini's code and its comments differ, the code counts, and a comment says so.

Source: the forks of moby tagged houdini-v2 to houdini-v20 (daemon/houdini), and their README.
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError
from ocirt_hpc import parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TRUE = ("1", "t", "T", "TRUE", "true", "True")  # as Go's strconv.ParseBool has it
FALSE = ("0", "f", "F", "FALSE", "false", "False")

GPUS, COUNT = "NVIDIA_VISIBLE_DEVICES", "HOUDINI_GPU_REQUESTED"
LIBCUDA = "libcuda"  # which needs no word here: it is found by itself

SWITCHES = (
    ("default", "force-houdini"), ("default", "force-environment"), ("gpu", "force-environment"),
    ("user", "set-home-env"),
)  # fmt: skip

# (section, key) -> why nothing comes of it here
WITHOUT: dict[tuple[str, str], str] = {
    ("default", "debug"): "--log-level debug, before the verb",
    ("default", "trigger-label"): "no engine hands labels to runtimes; say"
    " --annotation ocirt.hpc/enabled=true",
    ("container", "remove-label"): "the engine removes containers: docker run --rm",
    ("container", "remove"): "the engine removes containers: docker run --rm",
    ("container", "privileged-trigger-env"): "refused: an image could make itself privileged",
    ("user", "keep-user-env"): "an image could stay root by it; the annotation"
    " ocirt.hpc/user=keep can, as user.keep is set",
    ("user", "keep-user-label"): "the annotation ocirt.hpc/user=keep, as user.keep is set",
    ("gpu", "force"): 'Houdini never reads it; nvidia.request-default = "all" would'
    " give GPUs to who asks for none",
    ("gpu", "trigger-label"): "no engine hands labels to runtimes; say --annotation"
    " ocirt.hpc/modules=gpu",
}

KNOWN = {
    "default": ("force-houdini", "trigger-env", "mounts", "environment", "force-environment",
                "devices"),
    "user": ("mode", "default", "key", "set-home-env"),
    "gpu": ("trigger-env", "mounts", "environment", "force-environment", "cuda-files",
            "cuda-libpath"),
}  # fmt: skip

HEADING = """\
# What an ini of Houdini says, in the words of ocirt: `ocirt hpc import-houdini`.
# Read it, then put it into /etc/ocirt/hpc.toml.  docs/devices.md has every setting.
"""


class _Ini:
    """The values of an ini, by section and key; the last of two counts."""

    def __init__(self, text: str) -> None:
        self.values: dict[tuple[str, str], str] = {}
        self.notes: list[str] = []
        section = "default"
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            line = line.strip()
            if not line or line[0] in "#;":
                continue
            if line[0] == "[" and line[-1] == "]":
                section = line[1:-1].strip().lower()
                continue
            key, equals, value = line.partition("=")
            if not equals:
                self.notes.append(f"line {number} is no setting: {line}")
                continue
            value = _without_comment(value.strip(), "#" if key.strip() == "environment" else "#;")
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            self.values[section, key.strip().lower()] = value

    def get(self, section: str, key: str, default: str = "") -> str:
        return self.values.get((section, key)) or default

    def true(self, section: str, key: str) -> bool:
        return self.get(section, key) in TRUE

    def items(self, section: str, key: str) -> list[str]:
        return [one.strip() for one in self.get(section, key).split(",") if one.strip()]


def convert(text: str) -> str:
    """Return the hpc.toml that does what an ini of Houdini does."""
    ini = _Ini(text)
    notes = ini.notes
    for (section, key), value in ini.values.items():
        why = WITHOUT.get((section, key))
        if why is None and key not in KNOWN.get(section, ()):
            why = "Houdini has no such setting"
        if why is not None:
            notes.append(f"{section}.{key} = {value}: {why}")
    for section, key in SWITCHES:
        value = ini.get(section, key)
        if value and value not in (*TRUE, *FALSE):
            notes.append(f"{section}.{key} = {value}: neither true nor false; counts as false")
    gpu = [ini.get("gpu", "trigger-env", "HOUDINI_GPU_ENABLED"), GPUS, COUNT]
    lines = [
        "[stage]",
        f"trigger = {_quote('always' if ini.true('default', 'force-houdini') else 'requested')}",
        "trigger-env = "
        + _list([ini.get("default", "trigger-env", "HOUDINI_ENABLED"), *gpu]),
        "",
    ]  # fmt: skip
    notes.append(
        f"{COUNT} (N free GPUs) brings mounts and variables alone: a scheduler has to hand GPUs"
        " out; name them instead"
    )
    lines += _user(ini, notes)
    lines += _libraries(ini, notes)
    lines += _part(ini, "default", "", notes)
    more = _part(ini, "gpu", "module.gpu.", notes)
    # Houdini takes these from the variables that it has just set.
    default, own = (_environment(ini, section, []) for section in ("default", "gpu"))
    wanted = {**own, **default} if not ini.true("gpu", "force-environment") else {**default, **own}
    gpus = wanted.get(GPUS, "")
    gpus = "" if gpus in ("none", "void") else gpus
    if more or gpus:
        lines += ["[module.gpu]", f"trigger-env = {_list(gpu)}"]
        lines += [f"gpus = {_quote(gpus)}"] if gpus else []
        lines += ["", *more]
    if any("[[" in line and "mounts" in line for line in lines):
        notes.append("Docker makes a source of a mount that is not there; here it is an error")
    comments = [f"# {_plain(note)}" for note in notes]
    return "\n".join([HEADING + "#", "# Without a counterpart:", *comments, "", *lines]) + "\n"


def _without_comment(value: str, signs: str) -> str:
    """Return a value without what follows a sign of a comment after a blank."""
    for index, sign in enumerate(value):
        if sign in signs and (not index or value[index - 1] in " \t"):
            return value[:index].rstrip()
    return value


def _user(ini: _Ini, notes: list[str]) -> list[str]:
    """Word [user]; in Houdini `static` sets user.default as it stands, `default` asks the host."""
    mode, value = ini.get("user", "mode", "default"), ini.get("user", "default")
    found = {"static": "fixed", "default": "fixed", "env": "env"}.get(mode)
    if found is None:
        notes.append(f"user.mode = {mode}: Houdini has no such mode; the user stays")
    elif found == "fixed" and not value:
        if ini.get("user", "mode"):
            notes.append(f"user.mode = {mode}: there is no user.default; the user stays")
        found = None
    who, colon, group = value.partition(":")
    if value and not who.isdecimal():
        if colon and mode != "static":
            notes.append(f"user.default = {value}: the group is that of the host's user {who}")
        elif mode == "static":
            notes.append(f"user.default = {value}: the host is asked, not the image")
        value = who
    elif colon and not group.isdecimal():
        notes.append(f"user.default = {value}: a group is a number here; the host is asked for it")
        value = who
    elif value and mode != "static":
        notes.append(f"user.default = {value}: numbers are taken; Houdini fails to look them up")
    lines = ["[user]", f"mode = {_quote(found or 'image')}"]
    if found and value:
        lines.append(f"value = {_quote(value)}")
    elif value:
        notes.append(f"user.default = {value}: only the modes static, default and env read it")
    if found == "env":
        lines.append(f"variable = {_quote(ini.get('user', 'key', 'HOUDINI_USER'))}")
        notes.append("a variable cannot ask for root; Houdini let it")
    elif ini.get("user", "key"):
        notes.append(f"user.key = {ini.get('user', 'key')}: only user.mode = env reads it")
    if found:
        lines.append("keep = true")
    if ini.true("user", "set-home-env") and mode == "static":
        notes.append("user.set-home-env: not in mode static")
    elif ini.true("user", "set-home-env") and found:
        lines.append("set-home = true")
    return [*lines, ""]


def _libraries(ini: _Ini, notes: list[str]) -> list[str]:
    """Word gpu.cuda-files, beginnings of names, and gpu.cuda-libpath, which Houdini walks."""
    files = ini.items("gpu", "cuda-files") or [LIBCUDA]
    folders = []
    for folder in ini.items("gpu", "cuda-libpath"):
        try:
            parts.path(folder)
        except ConfigError as error:
            notes.append(f"gpu.cuda-libpath: {error}; left out")
            continue
        folders.append(folder.rstrip("/") or "/")
    if not folders:
        if ini.get("gpu", "cuda-files"):
            notes.append("gpu.cuda-files: there is no gpu.cuda-libpath, and Houdini looks nowhere")
        return []
    notes.append("gpu.cuda-libpath: folders below these are not searched; name them as well")
    extra = [f"{name}*.so*" for name in files if name != LIBCUDA and "/" not in name]
    lines = ["[nvidia]", f"library-search-path = {_list(folders)}"]
    lines += [f"extra-libraries = {_list(extra)}"] if extra else []
    return [*lines, ""]


def _part(ini: _Ini, section: str, where: str, notes: list[str]) -> list[str]:
    """Word mounts, variables and nodes of one section, for the table `where`."""
    lines: list[str] = []
    rows: list[tuple[str, dict[str, Any]]] = []
    for item in ini.items(section, "mounts"):
        source, _, rest = item.partition(":")
        to, _, mode = rest.partition(":")
        mount: dict[str, Any] = {"source": source, "destination": to or source}
        if mode == "ro":
            mount["options"] = ["rbind", "ro"]
        elif mode not in ("", "rw"):
            notes.append(f"{section}.mounts: {item}: of the options only ro and rw are known")
        rows.append(("mounts", mount))
    if section == "default":
        rows += [
            ("devices", {"path": path, "access": "rwm", "optional": True})
            for path in ini.items(section, "devices")
        ]
    for kind, row in rows:
        try:
            with At(section):
                parts.check({kind: [row]}, parts.PART)
        except ConfigError as error:
            notes.append(f"{error}; left out")
            continue
        lines.append(f"[[{where}{kind}]]")
        lines += [f"{name} = {_word(value)}" for name, value in row.items()]
        lines.append("")
    env = _environment(ini, section, notes)
    if env:
        table = "set" if ini.true(section, "force-environment") else "default"
        lines.append(f"[{where}env.{table}]")
        lines += [f"{_quote(name)} = {_quote(value)}" for name, value in env.items()]
        lines.append("")
    return lines


def _environment(ini: _Ini, section: str, notes: list[str]) -> dict[str, str]:
    """Return the variables of `environment`: NAME=VALUE, between them a | in Houdini's code."""
    text = ini.get(section, "environment")
    items = text.split("|")
    semicolons = [item for item in text.split(";") if item.strip()]
    if len(items) == 1 and len(semicolons) > 1 and all("=" in item for item in semicolons):
        notes.append(
            f"{section}.environment is taken apart at ;, as Houdini's comments have it; its code"
            " takes | alone"
        )
        items = semicolons
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.strip().partition("=")
        name = name.strip()
        if name and equals and "\0" not in item:
            found[name] = value
        elif item.strip():
            notes.append(f"{section}.environment: {item.strip()} is not NAME=VALUE; left out")
    return found


# --- TOML


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _list(value) if isinstance(value, list) else _quote(str(value))


def _list(values: list[str]) -> str:
    return f"[{', '.join(_quote(value) for value in dict.fromkeys(values))}]"


def _quote(value: str) -> str:
    import json

    # What JSON escapes TOML escapes alike; it lacks DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain(text: str) -> str:
    """Return a text without what a comment may not hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
