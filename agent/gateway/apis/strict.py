"""The ground of every request's schema: closed to unknown fields, and bounded in size.

A request is read in the event loop, so how long that takes is bounded: sizes are looked at before
what is in them, and the first thing wrong in a list ends it.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_FIELDS = 64
"""Most fields of one object: more than any has here."""
MAX_JSON_DEPTH = 32
"""Deepest nesting of a client's JSON; of a schema, an engine's compiler recurses into it."""
MAX_JSON_ITEMS = 4096
"""Most values in one."""


class Strict(BaseModel):
    """A part of a request: closed to unknown fields, types taken as they are."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, fields: object) -> object:
        """Each unknown field is an error of its own, so many of them are one."""
        if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
            raise PydanticCustomError(
                "too_many_fields",
                "An object has {count} fields, more than any here. Leave out what is not of the "
                "OpenAI API.",
                {"count": len(fields)},
            )
        return fields


def rejected_with(reason: str) -> BeforeValidator:
    """For a field that is taken where it asks for nothing, and else refused with the reason."""

    def check(value: object) -> object:
        if value:
            raise PydanticCustomError("not_served", "{reason}", {"reason": reason})
        return value

    return BeforeValidator(check)


def as_text_list(texts: object) -> object:
    """One text as a list of one; token ids are refused."""
    if isinstance(texts, str):
        return [texts]
    first = texts[0] if isinstance(texts, list) and texts else ""
    if isinstance(first, (int, list)):
        raise PydanticCustomError(
            "text_only",
            "Texts are served, no token ids: those of another model mean nothing to this one "
            "(LangChain's embeddings: check_embedding_ctx_length=False).",
        )
    return texts


def _bounded_json(value: object) -> object:
    """Refuse JSON that is deeper or has more in it than anything here."""
    all_values(value)
    return value


def all_values(value: object) -> list[object]:
    """Every value in one, itself first, level by level.

    Raises:
        PydanticCustomError: It is deeper, or has more in it, than anything here.
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
        "This may be nested {depth} deep and have {items} values. Simplify it.",
        {"depth": MAX_JSON_DEPTH, "items": MAX_JSON_ITEMS},
    )


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


Text = Annotated[str, Field(min_length=1)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_bounded_json)]
JsonObjects = Annotated[list[JsonObject], Field(fail_fast=True, max_length=256)]
