"""The ground of every request's schema: closed to unknown fields, and bounded in size.

A request is read in the event loop, so how long that takes is bounded: sizes are looked at before
what is in them, and the first thing wrong in a list ends it.
"""

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

MAX_FIELDS = 64
"""Most fields of one object: more than any has here."""
MAX_JSON_DEPTH = 32
"""Deepest nesting of a client's JSON; of a schema, an engine's compiler recurses into it."""
MAX_JSON_ITEMS = 4096
"""Most values in one."""
MAX_SCHEMA_CHARS = 2**17
"""Of all names and texts in a schema."""
MAX_REPEATED = 2**16
"""How often a part of what is generated may have to be repeated: a grammar unrolls that."""
MAX_BRACES = 64
REPEATED = re.compile(r"\{(?:\d{1,9},)?(\d{1,9})")
"""How often at most, as a pattern says it: `{3}`, `{3,`, `{3,9}`."""
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


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


def _bounded_json(value: object) -> object:
    """Refuse JSON that is deeper or has more in it than anything here."""
    _nodes(value)
    return value


def _nodes(value: object) -> list[object]:
    """Every value in one, itself first, level by level."""
    nodes, seen = [value], 0
    for _ in range(MAX_JSON_DEPTH):
        level, seen = nodes[seen:], len(nodes)
        nodes += [child for node in level for child in _children(node)]
        if len(nodes) == seen:
            return nodes
        if len(nodes) > MAX_JSON_ITEMS:
            break
    raise PydanticCustomError(
        "json_size",
        "This may be nested {depth} deep and have {items} values. Simplify it.",
        {"depth": MAX_JSON_DEPTH, "items": MAX_JSON_ITEMS},
    )


def _bounded_schema(value: object) -> object:
    """Refuse a JSON schema that is larger than an engine should be asked to compile."""
    nodes = _nodes(value)
    if sum(map(_chars, nodes)) <= MAX_SCHEMA_CHARS and not any(map(_repeats_much, nodes)):
        return value
    raise PydanticCustomError(
        "schema_size",
        "A JSON schema may have {chars} characters, and no part may be repeated more than "
        "{repeated} times. Simplify it.",
        {"chars": MAX_SCHEMA_CHARS, "repeated": MAX_REPEATED},
    )


def _chars(node: object) -> int:
    if isinstance(node, dict):
        return sum(map(len, node))
    return len(node) if isinstance(node, str) else 0


def _repeats_much(node: object) -> bool:
    """Whether a schema's counts, or those in braces of its pattern, make it large."""
    if not isinstance(node, dict):
        return False
    counts = [node[name] for name in COUNTS if isinstance(node.get(name), int)]
    pattern = node.get("pattern")
    braced = REPEATED.findall(pattern) if isinstance(pattern, str) else []
    repeated = math.prod(int(count) for count in braced[:MAX_BRACES])
    return len(braced) > MAX_BRACES or max([repeated, *counts]) > MAX_REPEATED


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


JsonObject = Annotated[dict[str, Any], BeforeValidator(_bounded_json)]
JsonSchema = Annotated[dict[str, Any], BeforeValidator(_bounded_schema)]
