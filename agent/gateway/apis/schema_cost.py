"""What a JSON schema costs an engine to make a grammar of, while all its other requests wait.

Measured with xgrammar 0.2.8 on a core of Zen 4 that was in use, with a vocabulary of 20,000: a
place where nearly any character may stand takes 5 ms and a plain one none, but parts that are
counted in braces take the square of what they are when written out, and so do the properties of an
object that may be left out; a URI takes 80 ms, a range of numbers 24. So each weighs what it takes,
a unit being about 0.3 ms, and the schemas of a request may weigh so much together.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from agent.gateway.apis.strict import all_values

MAX_COST_UNITS = 2**13
MAX_CHARS = 2**17
"""Of all names and texts in a schema."""
MAX_PATTERN_CHARS = 2**12
"""Of all patterns in one."""
MAX_REPEATED = 2**16
"""How often a part of what is generated may have to be repeated."""
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
RANGES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
RANGE, WIDE, OPTIONAL, GROWN = 64, 16, 16, 8
FORMAT, FORMATS = 32, {"email": 128, "uri": 256, "uri-reference": 256, "uri-template": 512}
OPTIONAL_PROPERTIES = 8
"""The square of their number, divided by it."""

TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]?|\{(?P<counts>[\d\s,]*)\}?|.", re.DOTALL)
"""Of a pattern: what a count would repeat, and a count: `{3}`, `{3,`, `{ 3, 9 }`."""
WIDE_ATOM = re.compile(r"\.$|\[\^|.*\\[wWSD]", re.DOTALL)
MAX_DIGITS = 9


def check_grammar_cost(schemas: Iterable[dict[str, Any] | None]) -> None:
    """Let pass what an engine can make grammars of in a moment.

    Raises:
        PydanticCustomError: The schemas of a request are more than that.
    """
    if sum(schema_cost(schema) for schema in schemas if schema) > MAX_COST_UNITS:
        raise PydanticCustomError(
            "schema_size",
            "The engine would take too long to make a grammar of this schema. A schema may have "
            "{chars} characters, counts up to {repeated}, and few long patterns, wide ranges, "
            "formats and optional properties. Simplify it: maxLength may say a length.",
            {"chars": MAX_CHARS, "repeated": MAX_REPEATED},
        )


def schema_cost(schema: dict[str, Any]) -> int:
    """What a schema takes; more than `MAX_COST_UNITS` if it is not even looked through.

    Raises:
        PydanticCustomError: It is too deep or has too many values.
    """
    all_nodes = all_values(schema)
    objects = [node for node in all_nodes if isinstance(node, dict)]
    patterns = [pattern for node in objects for pattern in _patterns(node)]
    if (
        sum(map(_chars, all_nodes)) > MAX_CHARS
        or sum(map(len, patterns)) > MAX_PATTERN_CHARS
        or any(map(_repeats_much, objects))
    ):
        return MAX_COST_UNITS + 1
    return sum(map(_weight, objects)) + sum(map(pattern_cost, patterns))


def pattern_cost(pattern: str) -> int:
    """What a pattern takes."""
    atoms, weights, last, written = [0], [0], (0, 0), 0
    """Of the pattern and the open groups; what a count would repeat; atoms as they stand."""
    for token in TOKEN.finditer(pattern):
        said = token[0]
        if said == "(":
            atoms.append(0)
            weights.append(0)
            continue
        if said in "?*+":  # a count behind it repeats the same
            weights[-1] += OPTIONAL
            continue
        if token["counts"] is not None:
            more = max(1, *map(_number, re.findall(r"\d+", token["counts"])), 1) - 1
            added = last[0] * more, last[1] * more
            last = last[0] + added[0], last[1] + added[1]
        elif said == ")" and len(atoms) > 1:
            added = last = atoms.pop(), weights.pop()
        else:
            added = last = 1, WIDE if WIDE_ATOM.match(said) else 1
            written += 1
        atoms[-1] += added[0]
        weights[-1] += added[1]
        if weights[-1] > MAX_COST_UNITS:  # numbers without end take long, too
            return weights[-1]
    return sum(weights) + GROWN * (sum(atoms) - written)


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


def _repeats_much(node: dict[str, Any]) -> bool:
    """Whether a schema's counts make it large."""
    counts = [node.get(name) for name in COUNTS]
    return any(isinstance(count, (int, float)) and count > MAX_REPEATED for count in counts)


def _weight(node: dict[str, Any]) -> int:
    """What a schema takes by itself, without its patterns and what is in it."""
    ranges = RANGE if any(isinstance(node.get(name), (int, float)) for name in RANGES) else 0
    form = node.get("format")
    formats = FORMATS.get(form, FORMAT) if isinstance(form, str) else 0
    properties, required = node.get("properties"), node.get("required")
    count = len(properties) if isinstance(properties, dict) else 0
    optional = max(0, count - (len(required) if isinstance(required, list) else 0))
    return ranges + formats + optional**2 // OPTIONAL_PROPERTIES


def _light(schema: object) -> object:
    if isinstance(schema, dict):
        check_grammar_cost([schema])
    return schema


JsonSchema = Annotated[dict[str, Any], BeforeValidator(_light)]
