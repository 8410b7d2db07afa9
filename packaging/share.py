"""Write what belongs below /usr/share: `python3 packaging/share.py DIRECTORY`.

Manual pages and completions for shells, made from the tables of the verbs.  Needs neither a
compiler nor a package besides our own.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ocirt.cli import completion, manual

SCRIPTS = {
    "bash": "bash-completion/completions/ocirt",
    "zsh": "zsh/site-functions/_ocirt",
    "fish": "fish/vendor_completions.d/ocirt.fish",
}


def files() -> dict[str, str]:
    """Return each file's text by its path below /usr/share."""
    found = {f"man/man1/{name}": text for name, text in manual.pages().items()}
    for shell, path in SCRIPTS.items():
        found[path] = completion.SHELLS[shell]()
    return found


def write(directory: Path) -> list[Path]:
    """Write every file below `directory`; return their paths."""
    written = []
    for name, text in files().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    (name,) = sys.argv[1:]
    for path in write(Path(name)):
        print(path)
