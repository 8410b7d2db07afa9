"""ocirt completion: print what a shell needs to complete command lines of ocirt.

Made from the tables of the verbs, like their help: a new option or verb is completed without
more ado.  Container ids are asked for when the user presses the key.
"""

from __future__ import annotations

import sys

from ocirt import binding, cli, log
from ocirt.cli import hpc, settings
from ocirt.cli.options import HELP
from ocirt.errors import UsageError
from ocirt.kernel import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ocirt.cli.options import Arguments, Row
    from ocirt.cli.settings import Settings

USAGE = "SHELL"
WORDS = (1, 1)
OPTIONS = ()
ABOUT = """\
SHELL is bash, zsh or fish. To have it at once, and for every shell to come:

   bash  . <(ocirt completion bash)
         ocirt completion bash > /usr/share/bash-completion/completions/ocirt
   zsh   ocirt completion zsh > "${fpath[1]}/_ocirt"
   fish  ocirt completion fish > ~/.config/fish/completions/ocirt.fish"""

# What an option may be; the others take a file, a directory, or anything.
CHOICES = {
    "bind": [*binding.KINDS, "none"],
    "cgroup-manager": [name for name in settings.DRIVERS if name],
    "format": ["table", "json"],
    "log-format": ["text", "json"],
    "log-level": list(log.LEVELS),
    "rootless": ["true", "false", "auto"],
}
DIRECTORIES, FILES = ("DIR", "BUNDLE"), ("FILE", "PATH")


def run(arguments: Arguments, settings: Settings) -> int:
    """Print the script of one shell."""
    (shell,) = arguments.words
    if shell not in SHELLS:
        raise UsageError(f"unknown shell {shell}: not {', '.join(SHELLS)}")
    sys.stdout.write(SHELLS[shell]())
    return 0


class Verb:
    """A verb as completion sees it; `words`: what its arguments are called in its USAGE."""

    def __init__(self, name: str, summary: str, options: Iterable[Row], usage: str) -> None:
        self.name, self.summary = name, summary
        self.options = [row for row in (*options, HELP) if row[4]]
        words = usage.partition("\n")[0].split()
        self.words = [word.strip("[].") for word in words if word != "[options]"]

    def flags(self, *, valued: bool = False) -> list[str]:
        """Return the spellings of the options, or of those that take a value."""
        rows = [row for row in self.options if row[2] or not valued]
        return [
            spelling
            for name, short, *_ in rows
            for spelling in (f"--{name}", f"-{short}")
            if spelling != "-"
        ]


def verbs() -> list[Verb]:
    """Return every verb, read off its module."""
    found = []
    for name, (_, summary) in cli.COMMANDS.items():
        module = cli.load(name)
        found.append(Verb(name, summary, module.OPTIONS, module.USAGE))
    return [*found, Verb("help", "show help for a command", (), "VERB")]


def before() -> Verb:
    """Return what stands before the verb, as if it were one."""
    return Verb("", "", settings.OPTIONS, "VERB")


def choices(word: str) -> Sequence[str]:
    """Return what may stand for one of a USAGE's words; nothing where that is not a closed list."""
    if word == "VERB":
        return [*cli.COMMANDS, "help"]
    if word == "SHELL":
        return list(SHELLS)
    if word == "ACTION":
        return list(hpc.ACTIONS)
    return signals.NAMES if word == "SIGNAL" else ()


# --- bash


BASH = """\
# bash completion for ocirt, made by `ocirt completion bash`

_ocirt() {
    local current=${COMP_WORDS[COMP_CWORD]} verb= root=() options values words=() last= count=0
    local index word
    _ocirt_verb ""
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        [[ $word == "=" ]] && continue
        if [[ -n $last ]]; then
            [[ $last == --root ]] && root=(--root "$word")
            last=
        elif [[ $word == -* ]]; then
            [[ " $values " == *" $word "* ]] && last=$word
        elif [[ -z $verb ]]; then
            verb=$word
            _ocirt_verb "$verb"
        else
            ((count++))
        fi
    done
    [[ $current == "=" ]] && current=
    if [[ -n $last ]]; then
        _ocirt_value "$verb" "$last"
    elif [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
    else
        case ${words[count]} in
        ID) COMPREPLY=($(compgen -W "$(ocirt "${root[@]}" list -q 2>/dev/null)" -- "$current")) ;;
        BUNDLE) COMPREPLY=($(compgen -d -- "$current")) ;;
@WORDS@
        esac
    fi
}

_ocirt_verb() {
    case $1 in
@VERBS@
    *) options= values= words=() ;;
    esac
}

_ocirt_value() {
    case "$1 $2" in
@VALUES@
    esac
}

complete -o filenames -F _ocirt ocirt
"""


def bash() -> str:
    """Return the script for bash."""
    cases, values = [], []
    for verb in (before(), *verbs()):
        cases.append(
            f"    {verb.name or quoted('')}) options={quoted(' '.join(verb.flags()))}"
            f" values={quoted(' '.join(verb.flags(valued=True)))}"
            f" words=({' '.join(verb.words)}) ;;"
        )
        for name, short, value, *_ in verb.options:
            if reply := _bash_value(name, value):
                spellings = [f"{quoted(f'{verb.name} --{name}')}"]
                spellings += [quoted(f"{verb.name} -{short}")] if short else []
                values.append(f"    {' | '.join(spellings)}) {reply} ;;")
    words = [
        f"        {word}) {_reply('-W ' + quoted(' '.join(choices(word))))} ;;"
        for word in ("VERB", "SHELL", "SIGNAL")
    ]
    return (
        BASH.replace("@WORDS@", "\n".join(words))
        .replace("@VERBS@", "\n".join(cases))
        .replace("@VALUES@", "\n".join(values))
    )


def _bash_value(name: str, value: str) -> str:
    if value and name in CHOICES:
        what = f"-W {quoted(' '.join(CHOICES[name]))}"
    elif value in DIRECTORIES:
        what = "-d"
    elif value in FILES:
        what = "-f"
    else:
        return ""
    return _reply(what)


def _reply(what: str) -> str:
    return f'COMPREPLY=($(compgen {what} -- "$current"))'


def quoted(text: str) -> str:
    """Quote for any of the shells."""
    return "'" + text.replace("'", "'\\''") + "'"


# --- zsh


ZSH = """\
#compdef ocirt
# zsh completion for ocirt, made by `ocirt completion zsh`

_ocirt_ids() {
    local -a ids root
    [[ -n ${opt_args[--root]} ]] && root=(--root ${opt_args[--root]})
    ids=(${(f)"$(_call_program ids ocirt $root list -q 2>/dev/null)"})
    compadd -a ids
}

_ocirt() {
    local state line
    local -a verbs
    typeset -A opt_args
    verbs=(
@VERBS@
    )
    _arguments -C \\
@GLOBAL@
        '1: :->verb' '*:: :->rest'
    case $state in
    verb) _describe -t commands command verbs ;;
    rest)
        case $line[1] in
@CASES@
        esac ;;
    esac
}

if [[ $funcstack[1] == _ocirt ]]; then
    _ocirt "$@"
else
    compdef _ocirt ocirt
fi
"""


def zsh() -> str:
    """Return the script for zsh."""
    every = verbs()
    cases = []
    for verb in every:
        specs = [*_zsh_options(verb), *_zsh_words(verb)]
        cases.append(f"        {verb.name}) _arguments {' '.join(specs)} ;;")
    listed = [f"        {quoted(f'{verb.name}:{verb.summary}')}" for verb in every]
    return (
        ZSH.replace("@VERBS@", "\n".join(listed))
        .replace("@GLOBAL@", "\n".join(f"        {spec} \\" for spec in _zsh_options(before())))
        .replace("@CASES@", "\n".join(cases))
    )


def _zsh_options(verb: Verb) -> list[str]:
    specs = []
    for name, short, value, default, text in verb.options:
        for character in "\\[]:":
            text = text.replace(character, "\\" + character)
        action = f":{value}:{_zsh_value(name, value)}" if value else ""
        many = "*" if default == () else ""
        equals = "=" if value else ""
        specs.append(quoted(f"{many}--{name}{equals}[{text}]{action}"))
        if short:
            specs.append(quoted(f"{many}-{short}[{text}]{action}"))
    return specs


def _zsh_value(name: str, value: str) -> str:
    if name in CHOICES:
        return f"({' '.join(CHOICES[name])})"
    return "_files -/" if value in DIRECTORIES else "_files" if value in FILES else " "


def _zsh_words(verb: Verb) -> list[str]:
    specs = []
    for place, word in enumerate(verb.words, 1):
        action = " "
        if word == "ID":
            action = "_ocirt_ids"
        elif word == "BUNDLE":
            action = "_files -/"
        elif choices(word):
            action = f"({' '.join(choices(word))})"
        specs.append(quoted(f"{place}:{word}:{action}"))
    return specs


# --- fish


FISH = """\
# fish completion for ocirt, made by `ocirt completion fish`

function __ocirt_ids
    set -l words (commandline -opc)
    set -l root
    for place in (seq (count $words))
        switch $words[$place]
            case --root -root
                set -l next (math $place + 1)
                set root --root $words[$next]
            case '--root=*'
                set root $words[$place]
        end
    end
    ocirt $root list -q 2>/dev/null
end

complete -c ocirt -f
"""


def fish() -> str:
    """Return the script for fish."""
    lines = [
        f"complete -c ocirt -n __fish_use_subcommand {_fish_option(row)}"
        for row in before().options
    ]
    for verb in verbs():
        lines.append(
            f"complete -c ocirt -n __fish_use_subcommand -a {verb.name} -d {_fish(verb.summary)}"
        )
        there = quoted(f"__fish_seen_subcommand_from {verb.name}")
        lines += [f"complete -c ocirt -n {there} {_fish_option(row)}" for row in verb.options]
        for word in verb.words:
            if word == "ID":
                lines.append(f"complete -c ocirt -n {there} -a '(__ocirt_ids)'")
            elif word == "BUNDLE":
                lines.append(f"complete -c ocirt -n {there} -a '(__fish_complete_directories)'")
            elif choices(word):
                lines.append(f"complete -c ocirt -n {there} -a {_fish(' '.join(choices(word)))}")
    return FISH + "\n".join(lines) + "\n"


def _fish_option(row: Row) -> str:
    name, short, value, _, text = row
    words = [f"-l {name}"]
    if short:
        words.append(f"-s {short}")
    if value and name in CHOICES:
        words.append(f"-x -a {_fish(' '.join(CHOICES[name]))}")
    elif value in DIRECTORIES:
        words.append("-x -a '(__fish_complete_directories)'")
    elif value:
        words.append("-r -F" if value in FILES else "-x")
    return " ".join([*words, f"-d {_fish(text)}"])


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
