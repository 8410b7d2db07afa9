"""The documents of the Open Container Initiative runtime, as pydantic models.

    oci_spec.config    config.json; its linux section: oci_spec.linux
    oci_spec.state     what `state` prints, and what a seccomp listener receives
    oci_spec.features  what `features` prints
    oci_spec.cdi       Container Device Interface files
    oci_spec.names     the closed lists of names
    oci_spec.schema    JSON Schema: `python3 -m oci_spec.schema config`
    oci_spec.tables    tables for a check without pydantic

Follows runtime-spec 1.3.0 and CDI 1.1.0.  Nothing is imported here: ask for the module.
"""

VERSION = "1.3.0"
