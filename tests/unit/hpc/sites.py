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


class Place:
    """A machine, a root file system and a file of settings, all below one directory."""

    def __init__(self, path, machine):
        self.path = path
        self.machine = machine
        self.file = path / "hpc.toml"
        self.file.touch(mode=0o600)
        self.rootfs = path / "rootfs"
        self.rootfs.mkdir()

    def ask(self, text, *, env=(), annotations=None, config=BASE, **options):
        """Return what comes of a container: an edited config with its report, or None."""
        text = text.replace("[stage]\n", "", 1)
        self.file.write_text(f'[stage]\nhost-root = "{self.machine.root}"\n{text}')
        config = {**config, "annotations": annotations or {}}
        config["process"] = {**config["process"], "env": [*config["process"]["env"], *env]}
        caller = stage.Caller(str(self.rootfs), str(self.path / "files"))
        caller.site = str(self.file)
        for name, value in options.items():
            setattr(caller, name, value)
        return stage.run(config, caller)

    def env(self, text, **options):
        """Return the variables of a container by name."""
        made = self.ask(text, **options)
        held = made.config["process"]["env"] if made else BASE["process"]["env"]
        return dict(item.split("=", 1) for item in held)


ALWAYS = '[stage]\ntrigger = "always"\n'
