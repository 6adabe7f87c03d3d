"""The ground of every request's schema: closed to unknown fields, and bounded in size.

A request is read in the event loop, so how long that takes is bounded: sizes are looked at before
what is in them, and the first thing wrong in a list ends it.
"""

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
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
"""How often a part of what is generated may have to be repeated."""
MAX_UNROLLED = 512
"""How often all parts of patterns together: a grammar unrolls them, in time as its square, which
is a fifth of a second with xgrammar 0.2.8 for so many and minutes for a few thousand."""
MAX_BRACES = 64
BRACES = re.compile(r"\{([\d\s,]*)")
"""How often, as a pattern says it: `{3}`, `{3,`, `{ 3, 9 }`."""
MAX_DIGITS = 9
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
    is_small = sum(map(_chars, nodes)) <= MAX_SCHEMA_CHARS
    if (
        is_small
        and not any(map(_repeats_much, nodes))
        and sum(map(_unrolled, nodes)) <= MAX_UNROLLED
    ):
        return value
    raise PydanticCustomError(
        "schema_size",
        "A JSON schema may have {chars} characters, counts up to {repeated}, and in its patterns "
        "{unrolled} repetitions in all. Simplify it: a length may be said by maxLength.",
        {"chars": MAX_SCHEMA_CHARS, "repeated": MAX_REPEATED, "unrolled": MAX_UNROLLED},
    )


def _chars(node: object) -> int:
    if isinstance(node, dict):
        return sum(map(len, node))
    return len(node) if isinstance(node, str) else 0


def _repeats_much(node: object) -> bool:
    """Whether a schema's counts make it large."""
    counts = [node.get(name) for name in COUNTS] if isinstance(node, dict) else []
    return any(isinstance(count, (int, float)) and count > MAX_REPEATED for count in counts)


def _unrolled(node: object) -> int:
    """How many repetitions a schema's own patterns have."""
    if not isinstance(node, dict):
        return 0
    named = node.get("patternProperties")
    patterns = [node.get("pattern"), *(named if isinstance(named, dict) else ())]
    return sum(_repetitions(pattern) for pattern in patterns if isinstance(pattern, str))


def _repetitions(pattern: str) -> int:
    """How often a part of a pattern is repeated, were all its braces around each other."""
    braced = BRACES.findall(pattern)
    if not braced:
        return 0
    if len(braced) > MAX_BRACES:
        return MAX_UNROLLED + 1
    each = (max(map(_number, re.findall(r"\d+", inside)), default=1) for inside in braced)
    return math.prod(max(1, times) for times in each)


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or 0) if len(significant) <= MAX_DIGITS else MAX_UNROLLED + 1


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


JsonObject = Annotated[dict[str, Any], BeforeValidator(_bounded_json)]
JsonObjects = Annotated[list[JsonObject], Field(fail_fast=True, max_length=256)]
JsonSchema = Annotated[dict[str, Any], BeforeValidator(_bounded_schema)]
