"""What a field of config.json is for, in the words of its model."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel

from oci_spec.config import Config


def describe(place: str) -> str:
    """Return the description of the field at a place such as `process.rlimits[0].soft`.

    A place inside a list or a map of plain values is described by the field that holds it; an
    unknown one by nothing.
    """
    model: type[BaseModel] | None = Config
    text = ""
    for name in re.findall(r"[^.\[\]]+", place):
        if model is None or name.isdecimal():
            continue
        fields = {field.alias or key: field for key, field in model.model_fields.items()}
        if name not in fields:
            # The key of a map, or nothing we know.
            continue
        field = fields[name]
        text = field.description or ""
        model = _model(field.annotation)
    return text


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a type holds, alone or in a list or map."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model(inner)
        if found is not None:
            return found
    return None
