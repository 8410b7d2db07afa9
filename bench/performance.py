#!/usr/bin/env python3
"""Measure everything, and write docs/performance.md with its plots: `make performance`.

    sudo python3 bench/performance.py [--quick] [--output FILE] [--runtime NAME=PATH]...
                                      [--without PART]... [--keep FILE | --from FILE]

Each part is a program of its own beside this one, run one after the other:

    races     lifecycle.py, three separate times: the ratios of each, none an average of them
    memory    lifecycle.py: peaks, what waits, instructions, phases, many at once
    launch    launch.py: N ranks by one command
    floor     floor.py: what the kernel asks for each part
    docker    docker_run.py: `docker run --rm`, ocirt and runc in turn
    scale     scale.py: with 1, 100, 1000 alive; last, since their end keeps the kernel busy

A part that cannot be measured here is named in the document with the reason.  --keep writes the
numbers into a file, --from makes the document of such a file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import svg
from lifecycle import VERBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
RACES = 3
LONGEST = 180  # seconds of one part

# (what, kind of ratio, verb, other runtime, at most)
GOALS = (
    ("create → start → state → kill → delete", "wall_ms", "sum", "runc", 0.3),
    ("create → start → state → kill → delete", "wall_ms", "sum", "crun", 0.6),
    ("`run`", "wall_ms", "run", "runc", 0.4),
    ("`run`", "wall_ms", "run", "crun", 1.0),
    ("CPU time of the five", "cpu_ms", "sum", "crun", 1.0),
    ("create → start → state → kill → delete", "wall_ms", "sum", "crun-static", 1.0),
)


# --- measuring


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each part."""
    few = args.quick
    others = [word for name in args.runtime for word in ("--runtime", name)]
    if others:
        others += [word for name in ("ocirt", "runc", "crun") for word in ("--runtime", name)]
        others = others[-6:] + others[:-6]  # ocirt first: the ratios are its
    rounds = "5" if few else "30"
    races = {
        f"race {number}": ["lifecycle.py", "--rounds", rounds, "--no-memory", *others]
        for number in range(1, RACES + 1)
    }
    return {
        **races,
        "memory": ["lifecycle.py", "--rounds", "5", "--parallel", "32", *others],
        "launch": ["launch.py", "--ranks", "16,64", "--rounds", "1" if few else "5"],
        "floor": ["floor.py", "--rounds", "10" if few else "50"],
        "docker": ["docker_run.py", "--races", str(RACES), "--rounds", rounds],
        "scale": ["scale.py", "--alive", "1,100" if few else "1,100,1000", "--rounds", "10"],
    }


def run_part(words: list[str]) -> dict[str, Any]:
    """Run one program; return its document, or {"missing": why}."""
    line = [sys.executable, os.path.join(HERE, words[0]), *words[1:], "--format", "json"]
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, said = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # it takes back what it has made
        process.communicate()
        return {"missing": f"took more than {LONGEST} s"}
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    if process.returncode != 0:
        return {"missing": (said.strip().splitlines() or [f"exit status {process.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(out)
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    said = [f"--runtime {name}" for name in args.runtime]
    said += [f"--without {part}" for part in args.without]
    found: dict[str, Any] = {"machine": machine()}
    found["options"] = (["--quick"] if args.quick else []) + said
    begin = time.monotonic()
    for name, words in commands(args).items():
        if name in args.without or name.split()[0] in args.without:
            found[name] = {"missing": "left out"}
            continue
        print(f"{time.monotonic() - begin:5.0f} s  {name}", file=sys.stderr, flush=True)
        found[name] = run_part(words)
        if "missing" in found[name]:
            print(f"        not measured: {found[name]['missing']}", file=sys.stderr, flush=True)
    found["seconds"] = round(time.monotonic() - begin)
    return found


def first_line(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip()


def machine() -> dict[str, str]:
    """Return what the numbers depend on."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) >> 20
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        virtual = " hypervisor" in file.read()
    return {
        "CPU": f"{len(os.sched_getaffinity(0))} × {models[0] if models else platform.machine()}"
        + (", a virtual machine" if virtual else ""),
        "memory": f"{memory} GiB",
        "kernel": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "Python": platform.python_version(),
        "commit": first_line(["git", "-C", ROOT, "describe", "--always", "--dirty"]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


# --- the document


def paragraph(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, number: str = "---:") -> str:
    """Return a table of Markdown; all but the first column are numbers, unless told otherwise."""
    titles = list(head)
    lines = [f"| {' | '.join(titles)} |", "|---" + f"|{number}" * (len(titles) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Document:
    """The parts of the text, and the plots beside it: {name: SVG}."""

    def __init__(self, found: dict[str, Any], folder: str) -> None:
        self.found, self.folder = found, folder
        self.plots: dict[str, str] = {}
        self.races = [
            (name, one) for name, one in found.items()
            if name.startswith("race") and "missing" not in one
        ]  # fmt: skip

    def plot(self, name: str, about: str, text: str) -> str:
        self.plots[name] = text
        return f"![{about}]({self.folder}/{name}.svg)"

    def text(self) -> str:
        sections: list[Callable[[], str]] = [
            self.head, self.goals, self.times, self.memory, self.phases, self.floor, self.many,
            self.scale, self.docker, self.how,
        ]  # fmt: skip
        return "\n\n".join([section() for section in sections]) + "\n"

    def missing(self, part: str) -> str:
        """Return why a part has no numbers, or nothing."""
        why = self.found.get(part, {"missing": "left out"}).get("missing")
        return f"Not measured: {why}." if why else ""

    def head(self) -> str:
        found = self.found
        rows = [[name, value] for name, value in found["machine"].items()]
        if self.races:
            race = self.races[0][1]
            rows.append(["cgroup", race["host"]["cgroup"]])
            load = [f"{one['host']['load']:.2f}" for _, one in self.races]
            rows.append(["load before each race", ", ".join(load)])
            rows += [[name, one["version"]] for name, one in race["runtimes"].items()]
        if "docker" in found["docker"]:
            rows.append(["Docker", found["docker"]["docker"]])
        words = " ".join(found["options"])
        how = f'ARGS="{words}", ' if words else ""
        about = paragraph(
            "What ocirt costs beside runc and crun, on one machine, interleaved. Ratios carry over "
            "to other machines, milliseconds do not. All of this, tables and plots, is written by "
            f"`make performance` ({how}as root, {found['seconds']} s)."
        )
        return f"# Performance\n\n{about}\n\n{table(['', ''], rows, number='---')}"

    def goals(self) -> str:
        rows = []
        for what, kind, verb, other, most in GOALS:
            each = [
                one["ratios"].get(f"ocirt/{other}", {}).get(kind, {}).get(verb)
                for _, one in self.races
            ]
            known = [value for value in each if value is not None]
            if known:
                verdict = (
                    "yes" if max(known) <= most else "no" if min(known) > most else "not always"
                )
                cells = [f"{value:.2f}" if value is not None else "" for value in each]
                rows.append([f"{what}, of {other}'s", *cells, f"{most:.2f}", verdict])
        text = ["## Goals, in three separate runs"]
        if rows:
            names = [name for name, _ in self.races]
            about = "Medians of ocirt over medians of the other; below 1 ocirt is the cheaper one."
            text += [about, table(["ratio", *names, "goal", "met"], rows)]
        if self.others():
            text.append(table(["", "measured", "goal", "met"], self.others()))
        return "\n\n".join(text)

    def others(self) -> list[list[str]]:
        """Return the goals that are no ratio of the races."""
        rows = []

        def row(what: str, value: float, most: float, unit: str) -> None:
            verdict = "yes" if value <= most else "no"
            rows.append(
                [what, f"{value:.4g} {unit}".strip(), f"{most:.4g} {unit}".strip(), verdict]
            )

        kib = {n: one["memory_kib"] for n, one in self.found["memory"].get("runtimes", {}).items()}
        if kib.get("ocirt"):
            row("waiting init, resident", kib["ocirt"]["waiting_init_rss"], 150, "KiB")
            row("waiting `run`, resident", kib["ocirt"]["waiting_run_rss"], 500, "KiB")
        if kib.get("runc"):
            for verb in ("create", "run"):
                row(f"peak of `{verb}`, of runc's", kib["ocirt"][verb] / kib["runc"][verb], 1, "")
        for number, one in self.found["launch"].get("ranks", {}).items():
            if "crun run" in one["each"]:
                for kind, words in (("wall_ms", "wall"), ("cpu_ms", "CPU")):
                    ratio = one["each"]["launch"][kind] / one["each"]["crun run"][kind]
                    row(f"`launch -n {number}`, {words} of crun's", ratio, 1 / 3, "")
        docker = self.found["docker"]
        for number, one in enumerate(docker.get("races", ()), 1):
            what = f"`docker run` slower than with runc, of {docker['rounds']}, race {number}"
            row(what, one["slower"], 0, "")
        return rows

    def times(self) -> str:
        if not self.races:
            return "## The life of a container\n\n" + self.missing("race 1")
        _, race = self.races[0]
        text = ["## The life of a container", "", f"{race['rounds']} rounds, median (minimum)."]
        for kind, title in (("wall_ms", "wall ms"), ("cpu_ms", "CPU ms")):
            verbs = [*VERBS, *(["init"] if kind == "cpu_ms" else []), "sum", "run"]
            rows = []
            for name, one in race["runtimes"].items():
                cells = [one[kind].get(verb, {"median": 0.0, "minimum": 0.0}) for verb in verbs]
                rows.append([name, *(f"{ms(c['median'])} ({ms(c['minimum'])})" for c in cells)])
            text += ["", table([title, *verbs], rows)]
        bars = {
            name: {verb: one["wall_ms"][verb]["median"] for verb in VERBS}
            for name, one in race["runtimes"].items()
        }
        plot = svg.bars("create → start → state → kill → delete", "ms", bars)
        text += ["", self.plot("lifecycle", "The five verbs, by runtime", plot)]
        runs = {
            name: {"run": one["wall_ms"]["run"]["median"]} for name, one in race["runtimes"].items()
        }
        text += ["", self.plot("run", "run, by runtime", svg.bars("run", "ms", runs))]
        return "\n".join(text)

    def memory(self) -> str:
        part = self.found["memory"]
        if "missing" in part:
            return "## Memory and instructions\n\n" + self.missing("memory")
        text = ["## Memory and instructions"]
        waits = ("waiting_init_rss", "waiting_init_pss", "waiting_run_rss", "waiting_run_pss")
        rows = [
            [name, *(str(one["memory_kib"].get(what, "")) for what in (*VERBS, "run", *waits))]
            for name, one in part["runtimes"].items()
        ]
        heads = [what.replace("_", " ") for what in waits]
        about = (
            "KiB: the peak of each command, then what waits (rss resident, pss with shared pages "
            "divided). Below 1400 the peak is that of the measuring program."
        )
        text += ["", paragraph(about), "", table(["KiB", *VERBS, "run", *heads], rows)]
        bars = {
            f"{name}: {what}": {"rss": float(one["memory_kib"][f"waiting_{what}_rss"])}
            for what in ("init", "run")
            for name, one in part["runtimes"].items()
            if f"waiting_{what}_rss" in one["memory_kib"]
        }
        if bars:
            plot = svg.bars("resident while the container waits or runs", "KiB", bars)
            text += ["", self.plot("memory", "Resident memory of what waits", plot)]
        if all(one["instructions"] for one in part["runtimes"].values()):
            rows = [
                [name, *(f"{one['instructions'][verb] / 1e6:.1f}" for verb in (*VERBS, "run"))]
                for name, one in part["runtimes"].items()
            ]
            text += ["", table(["million instructions", *VERBS, "run"], rows)]
        return "\n".join(text)

    def phases(self) -> str:
        traced = next((one["phases_us"] for _, race in self.races
                       for one in race["runtimes"].values() if one["phases_us"]), None)  # fmt: skip
        if not traced:
            return "## Where the time goes\n\nNot measured."
        names = list(dict.fromkeys(name for one in traced.values() for name in one))
        rows = [[name, *(f"{one.get(name, 0):.0f}" for one in traced.values())] for name in names]
        bars = {
            verb: {name: value / 1000 for name, value in one.items() if name != "total"}
            for verb, one in traced.items()
        }
        return "\n".join(
            [
                "## Where the time goes",
                "",
                paragraph(
                    "`ocirt --trace-time`, medians in µs. The init works at the same time as "
                    "Python, so *init ops* is what is left to wait for. `run` is told up to where "
                    "the program runs."
                ),
                "",
                table(["µs", *traced], rows),
                "",
                self.plot("phases", "Phases of a verb", svg.bars("phases", "ms", bars)),
            ]
        )

    def floor(self) -> str:
        part = self.found["floor"]
        if "missing" in part:
            return "## The kernel's own floor\n\n" + self.missing("floor")
        needs = part["needs"]
        rows = [
            [
                name,
                f"{one['median']:.1f}",
                f"{one['minimum']:.1f}",
                str(needs.get(name, "")),
                f"{one['minimum'] * needs[name]:.0f}" if name in needs else "",
            ]
            for name, one in part["parts_us"].items()
        ]
        total = part["total_us"] / 1000
        text = [
            "## The kernel's own floor",
            "",
            paragraph(
                "What each part costs when a tiny C program asks the kernel for nothing else "
                "(`bench/floor.c`), and how often the container of this benchmark needs it, by its "
                "plan. What it needs is added up from the minima."
            ),
            "",
            table(["part, µs", "median", "minimum", "times", "together"], rows),
            "",
            f"Together {total:.1f} ms: the least that it can take, one part after the other.",
        ]
        if self.races:
            create = self.races[0][1]["runtimes"]["ocirt"]["wall_ms"]["create"]["median"]
            text.append(f"`ocirt create` took {create:.1f} ms.")
        return "\n".join(text)

    def many(self) -> str:
        text = ["## Many at once"]
        memory, launch = self.found["memory"], self.found["launch"]
        if memory.get("parallel"):
            number = memory["parallel"]["number"]
            rows = [[name, ms(value)] for name, value in memory["parallel"]["wall_ms"].items()]
            text += ["", f"{number} times `run` at once, and what each took of the wall time:", "",
                     table(["runtime", "ms"], rows)]  # fmt: skip
        if "missing" in launch:
            return "\n".join([*text, "", "`launch`: " + self.missing("launch")])
        text += ["", "N containers by one `ocirt launch`, per container, beside N times `run`:"]
        for number, one in launch["ranks"].items():
            base = one["each"].get("crun run")
            rows = [
                [
                    name,
                    ms(row["wall_ms"]),
                    ms(row["cpu_ms"]),
                    f"{row['wall_ms'] / base['wall_ms']:.2f}" if base else "",
                    f"{row['cpu_ms'] / base['cpu_ms']:.2f}" if base else "",
                ]
                for name, row in one["each"].items()
            ]
            heads = [f"N = {number}", "wall ms", "CPU ms", "wall/crun", "CPU/crun"]
            text += ["", table(heads, rows)]
        return "\n".join(text)

    def scale(self) -> str:
        part = self.found["scale"]
        if "missing" in part:
            return "## With many alive\n\n" + self.missing("scale")
        rows = [
            [
                number,
                *(ms(one["wall_ms"][verb]) for verb in VERBS),
                ms(sum(one["wall_ms"].values())),
                ms(sum(one["cpu_ms"].values())),
                ms(one["list_ms"]),
                ms(one["list_quiet_ms"]),
            ]
            for number, one in part["alive"].items()
        ]
        bars = {
            f"{number} alive": {verb: one["wall_ms"][verb] for verb in VERBS}
            for number, one in part["alive"].items()
        }
        heads = ["alive", *VERBS, "sum", "CPU of them", "list", "list -q"]
        return "\n".join(
            [
                "## With many alive",
                "",
                f"The life of one more container, medians of {part['rounds']}, wall ms.",
                "",
                table(heads, rows),
                "",
                self.plot("scale", "The five verbs with 1, 100, 1000 containers alive",
                          svg.bars("one more container", "ms", bars)),
            ]
        )  # fmt: skip

    def docker(self) -> str:
        part = self.found["docker"]
        if "missing" in part:
            return "## Docker's own view\n\n" + self.missing("docker")
        rows, ratios = [], []
        for number, one in enumerate(part["races"], 1):
            for name, each in one["wall_ms"].items():
                cells = [ms(one["median_ms"][name]), ms(min(each)), ms(max(each))]
                rows.append([f"race {number}, {name}", *cells])
            ours, theirs = one["median_ms"].values()
            ratios.append(f"{ours / theirs:.2f}")
        slower = [str(one["slower"]) for one in part["races"]]
        plot = svg.strips("docker run --rm", "ms", part["races"][0]["wall_ms"])
        return "\n".join(
            [
                "## Docker's own view",
                "",
                paragraph(
                    f"`docker run --rm --network none busybox true`, {part['rounds']} rounds in "
                    "turn, after a few that do not count; most of it is Docker's own, whose state "
                    "lies on a tmpfs."
                ),
                "",
                table(["wall ms", "median", "minimum", "maximum"], rows),
                "",
                paragraph(
                    f"Medians {', '.join(ratios)} of runc's; ocirt was the slower one in "
                    f"{', '.join(slower)} of {part['rounds']} rounds."
                ),
                "",
                self.plot("docker", "docker run --rm with each runtime, race 1", plot),
            ]
        )

    def how(self) -> str:
        about = (
            "The bundle is what Docker asks for: five namespaces, sixteen mounts, limits and "
            "device rules, a seccomp profile of some three hundred calls, fourteen capabilities, "
            "masked and read-only paths; the program is a static busybox. The runtimes take turns "
            "within a round, each round in another order. CPU time is what wait4(2) tells of a "
            "command and all that it has waited for; `init` is the container's first process. "
            "`bench/lifecycle.py` and its neighbours tell the rest; each can be run alone."
        )
        if any("crun-static" in one["runtimes"] for _, one in self.races):
            about += " `crun-static` is a newer crun, linked statically outside of this repository."
        return f"## How it is measured\n\n{paragraph(about)}"


def write(found: dict[str, Any], output: str) -> None:
    stem = os.path.splitext(os.path.basename(output))[0]
    document = Document(found, stem)
    text = document.text()
    folder = os.path.join(os.path.dirname(os.path.abspath(output)), stem)
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        if name.endswith(".svg") and name[:-4] not in document.plots:
            os.unlink(os.path.join(folder, name))
    for name, plot in document.plots.items():
        with open(os.path.join(folder, f"{name}.svg"), "w", encoding="utf-8") as file:
            file.write(plot)
    with open(output, "w", encoding="utf-8") as file:
        file.write(text)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: a look, not a result")
    parser.add_argument("--output", default=os.path.join(ROOT, "docs", "performance.md"))
    parser.add_argument("--runtime", action="append", default=[], metavar="NAME=PATH",
                        help="one more that takes part, such as a static crun")  # fmt: skip
    parser.add_argument("--without", action="append", default=[], metavar="PART")
    parser.add_argument("--keep", metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--from", dest="source", metavar="FILE", help="of an earlier --keep")
    return parser.parse_args()


def main() -> int:
    args = options()
    if args.source:
        with open(args.source, encoding="utf-8") as file:
            found = json.load(file)
    elif os.geteuid() != 0:
        print("bench: needs root (namespaces, cgroups, dockerd)", file=sys.stderr)
        return 1
    else:
        found = measure(args)
    if args.keep:
        with open(args.keep, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)
    write(found, args.output)
    print(args.output)
    left = [name for name, one in found.items() if isinstance(one, dict) and "missing" in one]
    return 1 if set(left) - set(args.without) else 0


if __name__ == "__main__":
    sys.exit(main())
