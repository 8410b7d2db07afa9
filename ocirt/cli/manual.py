"""The manual pages, made from the tables that the verbs run on: ocirt(1) and one for each verb.

`packaging/share.py DIRECTORY` writes them for packages.  roff(7), man(7).
"""

from __future__ import annotations

from ocirt import cli, version
from ocirt.cli import options, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt.cli.options import Row

EXIT = """\
0 when all went well; 1 for any failure, which is told by one line on stderr or in the log;
3 for an unknown command. run and exec pass on the status of the program, or 128 and the number
of the signal that ended it; exec that cannot start gives 255."""

FILES = (
    ("/run/ocirt", "what is kept of the containers of root"),
    ("$XDG_RUNTIME_DIR/ocirt", "the same for other users"),
)


def pages() -> dict[str, str]:
    """Return the text of each page, by the name of its file."""
    found = {"ocirt.1": overview()}
    for verb in cli.COMMANDS:
        found[f"ocirt-{verb}.1"] = page(verb)
    return found


def overview() -> str:
    """Return ocirt(1)."""
    usage = "[global options] command [command options] [arguments...]"
    lines = _head("ocirt", "Open Container Initiative runtime", usage)
    lines.append(".SH COMMANDS")
    for verb, (_, summary) in cli.COMMANDS.items():
        lines += [".TP", rf"\fBocirt\-{_plain(verb)}\fR(1)", _plain(summary)]
    lines += [".SH GLOBAL OPTIONS", *_options(settings.OPTIONS)]
    lines += [".SH EXIT STATUS", _text(EXIT), ".SH FILES"]
    for path, what in FILES:
        lines += [".TP", rf"\fI{_plain(path)}\fR", _plain(what)]
    return "\n".join(lines) + "\n"


def page(verb: str) -> str:
    """Return the page of one verb."""
    module, summary = cli.load(verb), cli.COMMANDS[verb][1]
    lines = _head(f"ocirt-{verb}", summary, module.USAGE, verb)
    if about := getattr(module, "ABOUT", ""):
        lines += [".SH DESCRIPTION", *_paragraphs(about)]
    lines += [".SH OPTIONS", *_options(module.OPTIONS)]
    lines += [".SH SEE ALSO", r"\fBocirt\fR(1)"]
    return "\n".join(lines) + "\n"


def _head(name: str, summary: str, usage: str, verb: str = "") -> list[str]:
    return [
        f'.TH "{_plain(name.upper())}" 1 "" "ocirt {version.VERSION}" "User Commands"',
        ".SH NAME",
        rf"{_plain(name)} \- {_plain(summary)}",
        ".SH SYNOPSIS",
        "\n.br\n".join(
            [
                rf"\fB{_plain(f'ocirt {verb}'.strip())}\fR {_plain(form)}".rstrip()
                for form in usage.split(f"\n   ocirt {verb} ")
            ]
        ),
    ]


def _options(rows: Iterable[Row]) -> list[str]:
    lines = []
    for name, short, value, default, text in (*rows, options.HELP):
        if not text:
            continue
        value = rf" \fI{_plain(value)}\fR" if value else ""
        spellings = [f"--{name}"] + ([f"-{short}"] if short else [])
        words = [rf"\fB{_plain(spelling)}\fR{value}" for spelling in spellings]
        if default and default.__class__ is not bool:
            text = f"{text} (default: {default})"
        lines += [".TP", ", ".join(words), _plain(text)]
    return lines


def _paragraphs(text: str) -> list[str]:
    """Return prose filled, and what is indented as it stands."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith("   ") != inside and line:
            inside = not inside
            lines.append(".nf" if inside else ".fi")
        lines.append(_plain(line) or ".PP")
    return [*lines, ".fi"] if inside else lines


def _text(text: str) -> str:
    return "\n".join(map(_plain, text.splitlines()))


def _plain(text: str) -> str:
    """Escape what roff would take for its own."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + text if text[:1] in (".", "'") else text
