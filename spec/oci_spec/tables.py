"""Write the tables of the fast check: what the models say, as plain Python literals.

    python3 -m oci_spec.tables > ocirt/_generated_shape.py
    python3 -m oci_spec.tables cdi > hooks/ocirt_hpc/_generated_shape.py

A model becomes a pair (fields, required): a dict from the JSON name to a rule, and the names
that must be there.  A rule is (kind, nullable, detail): the Python class of the parsed value,
whether `null` counts as absent, and

    int    (least, greatest)
    str    None, or (name of the list, the allowed strings)
    bool   None
    list   the rule of each item
    dict   a pair as above; or the rule of each value; or None: anything
"""

from __future__ import annotations

import sys
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from oci_spec import names
from oci_spec.cdi import Spec
from oci_spec.config import Config

LISTS = {value: name for name, value in vars(names).items() if get_origin(value) is Literal}

INTEGERS = {
    (-(2**31), 2**31 - 1): "INT32",
    (-(2**63), 2**63 - 1): "INT64",
    (0, 2**16 - 1): "UINT16",
    (1, 2**32 - 1): "POSITIVE_UINT32",
    (0, 2**32 - 1): "UINT32",
    (0, 2**64 - 1): "UINT64",
}


def constant(name: str) -> str:
    """SeccompArch -> SECCOMP_ARCH, CPUAffinity -> CPU_AFFINITY."""
    text = ""
    for index, letter in enumerate(name):
        after = name[index + 1 : index + 2]
        if index and letter.isupper() and (name[index - 1].islower() or after.islower()):
            text += "_"
        text += letter.upper()
    return text


class Tables:
    """Collects the definitions in the order in which they must stand."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.done: set[str] = set()

    def define(self, name: str, value: str) -> str:
        if name not in self.done:
            self.done.add(name)
            self.text.append(f"{name} = {value}\n")
        return name

    def rule(self, annotation: Any, metadata: list[Any]) -> str:
        """Return the text of the rule for a type."""
        nullable = False
        if get_origin(annotation) in (Union, UnionType):
            inner = [one for one in get_args(annotation) if one is not NoneType]
            assert len(inner) == 1, annotation
            nullable, annotation = True, inner[0]
        if get_origin(annotation) is Annotated:
            annotation, *extra = get_args(annotation)
            for one in extra:
                metadata = [*metadata, *getattr(one, "metadata", [one])]
        kind, detail = self.detail(annotation, metadata)
        return f"({kind}, {nullable}, {detail})"

    def detail(self, annotation: Any, metadata: list[Any]) -> tuple[str, str]:
        origin, args = get_origin(annotation), get_args(annotation)
        if annotation in (str, bool):
            return annotation.__name__, "None"
        if annotation is int:
            least = max(one.ge for one in metadata if hasattr(one, "ge"))
            most = min(one.le for one in metadata if hasattr(one, "le"))
            return "int", self.define(INTEGERS[least, most], f"({least}, {most})")
        if origin is Literal:
            name = LISTS[annotation]
            items = "".join(f"\n        {_quote(item)}," for item in args)
            return "str", self.define(
                constant(name), f'(\n    "{name}",\n    frozenset(({items}\n    )),\n)'
            )
        if origin is list:
            return "list", self.rule(args[0], [])
        if origin is dict:
            return "dict", "None" if args[1] is Any else self.rule(args[1], [])
        if issubclass(annotation, BaseModel):
            return "dict", self.model(annotation)
        raise TypeError(f"no rule for {annotation}")

    def model(self, model: type[BaseModel]) -> str:
        fields, required = "", ""
        for attribute, field in model.model_fields.items():
            name = _quote(field.alias or attribute)
            fields += f"\n        {name}: {self.rule(field.annotation, field.metadata)},"
            if field.is_required():
                required += f"{name}, "
        text = f"(\n    {{{fields}\n    }},\n    ({required.rstrip(' ')}),\n)"
        return self.define(constant(model.__name__), text)


def _quote(text: str) -> str:
    assert '"' not in text
    return f'"{text}"'


DOCUMENTS: dict[str, type[BaseModel]] = {"": Config, "cdi": Spec}


def text(document: str = "") -> str:
    """Return the text of a _generated_shape.py: of ocirt, or (`cdi`) of ocirt_hpc."""
    words = f" {document}".rstrip()
    tables = Tables()
    tables.model(DOCUMENTS[document])
    return (
        f'"""Generated from the models by `python3 -m oci_spec.tables{words}`; never edited.\n\n'
        "What the tables mean is written in oci_spec/tables.py; ocirt/shape.py walks them.\n"
        '"""\n\n# fmt: off\n' + "".join(tables.text)
    )


if __name__ == "__main__":
    sys.stdout.write(text(*sys.argv[1:]))
