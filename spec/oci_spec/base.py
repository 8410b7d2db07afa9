"""What every model of a document has in common, and the number types of the specification.

The models are strict in the way of the specification's Go structs: an integer is a JSON number
without fraction in the range of its Go type, never a string, a float or a boolean.  `null`
counts as absent where Go has a pointer, a list or a map (`Maybe`), and is an error elsewhere.
Unknown fields are ignored, as config.md, "Extensibility" demands.
"""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

Maybe: TypeAlias = T | None
"""A field that Go holds as pointer, list or map: `null` means the same as leaving it out."""

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Uint16 = Annotated[int, Field(ge=0, le=2**16 - 1)]
Uint32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
Uint64 = Annotated[int, Field(ge=0, le=2**64 - 1)]

Pid = Annotated[int, Field(ge=0, le=2**63 - 1)]

Strings = list[str]
StringMap = dict[str, str]
Anything = dict[str, Any]
"""An object whose fields we do not look into: the sections of other platforms."""


class Document(BaseModel):
    """An object of the specification.

    Python code builds it with the snake case names of the attributes; JSON has the spelling of
    the specification only.
    """

    model_config = ConfigDict(
        strict=True,
        extra="ignore",
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=False,
    )

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Check a parsed JSON document; raises pydantic.ValidationError with every fault."""
        return cls.model_validate(document, by_alias=True, by_name=False)

    @classmethod
    def parse_json(cls, text: str | bytes) -> Self:
        """Check a JSON text; raises pydantic.ValidationError with every fault."""
        return cls.model_validate_json(text, by_alias=True, by_name=False)

    def document(self) -> dict[str, Any]:
        """Return the JSON document again: the fields that were given, in the spec's spelling."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
