"""Reads a system prompt that is JSON: each leaf is a line, with the keys above it.

Objects in lists that contain no others are rows of a table.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from distill.context import tables
from distill.context.traced import Line, Traced

# A key, a leaf, or both; commas and brackets are between matches.
TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*"\s*:\s*)?(?P<leaf>"(?:[^"\\]|\\.)*"|[^\s{}\[\],:"]+)?'
)
Numbers = tuple[int, ...]


def leaves(lines: Sequence[Line]) -> list[Line] | None:
    """The leaves of a JSON object or list, in order; None if the lines are not JSON."""
    text = "\n".join(line.text.text for line in lines)
    try:
        value = json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
        if value is None:
            return None
        numbers = _leaf_numbers(text, lines)
        if sum(1 for _ in _scalars(value)) != len(numbers):  # a repeated key: the last one counts
            all_numbers = tuple(line.numbers[0] for line in lines)
            numbers = [all_numbers for _ in _scalars(value)]
        return list(_leaves(value, "", iter(numbers)))
    except (ValueError, RecursionError):
        return None


def _leaf_numbers(text: str, lines: Sequence[Line]) -> list[Numbers]:
    """For each leaf, the numbers of the lines from its key to its end."""
    starts = [0, *accumulate(len(line.text.text) + 1 for line in lines)]

    def index(offset: int) -> int:
        return bisect_right(starts, offset) - 1

    return [
        tuple(line.numbers[0] for line in lines[index(token.start()) : index(token.end() - 1) + 1])
        for token in TOKEN.finditer(text)
        if token["leaf"]
    ]


def _scalars(value: Any) -> Iterator[Any]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _scalars(child)
    else:
        yield value


def _leaves(value: Any, path: str, numbers: Iterator[Numbers]) -> Iterator[Line]:  # noqa: ANN401
    """The leaves below a value, each with its keys."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, f"{path} {key}".replace("_", " ").strip(), numbers)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and not any(
                isinstance(child, dict | list) for child in item.values()
            ):
                yield from _rows(item, path, numbers)
            else:
                yield from _leaves(item, path, numbers)
    else:
        yield _leaf(f"{path}: {_text(value)}" if path else _text(value), next(numbers))


def _rows(item: dict[str, Any], path: str, numbers: Iterator[Numbers]) -> Iterator[Line]:
    """The rows of a flat object: each value, with the first one, which names it."""
    columns = [Traced.added(key) for key in item]
    cells = [_leaf(_text(child), next(numbers)) for child in item.values()]
    for row in tables.row(columns, cells):
        text = Traced.added(f"{path}: ") + row.text if path else row.text
        yield Line(text, row.numbers, is_whole=True)


def _leaf(text: str, numbers: Numbers) -> Line:
    return Line(Traced.added(text), numbers, is_whole=True)


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON
    return value if isinstance(value, str) else json.dumps(value)
