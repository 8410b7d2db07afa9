"""Settings of a site as text, what a container gets by them, on a machine that is a directory."""

from __future__ import annotations

from ocirt_hpc import stage

BASE = {
    "process": {
        "args": ["/bin/sh"],
        "env": ["PATH=/bin", "A=1"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]},
    },
    "root": {"path": "rootfs"},
    "hostname": "box",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network")],
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "user.max": "1"},
    },
}


LOADER = "lib64/ld-linux-x86-64.so.2"


def run(config, machine, folder, rootfs, text="", **options):
    """Return what the stage makes of a config on a machine with these settings of the site.

    They and what the stage writes are below `folder`.  options: fields of the stage's Caller.
    """
    machine.host()
    file = folder / "hpc.toml"
    file.touch(mode=0o600)
    text = text.replace("[stage]\n", "", 1)
    file.write_text(f'[stage]\nhost-root = "{machine.root}"\n{text}')
    caller = stage.Caller(str(rootfs), str(folder / "files"))
    caller.site = str(file)
    for name, value in options.items():
        setattr(caller, name, value)
    return stage.run(config, caller)


class Place:
    """A machine, a root file system and a file of settings, all below one directory."""

    def __init__(self, path, machine):
        self.path = path
        self.machine = machine
        self.file = path / "hpc.toml"
        self.rootfs = path / "rootfs"
        self.rootfs.mkdir()

    def with_loader(self):
        """Give the image a place for programs' loader, as glibc has it; return self."""
        loader = self.rootfs / LOADER
        loader.parent.mkdir()
        loader.touch()
        return self

    def ask(self, text, *, env=(), annotations=None, config=BASE, **options):
        """Return what comes of a container: an edited config with its report, or None."""
        config = {**config, "annotations": annotations or {}}
        config["process"] = {**config["process"], "env": [*config["process"]["env"], *env]}
        return run(config, self.machine, self.path, self.rootfs, text, **options)

    def env(self, text, **options):
        """Return the variables of a container by name."""
        made = self.ask(text, **options)
        held = made.config["process"]["env"] if made else BASE["process"]["env"]
        return dict(item.split("=", 1) for item in held)


ALWAYS = '[stage]\ntrigger = "always"\n'
