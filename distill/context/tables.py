"""Reads the rows of tables: each cell is a line, with its column's name and the row's subject."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from distill.context.traced import Line, Traced, joined

ROW = re.compile(r"^\s*\|(.+)\|\s*$")
RULE = re.compile(r"^[\s|:-]*-[\s|:-]*$")


def with_columns(lines: Sequence[Line]) -> Iterator[Line]:
    """Table rows with the names of their columns; all other lines unchanged."""
    columns: list[Traced] = []
    named_by: tuple[int, ...] = ()
    for line, next_line in zip_longest(lines, lines[1:]):
        if RULE.match(line.text.text):
            continue
        if not ROW.match(line.text.text):
            yield line
        elif next_line and RULE.match(next_line.text.text):
            columns = _cells(line.text)
            named_by = (*line.numbers, *next_line.numbers)
        else:
            cells = [Line(cell, line.numbers) for cell in _cells(line.text)]
            for each in row(columns, cells):
                yield replace(each, columns=named_by, is_whole=True)


def row(columns: Sequence[Traced], cells: Sequence[Line]) -> list[Line]:
    """The lines of a row: its first cell, which names the subject, with each other cell."""
    padding = [Traced.added("")] * (len(cells) - len(columns))
    named = [
        replace(cell, text=column + ": " + cell.text if column else cell.text)
        for column, cell in zip([*columns, *padding], cells, strict=False)
        if cell.text
    ]
    return [_with_subject(named[0], cell) for cell in named[1:]] or named


def _with_subject(subject: Line, cell: Line) -> Line:
    numbers = sorted({*subject.numbers, *cell.numbers})
    return replace(cell, text=joined("; ", [subject.text, cell.text]), numbers=tuple(numbers))


def _cells(line: Traced) -> list[Traced]:
    """The texts between the bars of a row."""
    inside = line.strip()[1:-1]
    bars = [-1, *(at for at, character in enumerate(inside.text) if character == "|")]
    ends = [*bars[1:], len(inside.text)]
    return [inside[start + 1 : end].strip() for start, end in zip(bars, ends, strict=True)]
