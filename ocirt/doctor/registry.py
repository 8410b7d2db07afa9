"""The engines that are installed, and by what name they know ocirt."""

from __future__ import annotations

from ocirt import engines
from ocirt.doctor.machine import INFO, LACKS, OK
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt.doctor.machine import Finding, Machine


def registrations(machine: Machine) -> Iterator[Finding]:
    """The engines that are installed, and by what name they know ocirt."""
    some = False
    for engine in engines.ENGINES:
        program = engines.installed(engine, machine.site)
        if not program:
            continue
        some = True
        shown = f"{program} {engines.version(engine, machine.site)}".rstrip()
        if engine == "kubernetes":
            yield engine, INFO, f"{shown}: its RuntimeClass is in the cluster", ""
            continue
        try:
            found = engines.registered(engine, machine.site)
        except (Error, OSError) as error:
            yield engine, LACKS, shown, f"its configuration cannot be read: {error}"
            continue
        if found:
            value = f"{shown}: " + ", ".join([f"{name} ({path})" for name, path in found])
            gone = [path for _, path in found if not machine.host.exists(path)]
            advice = f"there is no {gone[0]}: ocirt setup {engine}" if gone else ""
            yield engine, LACKS if gone else OK, value, advice
        else:
            yield engine, LACKS, f"{shown} does not know ocirt", f"ocirt setup {engine}"
    if not some:
        yield "none", INFO, "", ""
