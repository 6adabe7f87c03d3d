"""Estimate the cost of compiling a JSON schema to a grammar, which blocks the engine.

The engine's other requests wait while it compiles a grammar, so the schemas of a request have a
common limit. A cost unit is about 0.3 ms. The costs were measured with xgrammar 0.2.8 on a busy
Zen 4 core, with a vocabulary of 20,000:

- A wildcard that matches nearly any character takes 5 ms; a literal character, almost nothing.
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
MAX_COUNT = 2**16
"""The largest value of a counting keyword, such as `maxLength`."""
COUNT_KEYWORDS = (
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
)
RANGE_KEYWORDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
NUMERIC_RANGE_COST = 64
WILDCARD_COST = 16
"""Cost of an atom that matches nearly any character, such as `.` or `[^x]`."""
QUANTIFIER_COST = 16
"""Cost of `?`, `*` or `+`."""
EXPANSION_COST = 8
"""Cost of each atom that a repetition count adds."""
DEFAULT_FORMAT_COST = 32
FORMAT_COSTS = {"email": 128, "uri": 256, "uri-reference": 256, "uri-template": 512}
OPTIONAL_PROPERTIES_DIVISOR = 8
"""The squared number of optional properties is divided by this."""

TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]?|\{(?P<counts>[\d\s,]*)\}?|.", re.DOTALL)
"""The tokens of a pattern: an atom, or a repetition count (`{3}`, `{3,`, `{ 3, 9 }`)."""
WILDCARD = re.compile(r"\.$|\[\^|.*\\[wWSD]", re.DOTALL)
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
            "characters, counts up to {max_count}, and few long patterns, wide ranges, formats and "
            "optional properties. Simplify it; to limit a length, use maxLength, not a pattern.",
            {"chars": MAX_CHARS, "max_count": MAX_COUNT},
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
    # Stacks: number of atoms and cost of the whole pattern, then of each open group.
    atoms, costs = [0], [0]
    last = (0, 0)  # atoms and cost of the last atom or group, which a quantifier repeats
    atoms_in_pattern = 0  # before repetition counts are expanded
    for token in TOKEN.finditer(pattern):
        text = token[0]
        if text == "(":
            atoms.append(0)
            costs.append(0)
            continue
        if text in "?*+":  # `last` stays: a count that follows repeats the same atom
            costs[-1] += QUANTIFIER_COST
            continue
        if token["counts"] is not None:
            copies = max(1, *map(_number, re.findall(r"\d+", token["counts"])), 1) - 1
            added = last[0] * copies, last[1] * copies
            last = last[0] + added[0], last[1] + added[1]
        elif text == ")" and len(atoms) > 1:
            added = last = atoms.pop(), costs.pop()
        else:
            added = last = 1, WILDCARD_COST if WILDCARD.match(text) else 1
            atoms_in_pattern += 1
        atoms[-1] += added[0]
        costs[-1] += added[1]
        if costs[-1] > MAX_COST_UNITS:  # stop early: adding up very large counts is slow
            return costs[-1]
    return sum(costs) + EXPANSION_COST * (sum(atoms) - atoms_in_pattern)


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
    counts = [node.get(name) for name in COUNT_KEYWORDS]
    return any(isinstance(count, (int, float)) and count > MAX_COUNT for count in counts)


def _node_cost(node: dict[str, Any]) -> int:
    """Return the cost of one schema object, without its patterns and nested schemas."""
    ranges = (
        NUMERIC_RANGE_COST
        if any(isinstance(node.get(name), (int, float)) for name in RANGE_KEYWORDS)
        else 0
    )
    name = node.get("format")
    formats = FORMAT_COSTS.get(name, DEFAULT_FORMAT_COST) if isinstance(name, str) else 0
    properties, required = node.get("properties"), node.get("required")
    count = len(properties) if isinstance(properties, dict) else 0
    optional = max(0, count - (len(required) if isinstance(required, list) else 0))
    return ranges + formats + optional**2 // OPTIONAL_PROPERTIES_DIVISOR


def _check_cost(schema: object) -> object:
    if isinstance(schema, dict):
        check_grammar_cost([schema])
    return schema


JsonSchema = Annotated[dict[str, Any], BeforeValidator(_check_cost)]
