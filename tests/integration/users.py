"""An ordinary user for the tests without root, and a runtime that such a user can reach.

The user is made for the session and removed with all that runs in its name.  Debian's useradd
grants it ranges in /etc/subuid and /etc/subgid; where it does not, we do.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import re
import runpy
import shutil
import signal
import subprocess
import sys

import pytest

from tests.integration import engines
from tests.integration.support import eventually

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
RANGE = 65536
MISSING = engines.missing("useradd", "userdel", "usermod", "setpriv")


_numbers = itertools.count(1)


class User:
    """A user of this machine: `uid`, `gid`, a home and a runtime directory of its own."""

    def __init__(self, name, folder):
        entry = pwd.getpwnam(name)
        self.name, self.uid, self.gid = name, entry.pw_uid, entry.pw_gid
        self.home = entry.pw_dir
        self.runtime_dir = os.path.join(folder, "xdg")
        self.make(self.runtime_dir, 0o700)
        self.env = {
            "HOME": self.home,
            "LOGNAME": name,
            "PATH": PATH,
            "USER": name,
            "XDG_RUNTIME_DIR": self.runtime_dir,
        }
        self.groups = ()  # besides its own

    def make(self, path, mode=0o755):
        """Make a directory that belongs to the user."""
        os.mkdir(path)
        os.chmod(path, mode)
        os.chown(path, self.uid, self.gid)
        return path

    def own(self, path):
        """Give the user a tree, links as they are."""
        for top, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.lchown(os.path.join(top, name), self.uid, self.gid)
        os.lchown(path, self.uid, self.gid)
        return path

    def argv(self, *argv):
        """Return the command that runs `argv` in the user's name."""
        groups = ",".join(map(str, (self.gid, *self.groups)))
        ids = ("--reuid", str(self.uid), "--regid", str(self.gid), "--groups", groups)
        # setpriv's bounding set and the like stay as a login would have them.
        return ["setpriv", *ids, *argv]

    def call(self, *argv, **popen):
        popen.setdefault("env", self.env)
        popen.setdefault("cwd", "/")
        return engines.call(self.argv(*argv), **popen)

    def subordinate(self, kind):
        """Return the first id of the range that /etc/sub{u,g}id grants; kind: "uid" or "gid"."""
        with open(f"/etc/sub{kind}") as file:
            rows = [line.strip().split(":") for line in file]
        return next((int(first) for name, first, _ in rows if name == self.name), None)

    def processes(self):
        """Return {pid: command} of what runs in the user's name, or in that of its sub-users."""
        first = self.subordinate("uid")
        return _processes({self.uid, *(range(first, first + RANGE) if first else ())})

    def end(self):
        """End all that runs in the user's name."""
        for pid in self.processes():
            _kill(pid)
        eventually(lambda: not self.processes(), 5)


def _processes(uids):
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid in uids:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found[int(pid)] = file.read().replace(b"\0", b" ").decode()
    return found


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _remove_strays():
    """Remove the users of sessions that were killed, with what runs in their names."""
    for entry in pwd.getpwall():
        found = re.fullmatch(r"ocirt-(\d+)-\d+", entry.pw_name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            for pid in _processes({entry.pw_uid}):
                _kill(pid)
            engines.call(["userdel", "--force", entry.pw_name], patience=60)


@contextlib.contextmanager
def ordinary(folder):
    """Make a user whose home lies in `folder`, and remove both."""
    if MISSING:
        pytest.skip(MISSING)
    _remove_strays()
    name = f"ocirt-{os.getpid()}-{next(_numbers)}"
    home = os.path.join(folder, "home")
    useradd = ["useradd", "--create-home", "--home-dir", home, "--shell", "/bin/sh", name]
    added = engines.call(useradd, patience=60)
    assert added.code == 0, str(added)
    user = None
    try:
        user = User(name, folder)
        for kind in ("uid", "gid"):
            if user.subordinate(kind) is None:
                first = 1 << 30 | user.uid * RANGE % (1 << 29)
                grant = ["usermod", f"--add-sub{kind}s", f"{first}-{first + RANGE - 1}", name]
                subprocess.run(grant, check=True, timeout=60)
        yield user
    finally:
        if user:
            user.end()
        subprocess.run(["userdel", name], timeout=60, check=False, capture_output=True)


def reachable(user, runtime, folder):
    """Return `runtime`, or what it is made of in a place where the user can run it.

    A Python below /root is out of a user's reach.
    """
    if user.call(runtime, "--version").code == 0:
        return runtime
    if engines.flavour(runtime) != "ocirt":
        pytest.skip(f"{runtime} is out of reach for an ordinary user")
    python = next(filter(lambda path: _serves(user, path), _pythons()), None)
    if python is None:
        pytest.skip(f"no Python 3.11 or later is in reach for an ordinary user: not {_pythons()}")
    import oci_spec
    import ocirt_hpc

    import ocirt

    site = os.path.join(folder, "site")
    for package in (ocirt, oci_spec, ocirt_hpc):
        source = os.path.dirname(package.__file__)
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, os.path.join(site, os.path.basename(source)), ignore=skipped)
    output = os.path.join(folder, "ocirt")
    native = runpy.run_path(os.path.join(ROOT, "packaging", "native.py"))
    native["compile_launcher"](home=site, python=python, output=type(native["ROOT"])(output))
    result = user.call(output, "--version")
    assert result.code == 0, str(result)
    return output


def _pythons():
    found = [getattr(sys, "_base_executable", ""), "/usr/bin/python3", "/usr/local/bin/python3"]
    return [path for path in found if path]


def _serves(user, python):
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    return os.path.exists(python) and user.call(python, "-I", "-S", "-c", check).code == 0
