"""`process.apparmorProfile`: enforced when it is loaded, refused when it is not."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.integration.support import only_ocirt

SECURITYFS = "/sys/kernel/security"
PROFILE = "ocirt-test-profile"
TEXT = f"""profile {PROFILE} flags=(attach_disconnected) {{
  file, capability, signal, mount, ptrace,
  deny /etc/secret r,
}}
"""


def enabled():
    try:
        with open("/sys/module/apparmor/parameters/enabled") as file:
            return file.read().strip() == "Y"
    except FileNotFoundError:
        return False


needs_apparmor = pytest.mark.skipif(
    not enabled() or shutil.which("apparmor_parser") is None,
    reason="needs AppArmor in the kernel, and apparmor_parser",
)


@pytest.fixture
def profile(workdir, host_mount):
    """A loaded profile that denies one file."""
    if not os.path.isdir(f"{SECURITYFS}/apparmor"):
        host_mount("-t", "securityfs", "none", SECURITYFS)
    path = os.path.join(workdir, "profile")
    with open(path, "w") as file:
        file.write(TEXT)
    subprocess.run(["apparmor_parser", "-r", "-K", path], check=True, timeout=60)
    yield PROFILE
    subprocess.run(["apparmor_parser", "-R", "-K", path], check=True, timeout=60)


@needs_apparmor
def test_the_program_is_confined(runtime, bundle, profile):
    script = "cat /proc/self/attr/current; cat /etc/secret || echo denied"
    b = bundle.sh(script, process={"apparmorProfile": profile})
    b.put("/etc/secret", "not for you")
    assert runtime.prints(b) == f"{profile} (enforce)\ndenied"


@needs_apparmor
def test_a_profile_that_is_not_loaded_is_refused(runtime, bundle):
    b = bundle("true", process={"apparmorProfile": "ocirt-no-such-profile"})
    runtime.refuses_to_create(b, ours="process.apparmorProfile")


@pytest.mark.skipif(enabled(), reason="needs a kernel without AppArmor")
@only_ocirt("crun goes on without the protection")
def test_a_profile_that_nobody_would_enforce_is_refused(runtime, bundle):
    b = bundle("true", process={"apparmorProfile": PROFILE})
    runtime.refuses_to_create(b, ours="apparmor not supported")
