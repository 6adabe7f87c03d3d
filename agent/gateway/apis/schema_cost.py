"""Estimate the cost of compiling a JSON schema to a grammar, which blocks the engine.

The engine's other requests wait while it compiles a grammar, so the schemas of a request have a
common limit. A cost unit is about 0.3 ms. The costs were measured with xgrammar 0.2.8 on a busy
Zen 4 core, with a vocabulary of 20,000:

- A wildcard that matches nearly any character takes 5 ms; a literal character takes nothing.
- A repetition count (`{n}`) takes the square of the expanded length.
- Optional properties take the square of their number.
- A URI format takes 80 ms, a numeric range 24 ms.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from agent.gateway.apis.strict import all_values

MAX_COST_UNITS = 2**13
MAX_CHARS = 2**17
"""Characters of all names and strings in a schema."""
MAX_PATTERN_CHARS = 2**12
"""Characters of all patterns in a schema."""
MAX_REPEATED = 2**16
"""The largest value of a counting keyword, such as `maxLength`."""
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
RANGES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
RANGE, WIDE, OPTIONAL, GROWN = 64, 16, 16, 8
FORMAT, FORMATS = 32, {"email": 128, "uri": 256, "uri-reference": 256, "uri-template": 512}
OPTIONAL_PROPERTIES = 8
"""The divisor of the squared number of optional properties."""

TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]?|\{(?P<counts>[\d\s,]*)\}?|.", re.DOTALL)
"""The tokens of a pattern: an atom, or a repetition count (`{3}`, `{3,`, `{ 3, 9 }`)."""
WIDE_ATOM = re.compile(r"\.$|\[\^|.*\\[wWSD]", re.DOTALL)
MAX_DIGITS = 9


def check_grammar_cost(schemas: Iterable[dict[str, Any] | None]) -> None:
    """Check the total cost of a request's schemas.

    Raises:
        PydanticCustomError: The cost exceeds `MAX_COST_UNITS`.
    """
    if sum(schema_cost(schema) for schema in schemas if schema) > MAX_COST_UNITS:
        raise PydanticCustomError(
            "schema_size",
            "The engine would take too long to compile this schema. A schema may have {chars} "
            "characters, counts up to {repeated}, and few long patterns, wide ranges, formats and "
            "optional properties. Simplify it; to limit a length, use maxLength, not a pattern.",
            {"chars": MAX_CHARS, "repeated": MAX_REPEATED},
        )


def schema_cost(schema: dict[str, Any]) -> int:
    """Return the cost of a schema; more than `MAX_COST_UNITS` without a scan if it is too large.

    Raises:
        PydanticCustomError: It is nested too deeply or has too many values.
    """
    all_nodes = all_values(schema)
    objects = [node for node in all_nodes if isinstance(node, dict)]
    patterns = [pattern for node in objects for pattern in _patterns(node)]
    if (
        sum(map(_chars, all_nodes)) > MAX_CHARS
        or sum(map(len, patterns)) > MAX_PATTERN_CHARS
        or any(map(_has_large_count, objects))
    ):
        return MAX_COST_UNITS + 1
    return sum(map(_node_cost, objects)) + sum(map(pattern_cost, patterns))


def pattern_cost(pattern: str) -> int:
    """Return the cost of a pattern."""
    atoms, costs, last, written = [0], [0], (0, 0), 0
    """Atoms and costs of the pattern and its open groups, of the last atom; atoms as written."""
    for token in TOKEN.finditer(pattern):
        text = token[0]
        if text == "(":
            atoms.append(0)
            costs.append(0)
            continue
        if text in "?*+":  # a count that follows repeats the same atom
            costs[-1] += OPTIONAL
            continue
        if token["counts"] is not None:
            more = max(1, *map(_number, re.findall(r"\d+", token["counts"])), 1) - 1
            added = last[0] * more, last[1] * more
            last = last[0] + added[0], last[1] + added[1]
        elif text == ")" and len(atoms) > 1:
            added = last = atoms.pop(), costs.pop()
        else:
            added = last = 1, WIDE if WIDE_ATOM.match(text) else 1
            written += 1
        atoms[-1] += added[0]
        costs[-1] += added[1]
        if costs[-1] > MAX_COST_UNITS:  # stop: very long counts are slow to add up
            return costs[-1]
    return sum(costs) + GROWN * (sum(atoms) - written)


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or 0) if len(significant) <= MAX_DIGITS else MAX_COST_UNITS + 1


def _patterns(node: dict[str, Any]) -> list[str]:
    named = node.get("patternProperties")
    patterns = [node.get("pattern"), *(named if isinstance(named, dict) else ())]
    return [pattern for pattern in patterns if isinstance(pattern, str)]


def _chars(node: object) -> int:
    if isinstance(node, dict):
        return sum(map(len, node))
    return len(node) if isinstance(node, str) else 0


def _has_large_count(node: dict[str, Any]) -> bool:
    """Return whether a counting keyword exceeds its limit."""
    counts = [node.get(name) for name in COUNTS]
    return any(isinstance(count, (int, float)) and count > MAX_REPEATED for count in counts)


def _node_cost(node: dict[str, Any]) -> int:
    """Return the cost of one schema object, without its patterns and nested schemas."""
    ranges = RANGE if any(isinstance(node.get(name), (int, float)) for name in RANGES) else 0
    form = node.get("format")
    formats = FORMATS.get(form, FORMAT) if isinstance(form, str) else 0
    properties, required = node.get("properties"), node.get("required")
    count = len(properties) if isinstance(properties, dict) else 0
    optional = max(0, count - (len(required) if isinstance(required, list) else 0))
    return ranges + formats + optional**2 // OPTIONAL_PROPERTIES


def _within_cost(schema: object) -> object:
    if isinstance(schema, dict):
        check_grammar_cost([schema])
    return schema


JsonSchema = Annotated[dict[str, Any], BeforeValidator(_within_cost)]
