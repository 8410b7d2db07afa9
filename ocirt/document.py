"""The state document of the runtime specification, as hooks read it.

runtime-spec, runtime.md, "State".
"""

from __future__ import annotations

from ocirt.jsonio import dumps

SPEC_VERSION = "1.3.0"


def around_pid(
    container_id: str, status: str, bundle: str, annotations: dict[str, str] | None
) -> tuple[str, str]:
    """Return the state JSON in two parts; the pid as the reader sees it goes between them."""
    before = (
        f'{{"ociVersion":"{SPEC_VERSION}","id":{dumps(container_id)},"status":"{status}","pid":'
    )
    after = f',"bundle":{dumps(bundle)}'
    if annotations:
        after += f',"annotations":{dumps(annotations)}'
    return before, after + "}"
