"""Print the JSON Schema of a document.

python3 -m oci_spec.schema [config|state|process-state|features|cdi]
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from oci_spec.cdi import Spec
from oci_spec.config import Config
from oci_spec.features import Features
from oci_spec.state import ContainerProcessState, State

if TYPE_CHECKING:
    from oci_spec.base import Document

DOCUMENTS: dict[str, type[Document]] = {
    "config": Config,
    "state": State,
    "process-state": ContainerProcessState,
    "features": Features,
    "cdi": Spec,
}


def schema(name: str = "config") -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a document."""
    found = DOCUMENTS[name].model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def main(arguments: list[str]) -> int:
    """Print the schema that the command line asks for."""
    name = arguments[0] if arguments else "config"
    if len(arguments) > 1 or name not in DOCUMENTS:
        sys.stderr.write(f"usage: python3 -m oci_spec.schema [{'|'.join(DOCUMENTS)}]\n")
        return 1
    sys.stdout.write(json.dumps(schema(name), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
