"""JSON Schema: what it says of a document is what the models say."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy

import pytest

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("pydantic")
from oci_spec import schema  # noqa: E402
from oci_spec.explain import describe  # noqa: E402

from tests.unit.documents import engine, put  # noqa: E402
from tests.unit.spec.test_cdi import spec as cdi_spec  # noqa: E402
from tests.unit.spec.test_state_features import FEATURES, STATE  # noqa: E402

DOCUMENTS = {
    "config": engine(),
    "state": STATE,
    "process-state": {"ociVersion": "1.3.0", "pid": 1, "state": STATE},
    "features": FEATURES,
    "cdi": cdi_spec(),
}


def test_every_document_has_a_schema():
    assert DOCUMENTS.keys() == schema.DOCUMENTS.keys()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_good_document_keeps_its_schema(name):
    found = schema.schema(name)
    validator = jsonschema.validators.validator_for(found)
    validator.check_schema(found)
    validator(found).validate(DOCUMENTS[name])
    assert found["description"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("ociVersion", ...),
        ("process.user.uid", 2**32),
        ("process.noNewPrivileges", "false"),
        ("process.rlimits[0].type", "RLIMIT_FOO"),
        ("linux.resources.hugepageLimits[0].pageSize", "64kB"),
        ("linux.namespaces[0].type", "foo"),
    ],
)
def test_a_broken_config_breaks_its_schema(place, value):
    document = deepcopy(DOCUMENTS["config"])
    put(document, place, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema.schema())


def test_the_schema_can_be_printed(capsys):
    assert schema.main([]) == 0
    assert json.loads(capsys.readouterr().out) == schema.schema("config")
    assert schema.main(["state"]) == 0
    assert schema.main(["nothing"]) == 1
    assert "usage:" in capsys.readouterr().err


def test_modules_print_what_they_say():
    for module, start in (("oci_spec.schema", "{"), ("oci_spec.tables", '"""Generated')):
        line = [sys.executable, "-m", module]
        done = subprocess.run(
            line, env={"PYTHONPATH": "spec"}, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.startswith(start)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("process.user.uid", "User id."),
        ("process.args[1]", "The program and its arguments; needed by start."),
        ("linux.resources.rdma.mlx5_0.hcaHandles", "Largest number of HCA handles."),
        ("linux.seccomp.syscalls[3].args[0].op", "How it is compared."),
        ("nothing", ""),
    ],
)
def test_a_place_is_explained(place, text):
    assert describe(place) == text
