"""The ground of every request's schema: closed to unknown fields, and bounded in size.

A request is read in the event loop, so how long that takes is bounded: sizes are looked at before
what is in them, and the first thing wrong in a list ends it.
"""

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
"""By how many characters all patterns together may grow once their counts are written out. A
grammar is, in time as its square: xgrammar 0.2.8 takes half a second for `.{1,1024}`, and half a
minute for 20 times `(ab){3000}`."""
TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{(?P<counts>[\d\s,]*)\}?|.", re.DOTALL)
"""Of a pattern: what a count would repeat, and a count: `{3}`, `{3,`, `{ 3, 9 }`."""
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


def unserved(reason: str) -> BeforeValidator:
    """For a field that is taken where it asks for nothing, and else refused with the reason."""

    def check(value: object) -> object:
        if value:
            raise PydanticCustomError("not_served", "{reason}", {"reason": reason})
        return value

    return BeforeValidator(check)


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
    counts_little = is_small and not any(map(_repeats_much, nodes))
    if counts_little and sum(map(_unrolled, nodes)) <= MAX_UNROLLED:
        return value
    raise PydanticCustomError(
        "schema_size",
        "A JSON schema may have {chars} characters, counts up to {repeated}, and patterns that "
        "grow by {unrolled} when written out. Simplify it: maxLength may say a length.",
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
    """By how much a schema's own patterns grow."""
    if not isinstance(node, dict):
        return 0
    named = node.get("patternProperties")
    patterns = [node.get("pattern"), *(named if isinstance(named, dict) else ())]
    return sum(_repetitions(pattern) for pattern in patterns if isinstance(pattern, str))


def _repetitions(pattern: str) -> int:
    """By how many atoms a pattern is longer once all that it counts in braces is written out."""
    sizes, last = [0], 0
    """Of the pattern and the groups that are open, and what a count would repeat."""
    for token in TOKEN.finditer(pattern):
        if token["counts"] is not None:
            times = max(map(_number, re.findall(r"\d+", token["counts"])), default=1)
            sizes[-1] += last * (max(1, times) - 1)
            last *= max(1, times)
        elif token[0] == "(":
            sizes.append(0)
        elif token[0] == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        else:
            sizes[-1], last = sizes[-1] + 1, 1
    return max(0, sum(sizes) - len(pattern))


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
