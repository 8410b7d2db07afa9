"""The models of config.json: strict, documented, and the same document out as in."""

from __future__ import annotations

import json
from typing import get_args

import pytest

pydantic = pytest.importorskip("pydantic")
from oci_spec import cdi, config, features, linux, names, state  # noqa: E402
from oci_spec.config import Config, Process, User  # noqa: E402
from oci_spec.linux import IDMapping, Linux, Namespace  # noqa: E402

from tests.unit.documents import engine  # noqa: E402

MODELS = sorted(
    {
        model
        for module in (config, linux, state, features, cdi)
        for model in vars(module).values()
        if isinstance(model, type)
        and issubclass(model, pydantic.BaseModel)
        and model.__module__ == module.__name__
    },
    key=lambda model: (model.__module__, model.__name__),
)


def test_a_document_comes_out_as_it_went_in():
    assert Config.parse(engine()).document() == engine()
    assert Config.parse_json(json.dumps(engine())).document() == engine()


def test_python_builds_it_with_the_names_of_python():
    built = Config(
        oci_version="1.3.0",
        process=Process(cwd="/", user=User(uid=1), no_new_privileges=True),
        linux=Linux(
            uid_mappings=[IDMapping(container_id=0, host_id=1000, size=1)],
            namespaces=[Namespace(type="user")],
        ),
    )
    document = {
        "ociVersion": "1.3.0",
        "process": {"cwd": "/", "user": {"uid": 1}, "noNewPrivileges": True},
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "namespaces": [{"type": "user"}],
        },
    }
    assert built.document() == document
    assert Config.parse(document) == built


def test_the_names_of_python_mean_nothing_in_json():
    with pytest.raises(pydantic.ValidationError, match="ociVersion"):
        Config.parse({"oci_version": "1.3.0"})
    parsed = Config.parse({"ociVersion": "1.3.0", "process": {"cwd": "/", "no_new_privileges": 1}})
    assert parsed.process.no_new_privileges is False


def test_every_fault_is_found_with_its_place():
    broken = {
        "process": {"cwd": 1, "user": {"uid": "0"}},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "foo"}]},
    }
    with pytest.raises(pydantic.ValidationError) as caught:
        Config.parse(broken)
    assert {one["loc"] for one in caught.value.errors()} == {
        ("ociVersion",),
        ("process", "cwd"),
        ("process", "user", "uid"),
        ("linux", "namespaces", 1, "type"),
    }


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_a_model_is_documented_field_by_field(model):
    assert model.__doc__
    assert model.__doc__ != pydantic.BaseModel.__doc__
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description.strip().endswith((".", "..."))
        spelling = field.alias or name
        assert "_" not in spelling
        assert spelling == name or field.alias, "names of several words need their alias"


def test_an_alias_is_written_down_wherever_python_and_json_differ():
    for model in MODELS:
        for name, field in model.model_fields.items():
            assert ("_" in name) == (field.alias is not None) or name == "version", (model, name)


def test_closed_lists_have_no_double():
    for name, value in vars(names).items():
        if name[0].isupper() and (items := get_args(value)):
            assert len(set(items)) == len(items), name
