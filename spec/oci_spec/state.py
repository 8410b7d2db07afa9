"""The state of a container, and what a seccomp listener receives.

runtime-spec 1.3, runtime.md, "State"; config-linux.md, "The Container Process State".
"""

from __future__ import annotations

from pydantic import Field

from oci_spec.base import Document, Maybe, Pid, StringMap, Strings


class State(Document):
    """What `state` prints and what hooks read from standard input (runtime.md, "State")."""

    oci_version: str = Field(
        alias="ociVersion", description="Version of the specification, SemVer 2.0.0."
    )
    id: str = Field(description="The container's id, unique on the host.")
    status: str = Field(
        description="creating, created, running or stopped; a runtime may define more (paused)."
    )
    pid: Pid = Field(
        default=0,
        description="The container's process, in the runtime's pid namespace; required while "
        "created or running.",
    )
    bundle: str = Field(description="Absolute path of the bundle.")
    annotations: Maybe[StringMap] = Field(
        default=None, description="The annotations of the config."
    )


class ContainerProcessState(Document):
    """What goes to linux.seccomp.listenerPath, along with the descriptors."""

    oci_version: str = Field(
        alias="ociVersion", description="Version of the specification, SemVer 2.0.0."
    )
    fds: Maybe[Strings] = Field(
        default=None, description="Names of the descriptors, in their order: seccompFd."
    )
    pid: Pid = Field(description="The process, in the runtime's pid namespace.")
    metadata: str = Field(default="", description="linux.seccomp.listenerMetadata.")
    state: State = Field(description="State of the container.")
