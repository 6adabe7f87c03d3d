"""The base of every request schema: strict types, no unknown fields, bounded size.

Requests are validated in the event loop, so the time is bounded: sizes are checked before contents,
and the validation of a list stops at its first error.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_FIELDS = 64
"""Fields of one object; every schema has fewer."""
MAX_JSON_DEPTH = 32
"""Nesting of a client's JSON; the engine's grammar compiler recurses into schemas."""
MAX_JSON_ITEMS = 4096
"""Values in a client's JSON object."""


class Strict(BaseModel):
    """A part of a request: no unknown fields, no type coercion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, fields: object) -> object:
        """Reject too many fields with one error; pydantic would report each unknown one."""
        if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
            raise PydanticCustomError(
                "too_many_fields",
                "An object has {count} fields; the limit is {limit}. Omit those that the API does "
                "not define.",
                {"count": len(fields), "limit": MAX_FIELDS},
            )
        return fields


def rejected_with(reason: str) -> BeforeValidator:
    """Return a validator that accepts empty values and rejects others with the reason."""

    def check(value: object) -> object:
        if value:
            raise PydanticCustomError("not_served", "{reason}", {"reason": reason})
        return value

    return BeforeValidator(check)


def as_text_list(texts: object) -> object:
    """Wrap a single text in a list; reject token ids."""
    if isinstance(texts, str):
        return [texts]
    first = texts[0] if isinstance(texts, list) and texts else ""
    if isinstance(first, (int, list)):
        raise PydanticCustomError(
            "text_only",
            "Only texts are supported, not token ids, which depend on the model (in LangChain's "
            "embeddings, set check_embedding_ctx_length=False).",
        )
    return texts


def _bounded_json(value: object) -> object:
    """Reject JSON that is nested too deeply or has too many values."""
    all_values(value)
    return value


def all_values(value: object) -> list[object]:
    """Return a value and all values inside it, level by level.

    Raises:
        PydanticCustomError: It is nested too deeply or has too many values.
    """
    found, seen = [value], 0
    for _ in range(MAX_JSON_DEPTH):
        level, seen = found[seen:], len(found)
        found += [child for node in level for child in _children(node)]
        if len(found) == seen:
            return found
        if len(found) > MAX_JSON_ITEMS:
            break
    raise PydanticCustomError(
        "json_size",
        "JSON may have at most {depth} levels of nesting and {items} values. Simplify it.",
        {"depth": MAX_JSON_DEPTH, "items": MAX_JSON_ITEMS},
    )


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


Text = Annotated[str, Field(min_length=1)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_bounded_json)]
JsonObjects = Annotated[list[JsonObject], Field(fail_fast=True, max_length=256)]
