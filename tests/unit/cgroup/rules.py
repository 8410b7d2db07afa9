"""What a list of device rules means, evaluated rule by rule: the measure for what we make of it."""

from __future__ import annotations

from ocirt.cgroup import devices

DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}
DEFAULTS = [
    {
        "allow": True,
        "type": kind,
        "major": -1 if major is None else major,
        "minor": -1 if minor is None else minor,
        "access": "".join(letter for letter in "rwm" if access & devices.ACCESS[letter]),
    }
    for (kind, major, minor), access in devices.DEFAULTS
]


def meant(rules, kind, major, minor, access):
    """Evaluate the OCI list as it is written: for each letter the last rule that matches."""
    for letter in access:
        allowed = False
        for rule in [*rules, *DEFAULTS]:
            if (
                rule.get("type", "a") in ("a", kind)
                and rule.get("major", -1) in (-1, major)
                and rule.get("minor", -1) in (-1, minor)
                and letter in rule.get("access", "rwm")
            ):
                allowed = rule["allow"]
        if not allowed:
            return False
    return True
