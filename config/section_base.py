"""The base class of all sections of the configuration."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Section(BaseModel):
    """A part of the tree: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ADVANCED: ClassVar[frozenset[str]] = frozenset()
    """Settings that few installations change: marked in the schema and in `default.toml`."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the section's JSON schema with `"x-advanced": true` on advanced settings."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name in cls.ADVANCED:
            schema["properties"][name]["x-advanced"] = True
        return schema
