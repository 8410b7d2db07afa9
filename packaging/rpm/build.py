"""Build ocirt-VERSION-1.ARCH.rpm with rpmbuild: `python3 packaging/rpm/build.py [DIR]`.

What it holds is laid out by packaging/layout.py, which ocirt.spec calls on a copy of the source.
On a machine whose own packages are no rpms, nobody can tell rpmbuild that the compiler is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import layout
import native

SOURCE = ("ocirt", "spec", "hooks", "packaging", "LICENSE", "README.md", "CHANGELOG.md")


def build(output: Path) -> Path:
    """Build the package into a directory; return its path."""
    if not shutil.which("rpmbuild"):
        raise SystemExit("no rpmbuild found: install rpm-build (Debian: rpm)")
    output.mkdir(parents=True, exist_ok=True)
    name = f"ocirt-{layout.version()}"
    foreign = subprocess.run(["rpm", "--query", "rpm"], capture_output=True, check=False).returncode
    with tempfile.TemporaryDirectory(dir=output) as top:
        (Path(top) / "SOURCES").mkdir()
        with tarfile.open(f"{top}/SOURCES/{name}.tar.gz", "w:gz") as tar:
            for part in SOURCE:
                tar.add(native.ROOT / part, f"{name}/{part}", filter=_wanted)
        macros = {
            "_topdir": top,
            "ocirt_version": layout.version(),
            "ocirt_commit": native.head() or "unknown",
            # The same source makes the same package.
            "_buildhost": "localhost",
            "use_source_date_epoch_as_buildtime": "1",
            "clamp_mtime_to_source_date_epoch": "1",
        }
        line = ["rpmbuild", "-bb", *(["--nodeps"] if foreign else [])]
        for name_and_value in macros.items():
            line += ["--define", " ".join(name_and_value)]
        line.append(str(Path(__file__).with_name("ocirt.spec")))
        environment = layout.fixed_time()
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(line)}\n{done.stdout}{done.stderr}")
        (built,) = Path(top).glob("RPMS/*/*.rpm")
        return Path(shutil.move(built, output / built.name))


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = entry.name.rpartition("/")[2]
    built = ("__pycache__", native.INIT.name, "fuzz_decode", "check_decode")
    if name in built or name.endswith((".pyc", ".o")) or name.startswith("ocirt-python"):
        return None
    return entry


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if sys.argv[1:] else native.ROOT / "dist")))
